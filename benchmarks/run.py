"""Everything at once: our engines and every peer that is installed, as a table and a picture.

    python -m benchmarks.run                       six nets; writes latest.md, latest.json and latest.svg into benchmarks/results/
    python -m benchmarks.run --quick               three nets, few rounds: does all of it work?
    python -m benchmarks.run squeezenet resnet50   these nets
    python -m benchmarks.run --render              table and picture again, from latest.json

All of a case's runners take turns on the same input, after their outputs have been held against those of the reference engine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import date
from functools import partial
from importlib import metadata
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's idle workers would spin in the others' turns

from inspector import blas

from . import chart, engine, report
from .peers import OURS, PEERS, Peer
from .summary import seconds

if TYPE_CHECKING:
    from inspector import Net

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
BATCHES = (1, 10)
GROWING = {"squeezenet": (128, 224, 320, 448, 640), "mobilenet": (128, 224, 320, 448, 640)}  # sides; both pool the whole image
GROWING_BATCHES = (1, 2, 4, 8, 16, 32)
QUICK = ("squeezenet", "mobilenet", "googlenet")
STARTS = {
    "python -c pass": ("-c", "pass"),
    "alexinspect --version": ("-m", "inspector", "--version"),
    "alexinspect summary alexnet": ("-m", "inspector", "summary", "alexnet"),
    "python -c 'import numpy'": ("-c", "import numpy"),
}


def machine() -> dict[str, Any]:
    """What the figures depend on, in general terms: no names, no places."""
    try:
        text = blas.CPUINFO.read_text(encoding="ascii", errors="replace")
    except OSError:
        text = ""
    fields = dict(line.partition(":")[::2] for line in text.partition("\n\n")[0].splitlines())
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    told = blas.describe(measure=False)
    packages = ["alexinspect", "numpy", *(peer.package for peer in PEERS.values() if peer.installed)]
    return {
        "date": date.today().isoformat(),
        "processor": fields.get("model name", "unknown processor"),
        "avx512": "avx512f" in fields.get("flags", "").split(),
        "cores": blas.cores(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        "blas": f"{told['name']} {told['version']}",
        "kernels": told["kernels"] or "unknown",
        "versions": {"Python": sys.version.split()[0], **dict(_versions(packages))},
        "load": [os.getloadavg()[0]] * 2,
    }


def _versions(packages: Sequence[str]) -> Iterator[tuple[str, str]]:
    from inspector import __version__

    for name in packages:
        if name == "alexinspect":
            yield name, __version__
            continue
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, "of unknown version"


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, _, high = quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return {"cpu": median(values), "low": low, "high": high}


def startup(rounds: int) -> list[dict[str, Any]]:
    """CPU ms of whole processes, in turns. Bytecode is kept in a folder that the first round fills, which does not count."""
    starts = STARTS | {f"python -c 'import {p.module}'": ("-c", f"import {p.module}") for p in PEERS.values() if p.installed}
    times: dict[str, list[float]] = {name: [] for name in starts}
    with TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        for turn in range(rounds + 1):
            for name, arguments in starts.items():
                spent = 1e3 * seconds(list(arguments), environment)
                if turn:
                    times[name].append(spent)
    return [{"name": name, **spread(spent)} for name, spent in times.items()]


def alone(name: str, folder: Path, rounds: int) -> dict[str, float]:
    """Medians of a runner in processes of its own (see alone.py)."""
    command = [sys.executable, "-m", "benchmarks.alone", name, str(folder), "1"]
    told = [json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout) for _ in range(rounds)]
    return {key: median(each[key] for each in told) for key in told[0]}


def shaped(net: Net, *shape: int) -> None:
    """The same net and parameters on an input of that shape; sizes that are not given stay."""
    (source,) = net.inputs
    net.reshape(**{source: (*shape, *(net.blobs[source].shape or ())[len(shape) :])})


def one_net(name: str, runners: dict[str, Peer], threads: Sequence[int], rounds: int, figures: dict[str, Any]) -> None:
    """All that is measured on one net with one set of weights, added to `figures`."""
    from threadpoolctl import threadpool_limits

    net = engine.prepared(name, 1)
    with TemporaryDirectory() as place:
        folder = Path(place)
        for write in dict.fromkeys(peer.write for peer in runners.values()):
            write(net, folder)
        size = (folder / "net.caffemodel").stat().st_size / 1e6
        for runner in runners:
            told = alone(runner, folder, 1 + (rounds > 2))
            figures["alone"].append({"net": name, "runner": runner, "size": size, **told})
        for runner, peer in runners.items():
            if runner in PEERS:  # ours are in engine.RUNNERS, on the net's own arrays
                engine.RUNNERS[runner] = partial(_from_files, peer, folder)
        for count in threads:
            for batch in BATCHES:
                shaped(net, batch)
                with threadpool_limits(count, "blas"):
                    case = engine.Case(name, net, batch, count)
                    results = engine.measured(case, list(runners), rounds if batch == 1 else max(3, rounds // 3))
                figures["results"] += map(asdict, results)
                print(*engine.table(results), sep="\n", flush=True)


def _from_files(peer: Peer, folder: Path, case: engine.Case) -> engine.Run:
    return peer.load(folder, case.batch, case.threads)


def scaling(name: str, rounds: int) -> list[dict[str, Any]]:
    """Cost of an image by the default engine on one thread: as the batch grows, and by area as the image grows."""
    from threadpoolctl import threadpool_limits

    rows = []
    shapes: list[tuple[str, int, tuple[int, ...]]] = [("batch", size, (size,)) for size in GROWING_BATCHES]
    shapes += [("side", side, (1, 3, side, side)) for side in GROWING.get(name, ())]
    with threadpool_limits(1, "blas"):
        net = engine.prepared(name, 1)
        whole = net.blobs[net.inputs[0]].shape or ()
        for kind, value, shape in shapes:
            shaped(net, *shape, *whole[len(shape) :])
            (result,) = engine.measured(engine.Case(name, net, shape[0], 1), ["default"], max(3, rounds))
            images = shape[0] if kind == "batch" else value**2 / 224**2
            rows.append({"kind": kind, "net": name, "value": value, "cost": result.cpu / images})
    return rows


def write(figures: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "latest.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    render(figures, folder)


def render(figures: dict[str, Any], folder: Path) -> None:
    (folder / "latest.md").write_text(report.markdown(figures), encoding="utf-8")
    (folder / "latest.svg").write_text(chart.svg(figures["results"], report.about(figures)), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", help=f"of the nets that ship; all six by default: {', '.join(engine.NETS)}")
    parser.add_argument("--quick", action="store_true", help="few rounds, one thread, and unless named three nets")
    parser.add_argument("--rounds", type=int, help="turns of every runner at batch 1 (default 9); a third of it at batch 10")
    parser.add_argument(
        "--output", type=Path, default=RESULTS, metavar="FOLDER", help="where to write (default benchmarks/results)"
    )
    parser.add_argument("--render", action="store_true", help="measure nothing: write table and picture from latest.json again")
    wanted = parser.parse_args()
    if wanted.render:
        render(json.loads((wanted.output / "latest.json").read_text(encoding="utf-8")), wanted.output)
        return
    blas.prepare()  # before NumPy is imported, as the command does
    nets = wanted.nets or (QUICK if wanted.quick else engine.NETS)
    rounds = wanted.rounds or (2 if wanted.quick else 9)
    runners = {**OURS, **{name: peer for name, peer in PEERS.items() if peer.installed}}
    missing = [name for name in PEERS if name not in runners]
    print(f"peers not installed: {', '.join(missing) or 'none'}", file=sys.stderr)
    threads = (1,) if wanted.quick or blas.cores() == 1 else (1, blas.cores())
    figures: dict[str, Any] = {"machine": machine(), "startup": startup(min(rounds, 5)), "alone": [], "results": [], "scaling": []}
    for name in nets:
        one_net(name, runners, threads, rounds, figures)
        if name in GROWING:
            figures["scaling"] += scaling(name, rounds)
        figures["machine"]["load"][1] = os.getloadavg()[0]
        write(figures, wanted.output)  # what is measured is kept, whatever comes
    print(f"written: {wanted.output}/latest.md, latest.json, latest.svg")


if __name__ == "__main__":
    main()
