"""A message as protobuf's C++ library prints it (TextFormat::Printer, DebugString): what a Caffe log shows, and what we write to files.

It differs from Python's text_format in two ways: floats have six significant digits, or nine where six do not read back as the same
float32; and every string byte that is not printable ASCII is an octal escape.
"""

from __future__ import annotations

import math
import re
import struct
from typing import Any

_FLOAT = struct.Struct("<f")
_PLAIN = re.compile(rb"[ !#-&(-\[\]-~]*")  # printable, and neither a quote nor a backslash
_ESCAPES = {0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t", 0x22: '\\"', 0x27: "\\'", 0x5C: "\\\\"}

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


def text(message: Any, indent: str = "") -> str:
    """The fields that are set, one per line, by field number, two blanks deeper in each message; ends with a line break."""
    lines: list[str] = []
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
        for item in value if _repeated(field) else (value,):
            lines.append(f"{indent}{name}: {_scalar(field, kind, item)}")


def _repeated(field: Any) -> bool:
    flag = getattr(field, "is_repeated", None)  # protobuf 7 dropped `label`, older ones lack this
    return bool(flag) if flag is not None else field.label == field.LABEL_REPEATED


def _scalar(field: Any, kind: int, value: Any) -> str:
    if kind == _TYPE_STRING or kind == _TYPE_BYTES:
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
