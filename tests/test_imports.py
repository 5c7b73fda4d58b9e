"""Imports point one way: a table of ranks, held against the syntax tree of every module, imports inside functions included."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("caffe_proto", "inspector", "cli")

# A module imports from its own row and the rows above it, never from below, and never in a circle. A new module gets a place here.
RANKS = (
    ("caffe_proto", "caffe_proto.*"),
    (  # needs nothing
        "inspector._version",
        "inspector.blas",
        "inspector.dump",
        "inspector.editions",
        "inspector.errors",
        "inspector.lazy",
        "inspector.sheet",
        "inspector.tables",
        "inspector.window",
    ),
    ("inspector.kernels", "inspector.kernels.*", "inspector.files", "inspector.shelf"),
    (  # files and messages, before there is a graph
        "inspector.caffemodel",
        "inspector.draft",
        "inspector.foreign",
        "inspector.opening",
        "inspector.phases",
        "inspector.prototxt",
        "inspector.splits",
        "inspector.upgrade",
    ),
    ("inspector.fillers",),
    ("inspector.layers", "inspector.layers.*"),
    ("inspector.labels", "inspector.sources", "inspector.sources.*"),
    ("inspector.graph",),
    ("inspector.multipliers",),
    ("inspector.dialect", "inspector.needs", "inspector.shapes"),
    ("inspector.build", "inspector.translate"),
    (  # reports: graph -> plain data
        "inspector.batch_size",
        "inspector.codes",
        "inspector.compare",
        "inspector.cost",
        "inspector.explain",
        "inspector.in_place",
        "inspector.gradients",
        "inspector.layer_docs",
        "inspector.log",
        "inspector.logparse",
        "inspector.memory",
        "inspector.memory_report",
        "inspector.receptive",
        "inspector.recognise",
        "inspector.references",
        "inspector.summary",
        "inspector.summary_table",
        "inspector.training_log",
        "inspector.whatif",
    ),
    ("inspector.plan", "inspector.preprocess", "inspector.weight_stats", "inspector.weights"),
    ("inspector.picture", "inspector.picture.*"),
    ("inspector.check",),
    ("inspector.findings", "inspector.run"),
    ("inspector.engine", "inspector.engine.*"),
    ("inspector.feed", "inspector.outputs"),  # ask a net for its sources and files
    ("inspector.net",),
    (  # what the commands do with a net: nets and files in, plain data out
        "inspector.batches",
        "inspector.classify",
        "inspector.features",
        "inspector.logdiff",
        "inspector.logmodel",
        "inspector.logstrict",
        "inspector.plot",
        "inspector.recipe",
        "inspector.solver",
        "inspector.testing",
        "inspector.timing",
        "inspector.train",
    ),
    ("inspector",),
    ("cli", "cli.*"),
    ("inspector.__main__",),
)

# Modules that are loaded only when something is computed, and so may import NumPy at their top.
COMPUTING = (
    "inspector.engine",
    "inspector.engine.*",
    "inspector.kernels.*",
    "inspector.picture.answers",
    "inspector.plan",
    "inspector.preprocess",
    "inspector.run",
    "inspector.solver",
    "inspector.train",
    "inspector.weight_stats",
    "inspector.weights",
)


@cache
def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name; a package is its __init__."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def only_types(node: ast.AST) -> bool:
    """Whether this is `if TYPE_CHECKING:`, whose body never runs."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def walk(node: ast.AST, *, functions: bool) -> Iterator[ast.AST]:
    """The nodes that run: without type-checking blocks, and without the bodies of functions where they are not asked for."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and not functions:
            continue
        yield child
        if only_types(child):
            for other in child.orelse:
                yield other
                yield from walk(other, functions=functions)
        else:
            yield from walk(child, functions=functions)


def targets(module: str, *, functions: bool = True) -> set[str]:
    """What a module imports: our modules by their full name, others by their first name; LazyModule("...") counts too."""
    return {name if name.startswith(PACKAGES) else name.partition(".")[0] for name in written(module, functions=functions)}


def written(module: str, *, functions: bool) -> Iterator[str]:
    """The dotted names in a module's import statements, relative ones made absolute, `from package import module` resolved."""
    package = module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in walk(tree(module), functions=functions):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=source, names=names, level=level):
                base = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                origin = ".".join([*base, *([source] if source else [])])
                for alias in names:
                    inner = f"{origin}.{alias.name}"
                    yield inner if inner in modules() else origin
            case ast.Call(func=ast.Name(id="LazyModule"), args=[ast.Constant(value=str(name))]) if functions:
                yield name


def rank(module: str) -> int:
    for position, row in enumerate(RANKS):
        if any(fnmatchcase(module, pattern) for pattern in row):
            return position
    pytest.fail(f"module {module} has no place in RANKS of tests/test_imports.py: add it to the row of what it may import")


def ours(module: str) -> set[str]:
    return {target for target in targets(module) if target in modules()} - {module}


def test_every_way_of_importing_is_seen() -> None:
    assert {"inspector.errors", "inspector.editions"} <= targets("inspector.layers.base")  # from ..errors import
    assert "inspector.layers.base" in targets("inspector.layers")  # from . import base
    assert "cli.main" in targets("inspector.__main__")  # absolute
    assert "difflib" in targets("inspector.shelf")  # inside a function ...
    assert "difflib" not in targets("inspector.shelf", functions=False)  # ... which does not run at import
    assert "numpy" in targets("inspector.lazy")  # LazyModule("numpy")
    assert "numpy" not in targets("inspector.lazy", functions=False)  # under TYPE_CHECKING


@pytest.mark.parametrize("module", modules())
def test_imports_point_up_the_table(module: str) -> None:
    own = rank(module)
    wrong = sorted(target for target in ours(module) if rank(target) > own)
    assert not wrong, f"{module} imports {', '.join(wrong)}, which lies below it"


def test_no_circles() -> None:
    try:
        TopologicalSorter({module: ours(module) for module in modules()}).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' -> '.join(error.args[1])}")


def test_only_cli_imports_click_or_rich() -> None:
    speakers = {module for module in modules() if targets(module) & {"click", "rich"}}
    assert all(module.startswith("cli") for module in speakers), speakers


def test_nothing_imports_cli_but_the_entry_point() -> None:
    readers = {m for m in modules() if not m.startswith("cli") and any(t.partition(".")[0] == "cli" for t in targets(m))}
    assert readers <= {"inspector.__main__"}


def test_kernels_never_see_a_proto() -> None:
    for module in modules():
        if module.startswith("inspector.kernels"):
            proto = {t for t in targets(module) if t.startswith(("caffe_proto", "google", "inspector.layers"))}
            assert not proto, f"{module} imports {proto}"


def test_imports_are_relative_inside_a_package_and_absolute_across() -> None:
    for module in modules():
        package = module.partition(".")[0]
        for node in walk(tree(module), functions=True):
            if isinstance(node, ast.ImportFrom) and not node.level and module != "inspector.__main__":
                assert (node.module or "").partition(".")[0] != package, f"{module}, line {node.lineno}: write it relative"


def test_numpy_waits_until_something_is_computed() -> None:
    eager = {m for m in modules() if "numpy" in targets(m, functions=False)}
    wrong = sorted(m for m in eager if not any(fnmatchcase(m, pattern) for pattern in COMPUTING))
    assert not wrong, f"{', '.join(wrong)}: use `from .lazy import np`, or join COMPUTING if nothing loads it for a summary"


@pytest.mark.parametrize(
    ("statement", "banned"),
    [
        ("import inspector", {"google", "numpy", "click", "rich", "difflib"}),
        ("import cli.main", {"google", "numpy", "rich", "PIL", "h5py", "importlib.metadata"}),
    ],
)
def test_start_up_is_lazy(statement: str, banned: set[str]) -> None:
    code = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not banned & set(loaded)


def test_public_names_are_found_and_others_are_not() -> None:
    import inspector

    assert inspector.InspectorError.__module__ == "inspector.errors"
    assert set(inspector.__all__) <= set(dir(inspector))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = inspector.nonsense
