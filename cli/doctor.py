"""`alexinspect doctor`: what it runs on, what is missing, what is in the way."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

import click

from inspector.tables import listing

from . import options, show

PACKAGES = ("caffe_proto", "inspector", "cli")
REQUIRED = ("protobuf", "numpy", "click", "rich")
EXTRAS = {  # extra -> (distribution, module) of which one of each inner tuple is enough
    "images": ((("pillow", "PIL"),),),
    "data": ((("lmdb", "lmdb"),), (("plyvel", "plyvel"), ("plyvel-next", "plyvel_next"))),
    "hdf5": ((("h5py", "h5py"),),),
    "threads": ((("threadpoolctl", "threadpoolctl"),),),
    "pictures": ((("cairosvg", "cairosvg"),),),
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that was looked at. Status: ok, missing (an extra), or problem."""

    name: str
    value: str
    status: str = "ok"
    remedy: str = ""


@click.command()
@options.form("table", "json")
@options.color
def doctor(form: str) -> int:
    """Tell what alexinspect runs on, and what is missing or in its way."""
    facts = list(examine())
    problems = any(fact.status == "problem" for fact in facts)
    if form == "json":
        show.json({"ok": not problems, "facts": [asdict(fact) for fact in facts]})
        return problems
    layout = show.layout()
    marks = {"ok": "good", "missing": "note", "problem": "error"}
    pairs = [(fact.name, "; ".join(filter(None, [fact.value, fact.remedy]))) for fact in facts]
    for fact, pair in zip(facts, pairs, strict=True):
        name = pair[0] + " " * (max(len(fact.name) for fact in facts) - len(pair[0]))
        mark = layout["paint"](f"{fact.status:7}", marks[fact.status])
        show.lines(
            f"{mark}  {line}" if i == 0 else " " * 9 + line for i, line in enumerate(_wrapped(name, pair[1], layout["width"]))
        )
    return problems


def _wrapped(name: str, text: str, width: int | None) -> Iterator[str]:
    return listing([(name, text)], width=None if width is None else width - 9)


def examine() -> Iterator[Fact]:
    """Everything worth knowing, in the order in which it is read."""
    from inspector import __version__

    yield Fact("alexinspect", f"{__version__} in {_home(PACKAGES[1])}")
    yield Fact("python", f"{platform.python_version()} ({platform.python_implementation()}), {sys.executable}")
    yield Fact("system", f"{platform.system()} {platform.release()}, {platform.machine()}")
    yield from _packages()
    for name in REQUIRED:
        version = _version(name)
        yield Fact(name, version) if version else Fact(name, "not installed", "problem", f"pip install {name}")
    yield from _extras()
    yield Fact("cpu", f"{_cpu()}, {_cores()} cores to use")
    yield from _blas()


def _version(distribution: str) -> str | None:
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
    if distribution == "protobuf":
        from google.protobuf.internal import api_implementation

        version += f" ({api_implementation.Type()})"
    return version


def _home(package: str) -> Path | None:
    """The folder that holds a package, as Python finds it."""
    spec = find_spec(package)
    return Path(spec.origin).resolve().parent.parent if spec and spec.origin else None


def _packages() -> Iterator[Fact]:
    """Our three packages have plain names: they must be ours and together, and nobody else's distribution may write into them."""
    homes = {name: _home(name) for name in PACKAGES}
    if len(set(homes.values())) > 1:
        where = ", ".join(f"{name} in {home}" for name, home in homes.items())
        yield Fact("packages", where, "problem", "they must lie beside each other: use a virtual environment of alexinspect's own")
    else:
        yield Fact("packages", f"{', '.join(PACKAGES)} beside each other")
    owners = metadata.packages_distributions()
    for name in PACKAGES:
        others = sorted(set(owners.get(name, [])) - {"alexinspect"})
        if others:
            yield Fact(name, f"also written by {', '.join(others)}", "problem", "use a virtual environment of alexinspect's own")
        hidden = [found for entry in dict.fromkeys(sys.path) if (found := _other(name, entry, homes[name]))]
        if hidden:
            yield Fact(name, f"another '{name}' at {', '.join(hidden)} is hidden by ours", "ok")


def _other(name: str, entry: str, home: Path | None) -> str | None:
    """A package or module of that name in one folder of the path, if it is not ours."""
    spec = PathFinder.find_spec(name, [entry or os.curdir])
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin).resolve()
    return None if origin.parent.parent == home else str(origin)


def _extras() -> Iterator[Fact]:
    for extra, needs in EXTRAS.items():
        found, missing = [], []
        for choices in needs:
            have = [f"{distribution} {_version(distribution)}" for distribution, module in choices if find_spec(module)]
            found += have
            missing += [] if have else [" or ".join(distribution for distribution, _ in choices)]
        name = f"extra {extra}"
        if missing:
            yield Fact(name, f"without {', '.join(missing)}", "missing", f"pip install 'alexinspect[{extra}]'")
        else:
            yield Fact(name, ", ".join(found))


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in text.partition("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    vectors = [
        name
        for name in ("avx2", "fma", "avx512f", "asimd", "sve")
        if name in fields.get("flags", fields.get("Features", "")).split()
    ]
    return ", ".join([fields.get("model name", platform.machine()), *vectors])


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _blas() -> Iterator[Fact]:
    """What NumPy multiplies matrices with, and for which processor it takes this one."""
    if _version("numpy") is None:
        return
    from inspector import blas

    facts = blas.describe()
    text = f"{facts['name']} {facts['version']}"
    if facts["kernels"]:
        text += f", kernels for {facts['kernels']}, {facts['threads']} threads"
    yield Fact("blas", f"{text}, {facts['gflops']:.0f} GFLOP/s, copies {facts['copy_gb_per_s']:.0f} GB/s", remedy=facts["hint"])
