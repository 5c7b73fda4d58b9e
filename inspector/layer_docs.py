"""The layer types document themselves: what their classes and Caffe's messages say of them, as data.

Settings are the fields of those messages of LayerParameter that a type's code reads; names, types and defaults are the schema's.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import CodeType
from typing import Any

from caffe_proto import caffe_pb2

from . import dialect
from .errors import InspectorError
from .layers import Layer, registry
from .sheet import Sheet
from .tables import Column, Paint, fold, plain, table

COMMON = ("transform_param", "loss_param")  # messages that a type has beside its own


@dataclass(frozen=True, slots=True)
class Setting:
    """One field of a message. `default` is as a prototxt would have it; empty where there is none."""

    message: str
    name: str
    type: str  # with "repeated" before it, or the names of an enum
    default: str


@dataclass(frozen=True, slots=True)
class Page:
    """What there is to say of a type."""

    type: str
    sentence: str
    rest: tuple[str, ...]  # further paragraphs
    rule: str
    example: str
    bottoms: str
    tops: str
    settings: tuple[Setting, ...]
    versions: tuple[str, ...]  # oldest first; none for a type that is not BVLC's

    def to_dict(self) -> dict[str, Any]:
        return {
            "type": self.type,
            "does": self.sentence,
            "more": list(self.rest),
            "bottoms": self.bottoms,
            "tops": self.tops,
            "shape_rule": self.rule,
            "settings": [
                {"message": s.message, "name": s.name, "type": s.type, "default": s.default or None} for s in self.settings
            ],
            "example": self.example,
            "versions": list(self.versions),
        }


def pages() -> list[Page]:
    """All types, by name."""
    return [page(kind) for kind in sorted(registry)]


def page(kind: str) -> Page:
    """One type; upper and lower case do not matter. Raises InspectorError (`unknown-layer-type`)."""
    found = {name.lower(): name for name in registry}.get(kind.lower())
    if found is None:
        from difflib import get_close_matches

        close = get_close_matches(kind.lower(), [name.lower() for name in registry], 1)
        named = next((name for name in registry if close and name.lower() == close[0]), "")
        remedy = f"did you mean '{named}'?" if named else "see alexinspect layers for what there is"
        raise InspectorError(f"there is no layer type '{kind}'", code="unknown-layer-type", remedy=remedy)
    cls = registry[found]
    paragraphs, example = _read(cls)
    layer = cls(caffe_pb2.LayerParameter(type=found, top=["top"]))
    return Page(
        found,
        paragraphs[0],
        tuple(paragraphs[1:]),
        cls.rule,
        example,
        _counts(layer.bottoms),
        _counts(layer.tops) + (" (one for each bottom)" if cls.one_top_per_bottom else ""),
        tuple(settings(cls)),
        versions(found) if cls.in_caffe else (),
    )


def sentence(cls: type[Layer]) -> str:
    """What the type does, its documentation's first paragraph; for a type that has none, its name."""
    return _read(cls)[0][0]


def _read(cls: type[Layer]) -> tuple[list[str], str]:
    """Paragraphs and example of a class's documentation."""
    texts: list[str] = []
    example = ""
    for paragraph in (inspect.getdoc(cls) or f"{cls.type}.").split("\n\n"):
        if re.match(r"\s*layers? \{", paragraph):
            example = example or inspect.cleandoc(paragraph)
        elif paragraph.strip() != "Example::":
            text = " ".join(paragraph.split())
            texts.append(f"{text.removesuffix('::')}." if text.endswith("::") else text)
    return texts, example


def _counts(arity: Any) -> str:
    least, most = (arity, arity) if isinstance(arity, int) else arity
    if least == most:
        return str(least)
    return f"{least} or more" if most is None else f"{least} to {most}"


# ---- settings


def settings(cls: type[Layer]) -> Iterator[Setting]:
    """The fields of a type's messages: those that it names, or the one that bears its name, or those that its code reads."""
    fields = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name
    used = {name for base in cls.__mro__ if base not in (Layer, object) for name in _names(base)}
    found = [name for name in fields if name in (cls.messages or used) and name.endswith("_param")]
    own = [name for name in fields if name.replace("_", "") == f"{cls.type.lower()}param"]
    if own and not cls.messages:  # others serve to build inner layers
        found = [*own, *(name for name in found if name in COMMON)]
    for name in sorted(found, key=lambda name: (name in COMMON, list(fields).index(name))):
        message = fields[name].message_type
        for field in message.fields if message is not None else ():
            yield Setting(name, field.name, _type(field), _default(field))


def _names(cls: type) -> Iterator[str]:
    """Attributes that the methods of a class read, and its own attributes that are text."""
    for value in vars(cls).values():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if isinstance(value, str):
            yield value
        elif isinstance(code := getattr(function, "__code__", None), CodeType):
            yield from _named(code)


def _named(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _named(constant)
        elif isinstance(constant, str):
            yield constant


TYPES = ("", "double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string", "group", "", "bytes", "uint32")


def _type(field: Any) -> str:
    if field.enum_type is not None:
        name = " | ".join(value.name for value in field.enum_type.values)
    else:
        name = field.message_type.name if field.message_type is not None else TYPES[field.type]
    return f"repeated {name}" if _repeated(field) else name


def _repeated(field: Any) -> bool:
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED)


def _default(field: Any) -> str:
    if _repeated(field) or field.message_type is not None or not (field.has_default_value or field.type == field.TYPE_BOOL):
        return ""
    if field.enum_type is not None:
        return str(field.enum_type.values_by_number[field.default_value].name)
    if isinstance(field.default_value, bool):
        return str(field.default_value).lower()
    return f'"{field.default_value}"' if isinstance(field.default_value, str) else f"{field.default_value:g}"


# ---- versions


@cache
def _absent() -> dict[str, frozenset[str]]:
    """Each version's missing types, oldest version first: its own, and what a later one still had not."""
    found: dict[str, frozenset[str]] = {}
    missing: frozenset[str] = frozenset()
    for name in reversed(dialect.names()):
        missing |= frozenset(dialect.load(name).edition.absent_types)
        found[name] = missing
    return dict(reversed(found.items()))


def versions(kind: str) -> tuple[str, ...]:
    """The Caffe versions that had the type, as far as the tables of the dialects say what a version had not."""
    return tuple(name for name, absent in _absent().items() if kind not in absent)


# ---- text


def sheet(found: list[Page]) -> Sheet:
    """One line for each type."""
    columns = [Column("type", style="type"), Column("does"), Column("since")]
    rows = [[page.type, page.sentence, page.versions[0] if page.versions else "a fork"] for page in found]
    return Sheet(["type", "does", "since"], columns, rows)


def lines(page: Page, *, width: int | None = None, paint: Paint = plain, rule: str = "-") -> Iterator[str]:
    """A page as text."""
    room = min(width or 100, 100)
    yield paint(page.type, "head")
    for paragraph in (page.sentence, *page.rest):
        yield from fold(paragraph, room)
    yield ""
    had = ("all versions" if len(page.versions) == len(_absent()) else ", ".join(page.versions)) if page.versions else "a fork's"
    for label, text in (("bottoms", page.bottoms), ("tops", page.tops), ("shape", page.rule), ("versions", had)):
        for i, line in enumerate(fold(text, room - 10)):
            yield (paint(label, "label") + " " * (10 - len(label)) if i == 0 else " " * 10) + line
    if page.settings:
        columns = [Column("setting", style="name"), Column("type"), Column("default")]
        for message in dict.fromkeys(setting.message for setting in page.settings):
            yield ""
            yield paint(message, "label")
            rows = [[setting.name, setting.type, setting.default] for setting in page.settings if setting.message == message]
            yield from table(columns, rows, width=width, paint=paint, rule=rule)
    if page.example:
        yield ""
        yield paint("example", "label")
        yield from (f"  {line}" for line in page.example.split("\n"))
