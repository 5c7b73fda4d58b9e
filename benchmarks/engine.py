"""How long one forward takes: our engines, and whatever else is listed in RUNNERS, on the same weights and input.

    python benchmarks/engine.py                         six nets, batch 1 and 10, one thread
    python benchmarks/engine.py --nets lenet --threads 2 --json times.json

Weights are random with a fixed seed and scaled so that activations stay of one size. Before anything is timed, all outputs are held
against those of the reference engine. Then the runners take turns; what counts is the median of the CPU time, and its spread.

A runner is a function from a `Case` to a call that takes the input and gives the output; it raises ImportError where its library is
not installed. Peers are added as rows.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, process_time
from typing import TYPE_CHECKING

from inspector import blas

if TYPE_CHECKING:
    import numpy as np

    from inspector import Net

NETS = ("caffenet", "squeezenet", "googlenet", "resnet50", "mobilenet", "vgg16")
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """One net with weights, its batch and how many threads a runner may use."""

    name: str
    net: Net
    batch: int
    threads: int


Run = Callable[["np.ndarray"], "np.ndarray"]


def ours(engine: str, case: Case) -> Run:
    """One of our engines; each has a net of its own, on shared parameters."""
    from inspector.engine import RULES, Engine

    net = case.net
    (source,) = (net.blobs[name].root for name in net.inputs)
    (output,) = (net.blobs[name] for name in net.outputs)
    if engine == "reference":
        from inspector.run import Executor

        executor = Executor(net.graph, net.weights)
        return lambda x: executor.forward({source: x})[output]
    planned = Engine(net.graph, net.weights, RULES[engine], case.threads)
    rng = net.executor.rng
    return lambda x: planned.forward({source: x}, [output], rng)[output]


RUNNERS: dict[str, Callable[[Case], Run]] = {name: partial(ours, name) for name in ("reference", "default", "fast")}


@dataclass(frozen=True)
class Result:
    """Milliseconds of one runner on one case: medians, and the quartiles of the CPU time. `error` is against the first runner."""

    net: str
    batch: int
    threads: int
    runner: str
    cpu: float
    low: float
    high: float
    wall: float
    first: float
    error: float


def prepared(name: str, batch: int, seed: int = 0) -> Net:
    """A net of the shelf with that batch and random parameters."""
    import numpy as np

    import inspector

    net = inspector.load(name)
    (data,) = net.inputs
    net.reshape(**{data: (batch, *(net.blobs[data].shape or ())[1:])})
    rng = np.random.default_rng(seed)
    for node in net.layers:
        for param in node.params or ():
            values = net.weights.peek(param)
            if param.name in ("variance", "factor", "scale"):
                values[...] = 1
            elif param.index:
                values[...] = rng.normal(0, 0.1, param.shape)
            else:
                inside = max(1, int(np.prod(param.shape[1:])))
                values[...] = rng.standard_normal(param.shape, np.float32) * np.float32((2 / inside) ** 0.5)
    _soften(net, data)
    return net


def _soften(net: Net, data: str) -> None:
    """Scale the last weights so that no class has all the probability: outputs would agree whatever the scores are."""
    import numpy as np

    (scores,) = (node.bottoms[0].name for node in net.layers if node.type == "Softmax")
    last = [node for node in net.layers if node.type in ("Convolution", "InnerProduct")][-1]
    shape = net.blobs[data].shape or ()
    made = net.forward([scores], **{data: np.random.default_rng(1).standard_normal(shape)})[scores]
    for param in last.params or ():
        net.weights.set(param, net.weights.peek(param) / made.std())


def measured(case: Case, runners: Iterable[str], rounds: int) -> list[Result]:
    """All runners on one case, in turns."""
    import numpy as np

    shape = case.net.blobs[case.net.inputs[0]].shape or ()
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    runs: dict[str, Run] = {}
    firsts, errors = {}, {}
    expected = None
    for name in runners:
        try:
            start = process_time()
            run = RUNNERS[name](case)
        except ImportError as missing:
            print(f"{name}: {missing}", file=sys.stderr)
            continue
        found = np.array(run(x)).reshape(case.batch, -1)
        firsts[name] = 1e3 * (process_time() - start)
        expected = found if expected is None else expected
        errors[name] = float(np.abs(found - expected).max() / np.abs(expected).max())
        assert errors[name] <= TOLERANCE, f"{name} on {case.name} differs by {errors[name]:.1e}"
        runs[name] = run
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            wall, cpu = perf_counter(), process_time()
            run(x)
            times[name].append((1e3 * (process_time() - cpu), 1e3 * (perf_counter() - wall)))
    results = []
    for name, pairs in times.items():
        cpu = [pair[0] for pair in pairs]
        low, _, high = quantiles(cpu, n=4) if len(cpu) > 1 else cpu * 3
        wall = median(pair[1] for pair in pairs)
        figures = (median(cpu), low, high, wall, firsts[name], errors[name])
        results.append(Result(case.name, case.batch, case.threads, name, *figures))
    return results


def table(results: list[Result]) -> Iterable[str]:
    yield "| net | batch | runner | CPU ms | quartiles | wall ms | to the first | first run ms | difference |"
    yield "|---|---:|---|---:|---|---:|---:|---:|---:|"
    base = {}
    for r in results:
        first = base.setdefault((r.net, r.batch), r.cpu)
        figures = f"{r.cpu:.1f} | {r.low:.1f} to {r.high:.1f} | {r.wall:.1f} | {r.cpu / first:.2f} | {r.first:.0f} | {r.error:.0e}"
        yield f"| {r.net} | {r.batch} | {r.runner} | {figures} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", default=list(NETS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 10])
    parser.add_argument("--runners", nargs="+", choices=list(RUNNERS), default=list(RUNNERS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    wanted = parser.parse_args()
    blas.prepare()  # before NumPy is imported, as the command does
    from threadpoolctl import threadpool_limits

    about = blas.describe()
    print(
        ", ".join(f"{key} {value:.0f}" if isinstance(value, float) else f"{key} {value}" for key, value in about.items() if value)
    )
    results: list[Result] = []
    with threadpool_limits(wanted.threads, "blas"):
        for name in wanted.nets:
            for batch in wanted.batches:
                case = Case(name, prepared(name, batch), batch, wanted.threads)
                results += measured(case, wanted.runners, max(2, wanted.rounds // (1 + batch // 4)))
    print(*table(results), sep="\n")
    if wanted.json:
        figures = {"blas": about, "results": [asdict(result) for result in results]}
        Path(wanted.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
