"""Arguments and options that several commands share, as decorators, and what becomes of them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from inspector.errors import InspectorError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from inspector import Net

F = TypeVar("F", bound=Callable[..., Any])

ENGINES = ("default", "fast", "reference")
FORMATS = ("table", "json", "csv", "markdown")


class Model(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 on
    """A prototxt, caffemodel, solver or the name of a model that ships; completes names and files."""

    name = "model"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from inspector import shelf

        files = [f"{path.parent.name}/{path.stem}" for path in shelf.folder().glob("*/*.prototxt")]
        known = sorted({*shelf.names(), *(name for name in files if "/" in incomplete and not name.endswith("/deploy"))})
        return [*(CompletionItem(name) for name in known if name.startswith(incomplete)), CompletionItem(incomplete, type="file")]


class Shape(click.ParamType):  # type: ignore[type-arg]
    """BLOB=64x3x227x227; BLOB=scalar for a blob without axes."""

    name = "BLOB=NxCxHxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, tuple[int, ...]]:
        blob, equals, sizes = str(value).rpartition("=")
        if not equals or not blob:
            self.fail(f"'{value}' names no blob; write it as BLOB=64x3x227x227", param, ctx)
        if sizes == "scalar":
            return blob, ()
        if not re.fullmatch(r"[0-9]{1,10}(?:[x,*×][0-9]{1,10})*", sizes):
            self.fail(f"'{sizes}' is no shape for blob '{blob}'; write sizes with x between them, such as 64x3x227x227", param, ctx)
        return blob, tuple(map(int, re.split("[x,*×]", sizes)))


@dataclass(frozen=True, slots=True)
class How:
    """How nets are to be opened."""

    phase: str = "TEST"
    level: int = 0
    stages: tuple[str, ...] = ()
    given: dict[str, tuple[int, ...]] = field(default_factory=dict)
    strict: bool = False
    allow_python: bool = False

    def open(self, model: str, weights: str | None = None) -> Net:
        """The net of a MODEL. With `strict`, a field or value that Caffe does not know is trouble."""
        import inspector

        rest: dict[str, Any] = {
            "phase": self.phase,
            "level": self.level,
            "stages": self.stages,
            "given": self.given,
            "weights": weights,
            "allow_python": self.allow_python,
        }
        net = _from_stdin(rest) if model == "-" else inspector.load(model, **rest)
        faults = [finding for finding in net.opened.findings if finding.severity == "error"]
        if self.strict and faults:
            raise InspectorError("\n".join(map(str, faults)), code=faults[0].code)
        return net

    def both(self, model: str) -> list[Net]:
        """The net in this phase, then in the other, unless a solver has none for it; without a phase in which nothing is left."""
        first = self.open(model)
        try:
            second = replace(self, phase="TRAIN" if self.phase == "TEST" else "TEST").open(model)
        except InspectorError:
            return [first]
        return [net for net in (first, second) if net.layers] or [first]


def content(path: str) -> bytes:
    """The bytes of a file; of - those that come through stdin."""
    from inspector.files import read_bytes

    return sys.stdin.buffer.read() if path == "-" else read_bytes(path)


def _from_stdin(rest: dict[str, Any]) -> Net:
    """The net that comes through stdin; a binary one rests in a file until the command ends, because weights are read when used."""
    import inspector
    from inspector.opening import looks_binary

    kept = click.get_current_context().meta  # a command may open the same net in both phases
    data = kept["stdin"] if "stdin" in kept else kept.setdefault("stdin", sys.stdin.buffer.read())
    if not looks_binary(data):
        return inspector.loads(data, name="<stdin>", **rest)
    from tempfile import NamedTemporaryFile

    file = NamedTemporaryFile(prefix="stdin-", suffix=".caffemodel")  # noqa: SIM115  # the context closes it
    click.get_current_context().with_resource(file)
    file.write(data)
    file.flush()
    return inspector.load(file.name, **rest)


def net_options(command: F, *, phases: tuple[str, ...] = ("TRAIN", "TEST"), usual: str = "TEST") -> F:
    """--phase, --level, --stage, --shape, --strict and --allow-python, which reach the command as one `how`."""

    @wraps(command)
    def bundled(phase: str, given: tuple[tuple[str, tuple[int, ...]], ...], **rest: Any) -> Any:
        settled = {name: rest.pop(name) for name in ("level", "stages", "strict", "allow_python")}
        return command(how=How(phase.upper(), given=dict(given), **settled), **rest)

    for option in (
        click.option("--allow-python", is_flag=True, help="Run the classes that Python layers name: for files that you trust."),
        click.option("--strict", is_flag=True, help="Stop at fields and values that Caffe does not know."),
        click.option(
            "--shape", "given", multiple=True, type=Shape(), help="Shape of a blob that the file does not settle (repeatable)."
        ),
        click.option("--stage", "stages", multiple=True, help="A stage of the net's state (repeatable)."),
        click.option("--level", type=int, default=0, help="The level of the net's state.", show_default=True),
        click.option("--phase", type=click.Choice(phases, case_sensitive=False), default=usual, help="Phase.", show_default=True),
    ):
        bundled = option(bundled)
    return bundled  # type: ignore[return-value]  # the same command with other keywords


@dataclass(frozen=True, slots=True)
class Engine:
    """How nets compute."""

    name: str = "default"
    threads: int | None = None

    def set(self, net: Net) -> None:
        net.engine, net.threads = self.name, self.threads


def engine_options(command: F) -> F:
    """--engine and --threads, which reach the command as one `engine`."""

    @wraps(command)
    def bundled(engine: str, threads: int | None, **rest: Any) -> Any:
        return command(engine=Engine(engine, threads), **rest)

    for option in (
        click.option("--threads", type=click.IntRange(1), help="How many threads, instead of all that there are."),
        click.option("--engine", type=click.Choice(ENGINES), default=ENGINES[0], help="How to compute.", show_default=True),
    ):
        bundled = option(bundled)
    return bundled  # type: ignore[return-value]  # the same command with other keywords


def model(command: F) -> F:
    """One MODEL."""
    return click.argument("model", type=Model())(command)


def models(command: F) -> F:
    """One or more MODELs, weights files among them."""
    return click.argument("models", nargs=-1, required=True, type=Model(), metavar="MODEL [WEIGHTS] ...")(command)


def form(*forms: str) -> Callable[[F], F]:
    """--format, the first one given being the usual."""
    return click.option("--format", "form", type=click.Choice(forms), default=forms[0], help="How to print it.", show_default=True)


def listed(names: str) -> list[str]:
    """Names with commas between them, as --columns takes them."""
    return [name.strip() for name in names.split(",") if name.strip()]


def _set_color(ctx: click.Context, param: click.Parameter, value: str) -> None:
    ctx.find_root().color = {"auto": None, "always": True, "never": False}[value]


def color(command: F) -> F:
    """--color auto, always or never; `show.colours` has the answer."""
    return click.option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        expose_value=False,
        is_eager=True,
        callback=_set_color,
        help="Colours; auto is on a terminal, unless NO_COLOR is set.",
    )(command)


def is_weights(name: str) -> bool:
    """Whether a file holds weights, seen from its content: HDF5, or a binary message."""
    path = Path(name)
    if not path.is_file():  # so nothing is taken from a pipe
        return False
    from inspector.files import trouble
    from inspector.opening import looks_binary

    try:
        with path.open("rb") as file:
            return looks_binary(file.read(4096))
    except OSError as error:
        raise trouble(name, error) from None


def pairs(names: tuple[str, ...]) -> list[tuple[str, str | None]]:
    """MODELs with the weights file that follows each, if one does. A weights file with no MODEL to belong to is a MODEL itself."""
    found: list[tuple[str, str | None]] = []
    free = False  # whether the last MODEL may still take weights
    for name in names:
        binary = is_weights(name)
        if binary and free:
            found[-1] = (found[-1][0], name)
            free = False
        else:
            found.append((name, None))
            free = not binary
    return found
