"""A message as protobuf's C++ library prints it (TextFormat::Printer): what a Caffe log shows, and what we write to files.

It differs from Python's text_format in two ways: floats have six significant digits, or nine where six do not read back as the same
float32; and every string byte that is not printable ASCII is an octal escape.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_FLOAT = struct.Struct("<f")
_PLAIN = re.compile(rb"[ !#-&(-\[\]-~]*")  # printable, and neither a quote nor a backslash
_ESCAPES = {0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t", 0x22: '\\"', 0x27: "\\'", 0x5C: "\\\\"}

Foreign = Mapping[tuple[str | int, ...], Sequence[tuple[str, str]]]  # path of a message -> name and text of fields in it

# brackets, names and values of a text that is known to be well-formed; comments, colons and commas are passed over
_TOKEN = re.compile(r"""(?:#[^\n]*|[\s:;,])*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[{}<>\[\]]|[^\s{}<>\[\],;:"'#]+)""")

_TYPE_DOUBLE, _TYPE_FLOAT, _TYPE_BOOL, _TYPE_STRING, _TYPE_MESSAGE, _TYPE_BYTES, _TYPE_ENUM = 1, 2, 8, 9, 11, 12, 14


def quoted(value: str | bytes) -> str:
    """A string in double quotes with C's escapes."""
    data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    if _PLAIN.fullmatch(data):
        return f'"{data.decode("ascii")}"'
    return '"' + "".join(_ESCAPES.get(b) or (chr(b) if 0x20 <= b < 0x7F else f"\\{b:03o}") for b in data) + '"'


def number(value: float, digits: int = 6) -> str:
    """A float32 as `%.6g`, or `%.9g` where that is needed to read the same value back; with digits 15, a double."""
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if math.isnan(value):
        return "nan"
    text = f"{value:.{digits}g}"
    if digits == 15:
        return text if float(text) == value else f"{value:.17g}"
    return text if _FLOAT.unpack(_FLOAT.pack(float(text)))[0] == value else f"{value:.9g}"


def text(message: Any, indent: str = "", foreign: Foreign | None = None) -> str:
    """The fields that are set, one per line, by field number, two blanks deeper in each message; ends with a line break.

    `foreign` has fields that the schema lacks, as written, by the path of the message around them. Their numbers are unknown: they
    stand after the known ones, where most forks have put theirs, and in a net before its layers.
    """
    lines: list[str] = []
    if foreign:
        _print_with(message, indent, lines, foreign, ())
    else:
        _print(message, indent, lines)
    lines.append("")
    return "\n".join(lines) if len(lines) > 1 else ""


def _print(message: Any, indent: str, lines: list[str]) -> None:
    for field, value in message.ListFields():
        name, kind = field.name, field.type
        if kind == _TYPE_MESSAGE:
            for item in value if _repeated(field) else (value,):
                lines.append(f"{indent}{name} {{")
                _print(item, indent + "  ", lines)
                lines.append(indent + "}")
            continue
        items = value if _repeated(field) else (value,)
        lines += [f"{indent}{name}: {_scalar(field, kind, item)}" for item in items]


def _print_with(message: Any, indent: str, lines: list[str], foreign: Foreign, path: tuple[str | int, ...]) -> None:
    """`_print` with foreign fields."""
    rest = [line for name, value in foreign.get(path, ()) for line in _foreign(name, value, indent)]
    for field, value in message.ListFields():
        if rest and field.name in ("layer", "layers"):
            lines += rest
            rest = []
        items = value if _repeated(field) else (value,)
        for i, item in enumerate(items):
            if field.type == _TYPE_MESSAGE:
                lines.append(f"{indent}{field.name} {{")
                inner = (*path, field.name, i) if _repeated(field) else (*path, field.name)
                _print_with(item, indent + "  ", lines, foreign, inner)
                lines.append(indent + "}")
            else:
                lines.append(f"{indent}{field.name}: {_scalar(field, field.type, item)}")
    lines += rest


def _foreign(name: str, value: str, indent: str) -> Iterator[str]:
    """A field of unknown type, whose value is given as text that has been parsed before, laid out as the printer does."""
    around: list[tuple[str, bool]] = []  # of every open message: the field's name, and whether it stands in a [list]
    listed = False
    for token in _TOKEN.findall(value):
        if token in ("{", "<"):
            yield f"{indent}{name} {{"
            indent += "  "
            around.append((name, listed))
            name, listed = "", False
        elif token in ("}", ">"):
            indent = indent[2:]
            yield indent + "}"
            name, listed = around.pop()
            name = name if listed else ""
        elif token in ("[", "]"):
            listed = token == "["
            name = name if listed else ""
        elif not name:
            name = token
        else:
            yield f"{indent}{name}: {token}"
            name = name if listed else ""


def _repeated(field: Any) -> bool:
    flag = getattr(field, "is_repeated", None)  # protobuf 7 dropped `label`, older ones lack this
    return bool(flag) if flag is not None else field.label == field.LABEL_REPEATED


def _scalar(field: Any, kind: int, value: Any) -> str:
    if kind in (_TYPE_STRING, _TYPE_BYTES):
        return quoted(value)
    if kind == _TYPE_FLOAT:
        return number(value)
    if kind == _TYPE_DOUBLE:
        return number(value, 15)
    if kind == _TYPE_BOOL:
        return "true" if value else "false"
    if kind == _TYPE_ENUM:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else str(value)
    return str(value)
