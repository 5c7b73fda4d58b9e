"""The figures as tables of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .chart import COLOURS

PEERS = ("Caffe", "OpenCV", "onnxruntime", "torch")
# time of ours over a peer's, batch 1, one thread: what the project wants to reach; VGG-16 by the fast engine
GOALS: Mapping[str, Mapping[str, float]] = {
    "caffenet": {"Caffe": 0.35, "OpenCV": 0.50, "onnxruntime": 0.9},
    "squeezenet": {"Caffe": 0.33, "OpenCV": 0.50, "onnxruntime": 1.4},
    "googlenet": {"Caffe": 0.33, "OpenCV": 0.42, "onnxruntime": 0.6},
    "resnet50": {"Caffe": 0.60, "OpenCV": 0.40, "onnxruntime": 1.2},
    "mobilenet": {"Caffe": 0.40, "OpenCV": 0.42, "onnxruntime": 1.7},
    "vgg16": {"Caffe": 0.35, "OpenCV": 0.65, "onnxruntime": 0.7},
}
BY_FAST = frozenset({"vgg16"})

Row = Mapping[str, Any]


def markdown(figures: Mapping[str, Any]) -> str:
    """The whole page, from what `run` measured."""
    return "\n".join(_lines(figures)) + "\n"


def about(figures: Mapping[str, Any]) -> str:
    """The machine in one line."""
    m = figures["machine"]
    before, after = m["load"]
    return f"{m['processor']}, {m['cores']} cores, {m['date']}; BLAS kernels {m['kernels']}; load {before:.1f} to {after:.1f}"


def _lines(figures: Mapping[str, Any]) -> Iterator[str]:
    m, results = figures["machine"], figures["results"]
    yield "# Benchmarks"
    yield ""
    yield "Written by `python -m benchmarks.run`; how it measures is in [the folder's README](../README.md)."
    yield ""
    yield f"* **Machine**: {m['processor']}{' with AVX-512' if m['avx512'] else ''}, {m['cores']} cores, {m['memory']:.0f} GB."
    yield f"* **BLAS of NumPy**: {m['blas']}, kernels {m['kernels']}."
    yield f"* **Programs**: {', '.join(f'{name} {version}' for name, version in m['versions'].items())}."
    before, after = m["load"]
    busy = "; other work was going on" if max(m["load"]) > m["cores"] else ""
    yield (
        f"* **How busy the machine was**: load average {before:.1f} at the start, {after:.1f} at the end, on {m['cores']} "
        f"cores{busy}. CPU time suffers less from that than wall time does, but it does suffer: compare the rows of one "
        "table, not tables of different days."
    )
    worst = max((r["error"] for r in results), default=0)
    yield f"* **Agreement**: before anything was timed, all outputs agreed with the specification's, to {worst:.0e} of the largest."
    yield ""
    yield "![CPU time of one forward, every program next to alexinspect](latest.svg)"
    for threads in sorted({r["threads"] for r in results}):
        for batch in sorted({r["batch"] for r in results}):
            chosen = [r for r in results if (r["threads"], r["batch"]) == (threads, batch)]
            if chosen:
                cores = "one thread" if threads == 1 else f"{threads} threads"
                yield ""
                yield f"## Batch {batch}, {cores}: CPU ms{'' if threads == 1 else ' / wall ms'} of one forward"
                yield ""
                waiting = " CPU time counts spinning, too: OpenBLAS's threads spin while other work holds the core of one of them."
                yield f"Median (quartiles{' of CPU time' if threads > 1 else ''}).{waiting if threads > 1 else ''}"
                yield ""
                yield from _times(chosen, wall=threads > 1)
            if chosen and threads == 1:
                yield ""
                yield from _ratios(chosen, goals=batch == 1)
    yield from _alone(figures["alone"])
    yield from _startup(figures["startup"])
    yield from _scaling(figures["scaling"])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|---|{'---:|' * (len(head) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _names(rows: Iterable[Row], key: str) -> list[str]:
    found = dict.fromkeys(row[key] for row in rows)
    return [name for name in COLOURS if name in found] if key == "runner" else list(found)


def _times(results: Sequence[Row], *, wall: bool) -> Iterator[str]:
    nets, by = _names(results, "net"), {(r["runner"], r["net"]): r for r in results}

    def cell(r: Row | None) -> str:
        if r is None:
            return "-"
        both = f"{r['cpu']:.1f} / {r['wall']:.1f}" if wall else f"{r['cpu']:.1f}"
        return f"{both} ({r['low']:.1f} to {r['high']:.1f})"

    rows = ([runner, *(cell(by.get((runner, net))) for net in nets)] for runner in _names(results, "runner"))
    yield from _table(["", *nets], rows)


def _ratios(results: Sequence[Row], *, goals: bool) -> Iterator[str]:
    cpu = {(r["runner"], r["net"]): r["cpu"] for r in results}
    peers = [peer for peer in PEERS if peer in _names(results, "runner")]
    if not peers:
        return
    yield "Our time over theirs, `default` and `fast`; below 1 we are faster" + (", and in brackets is the goal." if goals else ".")
    yield ""
    rows = []
    for net in _names(results, "net"):
        row = [net]
        for peer in peers:
            if (peer, net) not in cpu:
                row.append("-")
                continue
            pair = [cpu[engine, net] / cpu[peer, net] for engine in ("default", "fast") if (engine, net) in cpu]
            goal = GOALS.get(net, {}).get(peer) if goals else None
            words = " / ".join(f"{ratio:.2f}" for ratio in pair)
            row.append(words + (f" ({goal:g}{' by fast' if net in BY_FAST else ''})" if goal else ""))
        rows.append(row)
    yield from _table(["", *peers], rows)


def _alone(rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    yield ""
    yield "## Loading, first answer, memory"
    yield ""
    yield (
        "Each in a process of its own, one thread, batch 1: CPU ms to load the net from its files + CPU ms of the first forward, "
        "which is where lazy programs read their weights; and MB at the peak, everything included (interpreter, library, weights)."
    )
    yield ""
    nets, by = _names(rows, "net"), {(r["runner"], r["net"]): r for r in rows}

    def cell(r: Row | None) -> str:
        return "-" if r is None else f"{r['load']:.0f} + {r['first']:.0f}; {r['peak']:.0f} MB"

    sizes = {r["net"]: r["size"] for r in rows}
    head = ["", *(f"{net} ({sizes[net]:.0f} MB)" for net in nets)]
    yield from _table(head, ([runner, *(cell(by.get((runner, net))) for net in nets)] for runner in _names(rows, "runner")))


def _startup(rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    yield ""
    yield "## Start-up"
    yield ""
    yield "CPU ms of a whole process, median (quartiles), and how often `python -c pass` that is."
    yield ""
    base = rows[0]["cpu"]
    yield from _table(
        ["", "CPU ms", "times"],
        ([f"`{r['name']}`", f"{r['cpu']:.0f} ({r['low']:.0f} to {r['high']:.0f})", f"{r['cpu'] / base:.1f}"] for r in rows),
    )


def _scaling(rows: Sequence[Row]) -> Iterator[str]:
    for kind, words in (
        ("batch", "CPU ms per image as the batch grows, default engine, one thread; it must not grow."),
        ("side", "CPU ms per image of 224 x 224 pixels' worth, as the image's side grows, batch 1, default engine, one thread."),
    ):
        chosen = [row for row in rows if row["kind"] == kind]
        if not chosen:
            continue
        values = sorted({row["value"] for row in chosen})
        yield ""
        yield f"## Scaling with {'the batch' if kind == 'batch' else 'the size of the image'}"
        yield ""
        yield words
        yield ""
        by = {(row["net"], row["value"]): row["cost"] for row in chosen}
        nets = _names(chosen, "net")
        cells = ([net, *(f"{by[net, value]:.2f}" if (net, value) in by else "-" for value in values)] for net in nets)
        yield from _table(["", *map(str, values)], cells)
