"""What each Caffe version said, read from `dialects/*.toml`: the words and the source line of every statement, and their order.

A dialect file names a `base` and states only what differs. A statement looks like the line that it makes::

    top-shape = "I net.cpp:131] Top shape: {shape}"

An empty string takes a statement back. D marks what only debug builds print (as an I line). A table `moved` shifts the source
lines of all inherited statements of a file, where lines were added or taken out above them::

    moved = { "net.cpp" = -2 }
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from caffe_proto import caffe_pb2

from .dump import number
from .editions import Arity, Edition
from .errors import InspectorError
from .layers import Shape, count

FOLDER = Path(__file__).parent / "dialects"
DEFAULT = "master"
ALIASES = {"rc5": "1.0"}


@dataclass(frozen=True, slots=True)
class Statement:
    """One kind of line: severity letter, `file:line`, and a template over the facts."""

    level: str
    place: str
    template: str

    @classmethod
    def parse(cls, text: str) -> Statement:
        head, _, template = text.partition("] ")
        level, _, place = head.partition(" ")
        return cls(level, place, template)

    def words(self, values: Mapping[str, Any]) -> str:
        """The template with the facts in it, in C++'s spelling."""
        return self.template.format_map({name: item if type(item) is str else _Spelled(item) for name, item in values.items()})


class _Spelled:
    """A value that is put into a template in C++'s spelling, unless the template asks for another."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __format__(self, wanted: str) -> str:
        return format(self.value, wanted) if wanted else str(spelled(self.value))


def spelled(value: Any) -> Any:
    """A value as a C++ stream prints it: shapes with their count, floats with six digits, truth as 1 or 0."""
    if isinstance(value, tuple):
        return shape_string(value)
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return number(value) if value != value or value in (float("inf"), float("-inf")) else f"{value:g}"
    return value


def shape_string(shape: Shape) -> str:
    """Blob::shape_string: each size followed by a blank, then the count in brackets."""
    return "".join(f"{size} " for size in shape) + f"({count(shape)})"


@dataclass(frozen=True, slots=True)
class Order:
    """Where the statements stand that moved between versions; the defaults are master's."""

    setting_up: str = "after"  # "Setting up X" stands "before" or "after" what the layer itself says
    memory: str = "layer"  # the memory figure after each "layer", or once at the "end"
    backward: str = "reverse"  # who needs backward: after all layers in "reverse", or "inline" with each
    database: str = "factory"  # a database is opened when the layer is made ("factory") or in its "setup"
    mean_file: str = "first"  # the mean file is read "first" in the data layer's set-up, or "last"
    inner: tuple[str, ...] = ()  # types that make an inner layer through the factory


@dataclass(frozen=True, slots=True)
class Dialect:
    """One Caffe version: how it behaved, in which order it spoke, and its words."""

    name: str
    released: str
    about: str
    edition: Edition
    order: Order
    say: dict[str, Statement]
    refusals: dict[str, Statement]
    schema: dict[str, frozenset[str]] = field(default_factory=dict)  # message -> the fields that it had; all, where none are listed
    schema_names: dict[str, str] = field(default_factory=dict)  # message -> what it was called then
    aliases: dict[str, dict[str, str]] = field(default_factory=dict)  # name of a V1 type then -> its `type` and `settings` today

    @property
    def generation(self) -> str:
        """What its layers look like in a prototxt: what the last upgrade makes that it knew."""
        return "V2" if "v1" in self.edition.upgrades else "V1" if "v0" in self.edition.upgrades else "V0"


def names() -> list[str]:
    """The dialects that are known, oldest first."""
    rows = [_file(path) for path in FOLDER.glob("*.toml") if not path.stem.startswith("refusals_")]
    return [row["name"] for row in sorted(rows, key=lambda row: row["released"])]


@cache
def _file(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


@cache
def load(name: str) -> Dialect:
    """A dialect by name. Raises InspectorError with the known names."""
    name = ALIASES.get(name, name)
    if not (FOLDER / f"{name}.toml").is_file():
        raise InspectorError(f"there is no dialect '{name}'", code="unknown-dialect", remedy="known are " + ", ".join(names()))
    data = _read(name)
    return Dialect(
        name=data["name"],
        released=data["released"],
        about=data.get("about", ""),
        edition=_edition(data),
        order=Order(**{key: _frozen(value) for key, value in data.get("order", {}).items()}),
        say={key: Statement.parse(text) for key, text in data["say"].items() if text},
        refusals={key: Statement.parse("F " + text) for key, text in data["refusals"].items() if text},
        schema=_schema(data),
        schema_names=data.get("schema_names", {}),
        aliases=data.get("aliases", {}),
    )


def described(dialect: Dialect) -> dict[str, Any]:
    """What sets a dialect apart, as plain data: the flags of behaviour and order in which it differs from master."""
    usual = load(DEFAULT)
    return {
        "name": dialect.name,
        "released": dialect.released,
        "about": dialect.about,
        "layers": dialect.generation,
        "behaviour": _differences(dialect.edition, usual.edition),
        "order": _differences(dialect.order, usual.order),
        "statements": len(dialect.say),
        "refusals": len(dialect.refusals),
    }


def _differences(one: Any, other: Any) -> dict[str, Any]:
    pairs = ((item.name, getattr(one, item.name), getattr(other, item.name)) for item in fields(one) if item.name != "name")
    return {name: dict(ours) if isinstance(ours, Mapping) else ours for name, ours, theirs in pairs if ours != theirs}


def _read(name: str) -> dict[str, Any]:
    """A dialect's tables laid over those of its base; the oldest ancestor stands on the layers' own refusals."""
    own = _file(FOLDER / f"{name}.toml")
    base = _read(own["base"]) if "base" in own else {"refusals": _layer_refusals()}
    for key in ("say", "refusals"):
        base[key] = {code: _moved(text, own.get("moved", {})) for code, text in base.get(key, {}).items()}
    merged = {**base, **own}
    for key in ("say", "order", "edition", "bottoms", "tops", "refusals", "schema", "schema_names"):
        merged[key] = {**base.get(key, {}), **own.get(key, {})}
    lacks = [*base.get("lacks", {}).items(), *own.get("lacks", {}).items()]  # an older version lacks all that a later one lacks
    merged["lacks"] = {message: " ".join(names for key, names in lacks if key == message) for message, _ in lacks}
    return merged


def _schema(data: dict[str, Any]) -> dict[str, frozenset[str]]:
    """The fields that a version's messages had: those listed, or today's without those that it lacks."""
    messages = caffe_pb2.DESCRIPTOR.message_types_by_name
    today = {name: frozenset(messages[name].fields_by_name) - set(lacking.split()) for name, lacking in data["lacks"].items()}
    return {**today, **{name: frozenset(listed.split()) for name, listed in data["schema"].items()}}


def _edition(data: dict[str, Any]) -> Edition:
    """The behaviour of a version. An arity is a number, [least] or [least, most]."""
    flags = {key: _frozen(value) for key, value in data.get("edition", {}).items()}
    for key in ("bottoms", "tops"):
        flags[key] = {kind: _arity(value) for kind, value in data.get(key, {}).items()}
    return Edition(data["name"], absent_types=tuple(data.get("absent_types", ())), **flags)


def _arity(value: int | list[int]) -> Arity:
    if isinstance(value, int):
        return value
    return value[0], value[1] if len(value) > 1 else None


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _moved(text: str, shifts: Mapping[str, int]) -> str:
    """A statement at its new source line."""
    head, bracket, template = text.partition("] ")
    place, colon, line = head.rpartition(":")
    shift = shifts.get(place.rpartition(" ")[2], 0)
    return f"{place}:{int(line) + shift}{bracket}{template}" if shift and colon and line.isdigit() else text


def _layer_refusals() -> dict[str, str]:
    result: dict[str, str] = {}
    for path in sorted(FOLDER.glob("refusals_*.toml")):
        for code, entry in _file(path).items():
            result[code] = f"{entry['at']}] {entry['text']}"
    return result
