"""Protobuf's text format, read with positions and without stopping at what the schema does not know.

`parse` reads what protobuf's C++ parser reads (its rules are protobuf's text-format specification and `text_format.cc`), so a
file means here what it means to Caffe. Where that parser would give up over one field (an unknown name, an enum value
that does not exist, a value of the wrong type) the field is left out, reported as a `Finding` that also holds the words of
the C++ parser, and reading goes on. Only text that is not the format at all raises `PrototxtError`.

How it is fast: one regular expression cuts the text into tokens, a dict per message type says what a field name means, and
another remembers what a value's text looks like on the wire; the message is assembled in protobuf's binary form and
handed to protobuf once. Nothing is kept for positions: `Document.position` reads again the few lines that it needs.

How it stays safe: no recursion, tokens by the window, at most `MOST_FINDINGS` findings and `DEEPEST` levels.
"""

from __future__ import annotations

import math
import re
import struct
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as attribute
from functools import partial
from itertools import chain, repeat
from operator import length_hint
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import Finding, Position, PrototxtError

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = ["DEEPEST", "MOST_FINDINGS", "Document", "Unknown", "parse"]

DEEPEST = 100  # messages in messages: the limit of protobuf's binary form, in which every message must be storable
MOST_FINDINGS = 10_000  # a file of nothing but faults shall not take more memory than its text does
SUGGESTIONS = 200  # different names for which "did you mean" is worked out
LONGEST_NAME = 100  # characters; a longer name or value is cut in messages and gets no suggestion
LONGEST_SAID = 1000  # bytes of a name or value in Caffe's words
LONGEST_LINE = 120  # characters of a source line that a caret shows
REMEMBERED = 1000  # values per field whose binary form is remembered
WINDOW = 1 << 16  # bytes of text that are cut into tokens at a time

# An identifier takes the colon that touches it along, which spares a token per field. A string that is not closed ends with
# its line, so that nothing is ever read twice; a number is whatever begins like one. The end of the text is the token b"".
_TOKEN = re.compile(
    rb"[ \t\r\n\v\f]*+(?:#[^\n]*+[ \t\r\n\v\f]*+)*+("
    rb"[A-Za-z_][A-Za-z0-9_]*+:?"
    rb"|[{}]"
    rb'|"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"?'
    rb"|-?\.?[0-9](?:[eE][+-](?=[0-9])|[0-9A-Za-z_.])*+"
    rb"|'[^'\\\n]*+(?:\\.[^'\\\n]*+)*+'?"
    rb"|[^ \t\r\n\v\f]"
    rb"|\Z)"
)
_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*+")
_STRING = re.compile(rb"""(["'])(?:(?!\1)[^\\\n]|\\.)*+\1""")
_INTEGER = re.compile(rb"(-?)(?:0[xX]([0-9a-fA-F]+)|0([0-7]*)|([1-9][0-9]*))")
_FLOAT = re.compile(rb"(-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)[fF]?")
_LOOSE_FLOAT = re.compile(rb"(-?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)[fF]?")  # leading zeros: Python's parser takes them
_SCALAR = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*+|(?:%s)|%s|(?i:-(?:inf|infinity|nan))" % (_INTEGER.pattern, _FLOAT.pattern))
_ESCAPE = re.compile(
    rb"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|u([0-9a-fA-F]{4})|U(00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4})|(.))"
)
_ESCAPED = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_ESCAPED |= {mark: mark for mark in (b"\\", b"?", b"'", b'"')}
_BAD_ESCAPE = {
    b"x": "Expected hex digits for escape sequence.",
    b"X": "Expected hex digits for escape sequence.",
    b"u": "Expected four hex digits for \\u escape sequence.",
    b"U": "Expected eight hex digits up to 10ffff for \\U escape sequence",
}
_BOOLS = {b"true": 1, b"True": 1, b"t": 1, b"false": 0, b"False": 0, b"f": 0}
_FLOAT_WORDS = {b"inf": "inf", b"infinity": "inf", b"nan": "nan"}
_QUOTES = (b'"', b"'")
_OPENERS = {b"{": b"}", b"<": b">"}
_BRACKETS = {b"{": b"}", b"<": b">", b"[": b"]"}
_CLOSERS = frozenset((b"}", b">", b"]"))
_NOWHERE: array[int] = array("Q")
_SMALL = [bytes([n]) for n in range(128)]


# ---- what was read ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Unknown:
    """A field that the schema does not have, as data: for layers and parameters of forks."""

    path: tuple[str | int, ...]  # of the message around it: ("layer", 3, "convolution_param")
    name: str
    offset: int  # of the name, in bytes of the text as UTF-8
    _source: _Source
    _start: int
    _end: int = 0

    @property
    def value(self) -> str:
        """The value as it is written, with its braces or quotes."""
        return self._source.data[self._start : self._end].decode()


@dataclass(slots=True, eq=False)
class Document:
    """A message that was read from text, what was wrong with the text, and where everything stands."""

    message: Message  # what could be read; unknown fields and values are left out
    name: str
    findings: list[Finding]  # in file order
    unknown: list[Unknown]  # the fields that "unknown-field" findings speak of
    _source: _Source
    _dropped: array[int]  # offsets of values of repeated fields that are not in the message, ascending
    _inside: dict[int, dict[str, array[int]]] = attribute(default_factory=dict)  # what lately scanned bodies hold, by offset

    @property
    def text(self) -> str:
        """The decoded text."""
        return self._source.data.decode()

    def caret(self, where: Position) -> str:
        """The source line and, below it, a caret under the column; a very long line is cut around the column."""
        return self._source.caret(where)

    def position(self, path: Sequence[str | int]) -> Position | None:
        """Where the name of a field stands: ("layer", 3, "convolution_param", "kernel_size", 0) or ("layer", 3, "name").

        The index of a repeated field counts the values that were read; an element of a [list] points at the value. A
        singular field needs no index; of a repeated one it means the first value. What is not in the text gives the place
        of the nearest message around it that is, and None where the text holds no field at all.
        """
        start = _TOKEN.match(self._source.data)
        found = start.start(1) if start and start[1] else None
        descriptor: Any = self.message.DESCRIPTOR
        bodies, step = [0], 0
        while step < len(path):
            name = path[step]
            field = descriptor.fields_by_name.get(name) if descriptor is not None and isinstance(name, str) else None
            places = [self._children(body).get(str(name), _NOWHERE) for body in bodies]
            offsets: Sequence[int] = places[0] if len(places) == 1 else [at for some in places for at in some]
            index = path[step + 1] if step + 1 < len(path) else None
            step += 1 if isinstance(index, str) or index is None else 2
            if field is None or _repeated(field):
                first_wanted = index if isinstance(index, int) else 0
                offsets = offsets[first_wanted : first_wanted + 1] if first_wanted >= 0 else ()
            if not offsets:
                break
            found = offsets[-1]  # a singular message that was given twice is one message: children from all, place of the last
            bodies = [body for at in offsets if (body := self._body(at)) is not None]
            descriptor = field.message_type if field is not None else None
        return None if found is None else self._source.position(found)

    def _body(self, offset: int) -> int | None:
        """Where the body begins of the message whose name or opening brace is at `offset`."""
        for token in _TOKEN.finditer(self._source.data, offset):
            if token[1] in _OPENERS:
                return token.end()
            if token[1] != b":" and (token.start(1) != offset or not _NAME.match(token[1])):
                return None
        return None

    def _children(self, body: int) -> dict[str, array[int]]:
        """Field name -> offsets of its values, of the message whose body begins at byte `body` (0: of the whole text)."""
        known = self._inside.get(body)
        if known is not None:
            return known
        found: dict[str, array[int]] = {}
        depth, listed, awaited = 0, False, False  # brackets around; in a [list] of an own field; a value begins here
        name, named = "", 0
        tokens = _TOKEN.finditer(self._source.data, body)  # what is here has been read before, so its grammar is in order
        for match in tokens:
            token = match[1]
            if depth:
                depth += (token in _BRACKETS) - (token in _CLOSERS)
            elif awaited and token != b":":
                if token == b"[" and not listed:
                    listed = True
                    continue
                if token == b"]":
                    listed = False
                elif not _holds(self._dropped, match.start(1)):
                    found[name].append(match.start(1) if listed else named)
                if token == b"-":
                    next(tokens)
                depth, awaited = int(token in _BRACKETS), False
            elif listed:
                listed, awaited = token != b"]", token == b","
            elif token in _CLOSERS:
                break
            elif token == b"[" or _NAME.match(token):
                text, named, awaited = _bare(token), match.start(1), True
                while text[:1] == b"[" and text[-1:] != b"]":
                    text += next(tokens)[1]
                name = text.decode()
                found.setdefault(name, array("Q"))
        if len(self._inside) >= 4096:
            self._inside.clear()
        self._inside[body] = found
        return found


def _holds(ascending: array[int], number: int) -> bool:
    at = bisect_left(ascending, number)
    return at < len(ascending) and ascending[at] == number


class _Source:
    """The text as UTF-8 bytes, and the places of its bytes."""

    def __init__(self, text: str | bytes, name: str) -> None:
        self.name = name
        self.not_utf8: int | None = None  # the first byte that is not UTF-8; the text was then taken for Latin-1
        if isinstance(text, str):
            try:
                data = text.encode("utf-8", "surrogateescape")  # bytes that someone else could not decode
            except UnicodeEncodeError:
                data = text.encode("utf-8", "replace")
        else:
            data = bytes(text)
        self.has_mark = data.startswith(b"\xef\xbb\xbf")
        if self.has_mark:
            data = data[3:]
        try:
            data.decode()
        except UnicodeDecodeError as error:
            self.not_utf8 = len(data[: error.start].decode("latin-1").encode())
            data = data.decode("latin-1").encode()
        self.data = data
        self._last = (0, 1, 0, 0, 0)  # offset, its line, offset of that line, column in characters, column as C++ counts

    def place(self, offset: int) -> tuple[int, int, int]:
        """Line, column in characters, and column as protobuf's C++ tokenizer counts (bytes, tabs to 8), each from 1.

        Askers mostly go forwards through the text, so every answer starts from the one before.
        """
        at, line, start, column, caffe = self._last
        if offset < at:
            at, line, start, column, caffe = 0, 1, 0, 0, 0
        breaks = self.data.count(b"\n", at, offset)
        if breaks:
            line += breaks
            at = start = self.data.rfind(b"\n", at, offset) + 1
            column = caffe = 0
        piece = self.data[at:offset].decode()
        column += len(piece)
        for number, run in enumerate(piece.encode("latin-1" if self.not_utf8 is not None else "utf-8").split(b"\t")):
            caffe += len(run) + (8 - caffe % 8 if number else 0)
        self._last = (offset, line, start, column, caffe)
        return line, column + 1, caffe + 1

    def position(self, offset: int) -> Position:
        line, column, _ = self.place(offset)
        return Position(self.name, line, column)

    def caffe(self, offset: int, words: str) -> str:
        """What protobuf's C++ parser says of that place."""
        line, _, column = self.place(offset)
        return f"{line}:{column}: {words}"

    def caret(self, where: Position) -> str:
        start = 0
        for _ in range(where.line - 1):
            start = self.data.find(b"\n", start) + 1
        end = self.data.find(b"\n", start)
        line = self.data[start : end if end >= 0 else len(self.data)].decode().rstrip("\r\v\f ")
        column = where.column - 1
        if len(line) > LONGEST_LINE:
            first = max(0, min(column - LONGEST_LINE // 2, len(line) - LONGEST_LINE))
            ends = "…" if first else "", "…" if first + LONGEST_LINE < len(line) else ""
            line, column = ends[0] + line[first : first + LONGEST_LINE] + ends[1], column - first + len(ends[0])
        line = "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line)  # no codes for the terminal
        indent = "".join("\t" if c == "\t" else " " for c in line[:column].ljust(column))
        return f"{line}\n{indent}^"


# ---- tokens ----------------------------------------------------------------------------------------------------------------


class _Tokens:
    """The tokens of a text, one after the other, a window at a time; and where the one taken last begins."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.take: Callable[[], bytes] = chain.from_iterable(self._windows()).__next__

    def _windows(self) -> Iterator[Iterator[bytes]]:
        data, size, start, window = self.data, len(self.data), 0, WINDOW
        while start < size:
            end = min(start + window, size)
            whole = end == size  # no token goes beyond its line, so a window that ends with a line cuts none
            if not whole and (cut := data.rfind(b"\n", start, end) + 1):
                end, whole = cut, True
            tokens = _TOKEN.findall(data, start, end)
            while tokens and not tokens[-1]:
                tokens.pop()
            self._begin(start, end, tokens)
            start = end
            if not whole:  # a line longer than the window: what the end may have cut (1e and +, for one) is read again
                if len(tokens) < 3:
                    start, window = self._start, window * 2
                    continue
                start = self._place(len(tokens) - 2)
                del tokens[-2:]
                self._begin(self._start, start, tokens)
            window = WINDOW
            yield self._left
        self._begin(size, size, [b""])
        next(self._left)
        yield repeat(b"")  # the end, as often as it is asked for

    def _begin(self, start: int, end: int, tokens: list[bytes]) -> None:
        self._start, self._end, self._count, self._left = start, end, len(tokens), iter(tokens)
        self._places: array[int] | None = None

    def _place(self, number: int) -> int:
        if self._places is None:
            self._places = array("Q", [match.start(1) for match in _TOKEN.finditer(self.data, self._start, self._end)])
        return self._places[number]

    def offset(self) -> int:
        """Where the token taken last begins."""
        return self._place(self._count - length_hint(self._left) - 1)


# ---- what the schema says --------------------------------------------------------------------------------------------------


def _repeated(field: Any) -> bool:
    """Protobuf before 6 has no `is_repeated`, and after it no `label`."""
    known = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED if known is None else known)


def _varint(number: int) -> bytes:
    if number < 128:
        return _SMALL[number]
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _integer(text: bytes) -> int | None:
    """The value of a decimal, octal or hexadecimal integer; None if it is none."""
    match = _INTEGER.fullmatch(text)
    if not match:
        return None
    minus, hexadecimal, octal, decimal = match.groups()
    # 25 digits are beyond every type, and Python refuses to convert thousands
    value = int(decimal[:25]) if decimal else int(hexadecimal, 16) if hexadecimal else int(octal or b"0", 8)
    return -value if minus else value


def _double(text: bytes) -> float | None:
    """The value of a float literal as C++ reads it; None if it is none."""
    match = _FLOAT.fullmatch(text)
    if match:
        return float(match[1])
    word = _FLOAT_WORDS.get(text.lstrip(b"-").lower())
    return None if word is None else float(("-" if text[:1] == b"-" else "") + word)


def _pack(form: struct.Struct, value: float) -> bytes:
    try:
        return form.pack(value)
    except OverflowError:  # beyond float: infinite, as in C++
        return form.pack(math.inf if value > 0 else -math.inf)


def _encode_integer(tag: bytes, least: int, most: int, to_wire: Callable[[int], bytes], text: bytes) -> bytes | None:
    value = _integer(text)
    if value is None or not least <= value <= most or (least == 0 and text[:1] == b"-"):
        return None
    return tag + to_wire(value)


def _encode_float(tag: bytes, form: struct.Struct, text: bytes) -> bytes | None:
    value = _double(text)
    return None if value is None else tag + _pack(form, value)


def _encode_bool(tag: bytes, text: bytes) -> bytes | None:
    value = _BOOLS.get(text, _integer(text))
    return None if value is None or value > 1 or text[:1] == b"-" else tag + _SMALL[value]


def _encode_enum(tag: bytes, numbers: dict[bytes, int], text: bytes) -> bytes | None:
    value = numbers.get(text)
    if value is None:
        value = _integer(text)
        if value is None or value not in numbers.values():
            return None
    return tag + _varint(value & _64_BITS)


def _encode_text(tag: bytes, text: bytes) -> bytes | None:
    """One string literal without escapes; the others go through `_Reader._strings`."""
    if text[-1:] not in _QUOTES or len(text) < 2 or text[0] != text[-1] or b"\\" in text:
        return None
    return tag + _varint(len(text) - 2) + text[1:-1]


_64_BITS = (1 << 64) - 1
_INT32, _UINT32 = (-(1 << 31), (1 << 31) - 1), (0, (1 << 32) - 1)
_INT64, _UINT64 = (-(1 << 63), (1 << 63) - 1), (0, _64_BITS)


def _plain(value: int) -> bytes:
    return _varint(value & _64_BITS)


def _zigzag(value: int) -> bytes:
    return _varint(value << 1 if value >= 0 else ~(value << 1))


# FieldDescriptor.type -> name, range, wire type, binary form
_INTEGERS: dict[int, tuple[str, tuple[int, int], int, Callable[[int], bytes]]] = {
    3: ("int64", _INT64, 0, _plain),
    4: ("uint64", _UINT64, 0, _plain),
    5: ("int32", _INT32, 0, _plain),
    6: ("fixed64", _UINT64, 1, struct.Struct("<Q").pack),
    7: ("fixed32", _UINT32, 5, struct.Struct("<I").pack),
    13: ("uint32", _UINT32, 0, _plain),
    15: ("sfixed32", _INT32, 5, struct.Struct("<i").pack),
    16: ("sfixed64", _INT64, 1, struct.Struct("<q").pack),
    17: ("sint32", _INT32, 0, _zigzag),
    18: ("sint64", _INT64, 0, _zigzag),
}
_FLOATS = {1: ("double", 1, struct.Struct("<d")), 2: ("float", 5, struct.Struct("<f"))}
_BOOL, _STRING_TYPE, _GROUP, _MESSAGE, _BYTES, _ENUM = 8, 9, 10, 11, 12, 14


class _Field:
    """One field of a message type: what its values look like and what they become in the binary form."""

    def __init__(self, descriptor: Any, bit: int) -> None:
        self.descriptor = descriptor
        self.name: str = descriptor.name
        self.repeated = _repeated(descriptor)
        self.bit = 0 if self.repeated else bit  # how the reader remembers that it was given
        self.type = kind = descriptor.type
        self.is_message = kind in (_MESSAGE, _GROUP)
        self.is_text = kind in (_STRING_TYPE, _BYTES)
        self.end = b""  # what closes a group; everything else says its length first
        # the binary form of a value from its text; None: unusual or wrong, see `_Reader._value`
        self.encode: Callable[[bytes], bytes | None] | None = None
        if kind in _INTEGERS:
            self.expects, limits, wire, to_wire = _INTEGERS[kind]
            self.tag = self._tag(wire)
            self.encode = partial(_encode_integer, self.tag, *limits, to_wire)
        elif kind in _FLOATS:
            self.expects, wire, form = _FLOATS[kind]
            self.tag = self._tag(wire)
            self.encode = partial(_encode_float, self.tag, form)
        elif kind == _BOOL:
            self.expects, self.tag = "true or false", self._tag(0)
            self.encode = partial(_encode_bool, self.tag)
        elif kind == _ENUM:
            self.tag = self._tag(0)
            self.numbers = {value.name.encode(): value.number for value in descriptor.enum_type.values}
            self.expects = "one of " + ", ".join(map(bytes.decode, self.numbers)) if len(self.numbers) < 9 else "an enum's name"
            self.encode = partial(_encode_enum, self.tag, self.numbers)
        elif self.is_text:
            self.expects, self.tag = "a string in quotes", self._tag(2)
            self.encode = partial(_encode_text, self.tag)
        else:
            self.expects, self.tag = "a message in braces", self._tag(2)
            if kind == _GROUP:
                self.tag, self.end = self._tag(3), self._tag(4)

    def _tag(self, wire: int) -> bytes:
        return _varint(self.descriptor.number << 3 | wire)


# How a field name acts: the bit of a field that may be given once, remembered values (text -> binary form), encode, the field.
# A scalar's name without its colon and a message's name have no encode, so they take the longer way.
_Entry = tuple[int, dict[bytes, bytes], Callable[[bytes], bytes | None] | None, _Field]


class _Table:
    """What the names mean inside one message type."""

    def __init__(self, descriptor: Any) -> None:
        self.descriptor = descriptor
        self.entries: dict[bytes, _Entry] = {}
        for number, one in enumerate(descriptor.fields):
            known = _Field(one, 1 << number)
            name = (one.message_type.name if known.end else one.name).encode()
            self.entries[name] = (known.bit, {}, None, known)
            self.entries[name + b":"] = (known.bit, {}, known.encode, known)


_UNKNOWN = object()
_tables: dict[Any, _Table] = {}  # by descriptor: built once, at first use


def _table(descriptor: Any) -> _Table:
    table = _tables.get(descriptor)
    if table is None:
        table = _tables[descriptor] = _Table(descriptor)
    return table


# ---- reading ---------------------------------------------------------------------------------------------------------------


def _bare(token: bytes) -> bytes:
    """A token as C++ cuts it: a name without the colon."""
    return token[:-1] if len(token) > 1 and token[-1:] == b":" else token


def _said(token: bytes) -> str:
    """A token in the words of C++, which says all of it; a megabyte of it is not worth the exactness."""
    return token[:LONGEST_SAID].decode("utf-8", "replace")


def _shown(token: bytes) -> str:
    """A token in our words: cut, and without codes for the terminal."""
    text = token[: 4 * LONGEST_NAME].decode("utf-8", "replace")
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= LONGEST_NAME else text[:LONGEST_NAME] + "…"


class _Reader:
    """One pass over the tokens of a text. `read` is the loop for what is usual; the other methods are for what is not."""

    def __init__(self, source: _Source) -> None:
        self.source = source
        self.tokens = _Tokens(source.data)
        self.take = self.tokens.take
        self.path: list[tuple[str, int | None]] = []  # of the message that is being read
        self.findings: list[Finding] = []
        self.owners: list[tuple[str, int | None] | None] = []  # the outermost message (the layer) of every finding
        self.unknown: list[Unknown] = []
        self.dropped = array("Q")
        self.more = 0  # findings beyond `MOST_FINDINGS`
        self.latin1 = False  # a string was not UTF-8
        self.end = 0  # where the value that `_skip` skipped ends
        self.suggested: dict[tuple[str, bytes], str] = {}

    def read(self, table: _Table) -> bytes:
        """The whole text as a message of that type, in protobuf's binary form."""
        take, path = self.take, self.path
        stack: list[tuple[Any, ...]] = []  # the same seven things of every message around the one that is being read
        parts = bytearray()  # of the message, in binary form
        get = table.entries.get
        close, seen, counts, listed = b"", 0, {}, False
        field: _Field | None = None
        last: Any = None  # the field just read: only then may a separator, or more of a string, follow
        value = b""
        token = take()
        while True:
            entry = get(token)
            if entry is not None:
                bit, memo, encode, last = entry
                if seen & bit:
                    self._twice(table, last, token)
                seen |= bit
                value = take()
                encoded = memo.get(value)
                if encoded is None and encode is not None:
                    encoded = encode(value)
                    if encoded is None:
                        token = self._scalar(last, value, parts)
                        continue
                    if len(memo) < REMEMBERED and len(value) < LONGEST_NAME:
                        memo[value] = encoded
                if encoded is not None:
                    parts += encoded
                    token = take()
                    continue
                colon = token[-1:] == b":"
                if not colon and value == b":":
                    colon, value = True, take()
                if not last.is_message:
                    if not colon and value not in _OPENERS:
                        self._stop(f"':' after '{last.name}'", value, f'Expected ":", found "{_said(_bare(value))}".')
                    if colon:
                        token = self._scalar(last, value, parts)
                    else:
                        token = self._misfit(last, value, self.tokens.offset(), colon=False)
                    continue
                child, child_listed = last, value == b"[" and last.repeated
                if child_listed:
                    value = take()
                    if value == b"]":
                        token = take()
                        continue
                    value = self._element(child, value)
                if value not in _OPENERS:
                    token = take() if child_listed else self._misfit(child, value, self.tokens.offset())
                    continue
            elif token == close:
                if field is None:
                    return bytes(parts)
                body, last, was_listed = parts, field, listed
                parts, table, close, seen, counts, listed, field = stack.pop()
                get = table.entries.get
                parts += last.tag
                if not last.end:
                    parts += _varint(len(body))
                parts += body
                parts += last.end
                path.pop()
                token = take()
                if not was_listed:
                    continue
                if token == b",":
                    value = self._element(last, take())
                elif token == b"]":
                    value = token
                else:
                    self._stop("',' or ']'", token, f'Expected ",", found "{_said(_bare(token))}".')
                if value not in _OPENERS:
                    token = take()
                    continue
                child, child_listed = last, True
            else:
                if last is not None and (token == b"," or token == b";"):
                    last = None
                    token = take()
                elif last is not None and token[:1] in _QUOTES and value[:1] in _QUOTES and last.is_text:
                    del parts[-len(last.encode(value)) :]
                    token = self._strings(last, value, token, parts)
                else:
                    token = self._unknown(table, token)
                    last, value = _UNKNOWN, b""
                continue

            # the message `child` opens with `value`
            if len(stack) >= DEEPEST:
                self._too_deep()
            index = None
            if child.repeated:
                index = counts.get(child, 0)
                counts[child] = index + 1
            path.append((child.name, index))
            stack.append((parts, table, close, seen, counts, listed, field))
            parts, table, close, seen, counts = bytearray(), _table(child.descriptor.message_type), _OPENERS[value], 0, {}
            get = table.entries.get
            field, listed, last = child, child_listed, None
            token = take()

    # -- values

    def _scalar(self, field: _Field, value: bytes, parts: bytearray) -> bytes:
        """The value, or [list] of values, that begins with the token `value`; returns the token after it, as all of these do."""
        take = self.take
        if value != b"[" or not field.repeated:
            return self._value(field, value, parts)
        value = take()
        if value == b"]":
            return take()
        while True:
            encoded = field.encode(value) if field.encode and not field.is_text else None
            if encoded is not None:
                parts += encoded
                token = take()
            else:
                token = self._value(field, value, parts)
            if token == b"]":
                return take()
            if token != b",":
                self._stop("',' or ']'", token, f'Expected ",", found "{_said(_bare(token))}".')
            value = take()

    def _value(self, field: _Field, value: bytes, parts: bytearray) -> bytes:
        encode = field.encode
        if encode is None:
            return self._misfit(field, value, self.tokens.offset())
        start = rest = self.tokens.offset()
        if field.is_text and value[:1] in _QUOTES:
            return self._strings(field, b"", value, parts)
        if value == b"-":  # stands apart from its number
            value, rest = value + self.take(), self.tokens.offset()
        encoded = encode(value)
        if encoded is None and field.type in _FLOATS:
            encoded = self._loose_float(field, value, start)
        if encoded is None:
            return self._misfit(field, value, start, rest if rest != start else None)
        parts += encoded
        return self.take()

    def _loose_float(self, field: _Field, value: bytes, start: int) -> bytes | None:
        """Numbers that Python's text_format takes and C++ does not: 010, 01.5, inff. Their value counts, with a finding."""
        match = _LOOSE_FLOAT.fullmatch(value)
        digits = value.lstrip(b"-")
        number = float(match[1]) if match else _double(value[:-1]) if re.fullmatch(b"[a-zA-Z]+[fF]", digits) else None
        if number is None:
            return None
        encoded = field.tag + _pack(_FLOATS[field.type][2], number)
        if self._full():
            return encoded
        at = start + len(value) - len(digits)
        if not match:
            words = f"Expected double, got: {_said(digits.lower())}"
        elif digits.isdigit():
            words = f"Expect a decimal number, got: {_said(digits)}"
        else:
            words, at = "Hex and octal numbers must be integers.", at + len(digits) - len(digits.lstrip(b"01234567"))
        message = f"field '{field.name}' takes a decimal number, not '{_shown(value)}'"
        self._find("wrong-value-type", message, start, words, at, field=field, value=value)
        return encoded

    def _strings(self, field: _Field, first: bytes, token: bytes, parts: bytearray) -> bytes:
        """String literals side by side are one value. `first` has no escapes; `token` was taken last."""
        pieces = [first[1:-1]]
        start = self.tokens.offset()
        while token[:1] in _QUOTES:
            self._closed(token)
            pieces.append(self._unescaped(token[1:-1], self.tokens.offset() + 1))
            token = self.take()
        value = b"".join(pieces)
        if field.type == _STRING_TYPE:
            try:
                value.decode()
            except UnicodeDecodeError:
                if not self.latin1:  # once is enough
                    self.latin1 = True
                    message = f"escapes in field '{field.name}' make no UTF-8; every byte was taken for a Latin-1 character"
                    self._find("not-utf-8", message, start, severity="warning", field=field)
                value = value.decode("latin-1").encode()
        parts += field.tag + _varint(len(value)) + value
        return token

    def _closed(self, token: bytes) -> None:
        if not _STRING.fullmatch(token):
            self._stop("a quote at the end of the string", token, "String literals cannot cross line boundaries.")

    def _unescaped(self, text: bytes, start: int) -> bytes:
        def character(match: re.Match[bytes]) -> bytes:
            octal, hexadecimal, high, low, short, long, other = match.groups()
            if octal or hexadecimal:
                return bytes([(int(octal, 8) if octal else int(hexadecimal, 16)) & 255])
            if high:
                return chr(0x10000 + ((int(high, 16) & 0x3FF) << 10 | int(low, 16) & 0x3FF)).encode()
            if short or long:
                return chr(int(short or long, 16)).encode("utf-8", "surrogatepass")
            if other in _ESCAPED:
                return _ESCAPED[other]
            if self._full():
                return match[0]
            at = start + match.start()
            words = _BAD_ESCAPE.get(other, "Invalid escape sequence in string literal.")
            after = _shown(text[match.start(7) : match.start(7) + 4])[:1]
            message = f"a backslash before '{after}' means nothing; it was kept as it stands"
            remedy = "write two backslashes for one"
            self._find("bad-escape", message, at, words, at + 1 + (other in _BAD_ESCAPE), remedy=remedy)
            return match[0]

        return _ESCAPE.sub(character, text) if b"\\" in text else text

    def _element(self, field: _Field, value: bytes) -> bytes:
        """The next opening brace in a [list] of messages, or the bracket that ends the list."""
        while value not in _OPENERS:
            token = self._misfit(field, value, self.tokens.offset())
            if token == b"]":
                return token
            if token != b",":
                self._stop("',' or ']'", token, f'Expected ",", found "{_said(_bare(token))}".')
            value = self.take()
        return value

    # -- what does not fit the schema

    def _misfit(self, field: _Field, value: bytes, start: int, rest: int | None = None, *, colon: bool = True) -> bytes:
        """A value that the field cannot take; it is left out.

        `value` is its first token, at `start`; where '-' stood apart it is with it, and the number is at `rest`.
        """
        if field.repeated:
            self.dropped.append(start)
        if self._full():
            return self._skip(value, field.expects)
        code, message = "wrong-value-type", f"field '{field.name}' takes {field.expects}, not {_quoted(value)}"
        digits, at, remedy = value.lstrip(b"-") or value, start, ""
        minus = digits != value
        number = _integer(value)
        words: str | None
        if field.type in _INTEGERS:
            least, most = _INTEGERS[field.type][1]
            if minus and least:
                at = start + 1 if rest is None else rest
            words = f"Expected integer, got: {'-' if minus and not least else _said(_bare(digits))}"
            if number is not None:
                code, message = "out-of-range", f"{_shown(value)} is beyond {field.expects} ({least} to {most})"
                message += f" in field '{field.name}'"
                if not minus or least:
                    words = f"Integer out of range ({_said(digits)})"
        elif field.type in _FLOATS:
            got = digits.lower() if _NAME.match(digits) else digits
            words = f"Expected double, got: {_said(_bare(got))}"
            if number is not None:
                words = f"Expect a decimal number, got: {_said(digits)}"
            if minus:
                at = start + 1 if rest is None else rest
        elif field.type == _BOOL:
            words = f"Expected identifier, got: {'-' if minus else _said(_bare(value))}"
            if number is not None and not minus:
                code, words = "out-of-range", f"Integer out of range ({_said(value)})"
            elif _NAME.match(value):
                at, words = -1, f'Invalid value for boolean field "{field.name}". Value: "{_said(value)}".'
        elif field.type == _ENUM:
            words = f"Expected integer or identifier, got: {_said(value)}"
            remedy = self._suggest(field.descriptor.enum_type.full_name, value.strip(b"\"'"), field.numbers)
            if number is not None and not _INT32[0] <= number <= _INT32[1]:
                at = (start + 1 if rest is None else rest) if minus else start
                code, words = "out-of-range", f"Integer out of range ({_said(digits)})"
            elif number is not None or _NAME.fullmatch(value):
                text = _said(value) if number is None else str(number)
                code, at, words = "unknown-enum-value", -1, f'Unknown enumeration value of "{text}" for field "{field.name}".'
                message = f"'{_shown(value)}' is no value of field '{field.name}' ({field.expects})"
        elif field.is_text:
            words = f"Expected string, got: {'-' if minus else _said(_bare(value))}"
        else:
            words = f'Expected "{{", found "{"-" if minus else _said(_bare(value))}".'
        if not colon:
            words = f'Expected ":", found "{_said(value)}".'
        token = self._skip(value, field.expects, words)
        self._find(code, message, start, words, self.tokens.offset() if at < 0 else at, remedy=remedy, field=field, value=value)
        return token

    def _skip(self, value: bytes, expects: str = "a value", words: str | None = None) -> bytes:
        """Reads over the value that begins with the token `value`, whatever it is; leaves its end in `end`."""
        take, offset = self.take, self.tokens.offset
        closers: list[bytes] = []
        while True:
            separable = True
            if value in _BRACKETS:
                if len(self.path) + len(closers) >= DEEPEST:
                    self._too_deep()
                closers.append(_BRACKETS[value])
                opened, value, separable = value, take(), False
                if opened == b"[" and value != b"]":
                    continue
            elif value[:1] in _QUOTES:
                while value[:1] in _QUOTES:
                    self._closed(value)
                    self.end = offset() + len(value)
                    value = take()
            else:
                found = value
                if value == b"-":
                    found = take()
                    value += found
                if not _SCALAR.fullmatch(value):
                    self._stop(expects, found, words)
                self.end = offset() + len(value.lstrip(b"-"))
                value = take()
            while closers:  # after a value, or at the beginning of a message
                if value == closers[-1]:
                    closers.pop()
                    self.end = offset() + 1
                    value, separable = take(), True
                elif closers[-1] == b"]":
                    if value != b",":
                        self._stop("',' or ']'", value, f'Expected ",", found "{_said(_bare(value))}".')
                    value = take()
                    break
                elif separable and value in (b",", b";"):
                    value, separable = take(), False
                else:
                    value = self._name(value)[1]
                    break
            else:
                return value

    def _name(self, token: bytes, table: _Table | None = None) -> tuple[bytes, bytes]:
        """A field name that begins with `token`, and the first token of its value.

        With a table it is said to be unknown there, before anything else can be wrong.
        """
        at = self.tokens.offset()
        if token == b"[":  # of an extension, or the type of an Any: nothing that a Caffe schema has
            pieces = [token]
            while pieces[-1] != b"]":
                pieces.append(self.take())
                if pieces[-1][:1] in (b"", b"{", b"}", b"<", b">", *_QUOTES):
                    self._stop("']'", pieces[-1], f'Expected "]", found "{_said(_bare(pieces[-1]))}".')
            name, end = b"".join(pieces), self.tokens.offset() + 1
        elif _NAME.match(token):
            name = _bare(token)
            end = at + len(name)
        else:
            self._stop("a field name", token, f"Expected identifier, got: {_said(token)}")
        if table is not None and not self._full():
            kind = table.descriptor.full_name
            words = f'Message type "{kind}" has no field named "{_said(name)}".'
            if token == b"[":
                words = f'Extension "{_said(name[1:-1])}" is not defined or is not an extension of "{kind}".'
            remedy = self._suggest(kind, name, (known for known in table.entries if known[-1:] != b":"))
            message = f"'{_shown(name)}' is no field of {kind}"
            self._find("unknown-field", message, at, words, self._next(end), remedy=remedy, message_type=kind, field=_said(name))
        colon, value = token[-1:] == b":", self.take()
        if not colon and value == b":":
            colon, value = True, self.take()
        if not colon and value not in _OPENERS:
            self._stop(f"':' or '{{' after '{_shown(name)}'", value, f'Expected "{{", found "{_said(_bare(value))}".')
        return name, value

    def _unknown(self, table: _Table, token: bytes) -> bytes:
        """A field that the message type does not have; `token` is its name, or something that is none."""
        if token in (b"}", b">"):
            self._stop("a field name" if not self.path else "the other closing brace", token)
        at = self.tokens.offset()
        kept = len(self.findings) < MOST_FINDINGS
        name, value = self._name(token, table)
        start = self.tokens.offset()
        after = self._skip(value)
        if kept:
            path = tuple(step for pair in self.path for step in pair if step is not None)
            self.unknown.append(Unknown(path, name.decode("utf-8", "replace"), at, self.source, start, self.end))
            self.findings[-1].values["value"] = _said(self.source.data[start : min(self.end, start + LONGEST_SAID)])
        return after

    def _twice(self, table: _Table, field: _Field, token: bytes) -> None:
        if self._full():
            return
        at, name = self.tokens.offset(), _bare(token)
        self._find(
            "field-given-twice",
            f"field '{field.name}' of {table.descriptor.full_name} is given more than once",
            at,
            f'Non-repeated field "{_said(name)}" is specified multiple times.',
            self._next(at + len(name)),
            remedy="the last value counts here; Caffe refuses the file",
            field=field,
        )

    # -- saying so

    def _full(self) -> bool:
        """Whether there are findings enough; then the one that was about to be made is only counted."""
        full = len(self.findings) >= MOST_FINDINGS
        self.more += full
        return full

    def _next(self, end: int) -> int:
        """Where the token begins that follows byte `end`: of most faults C++ says the place of the token that it reads next."""
        match = _TOKEN.match(self.source.data, end)
        return match.start(1) if match else end

    def _suggest(self, kind: str, name: bytes, known: Iterable[bytes]) -> str:
        """ "did you mean" a known name, where one is close; the `_param` that most names end in does not make two names alike."""
        key = kind, name
        if key not in self.suggested:
            if len(name) > LONGEST_NAME or len(self.suggested) >= SUGGESTIONS:
                return ""
            from difflib import get_close_matches

            candidates = {word.decode().lower().removesuffix("_param"): word.decode() for word in known}
            wanted = name.decode("utf-8", "replace").lower().removesuffix("_param")
            close = get_close_matches(wanted, candidates, 1, 0.8)
            self.suggested[key] = f"did you mean '{candidates[close[0]]}'?" if close else ""
        return self.suggested[key]

    def _find(
        self,
        code: str,
        message: str,
        at: int,
        words: str | None = None,
        words_at: int = 0,
        *,
        severity: str = "error",
        remedy: str = "",
        field: _Field | str | None = None,
        message_type: str = "",
        value: bytes = b"",
    ) -> None:
        where = self.source.position(at)
        values: dict[str, Any] = {}
        if isinstance(field, _Field):
            message_type, field = field.descriptor.containing_type.full_name, field.name
        if field is not None:
            values = {"message_type": message_type, "field": field, "value": _said(value)}
        if words is not None:
            values["caffe"] = self.source.caffe(words_at, words)
        self.findings.append(Finding(code, message, severity, where, remedy=remedy, values=values))
        self.owners.append(self.path[0] if self.path else None)

    def _stop(self, expects: str, found: bytes, words: str | None = None) -> NoReturn:
        """What was read is not the format; `found` was taken last."""
        data, at = self.source.data, self.tokens.offset()
        opener = _innermost(data, at)
        opened = f"the '{opener[0].decode()}' opened at {'{}:{}'.format(*self.source.place(opener[1]))}" if opener else ""
        where, code = at, "syntax-error"
        if not found:
            where = len(data.rstrip())
            message = f"expected {expects}, found the end of the text"
            if opener:
                code, message = "unclosed", f"{opened} is never closed; {message}"
        elif found in _CLOSERS:
            if not opener:
                message = f"'{found.decode()}' closes nothing: expected {expects}"
            else:
                message = f"expected {expects}, found '{found.decode()}' within {opened}"
        else:
            message = f"expected {expects}, found {_quoted(data[at : at + 4] if found[0] > 127 else found)}"
        if found[:1] > b"\x7f":
            words = f"Interpreting non ascii codepoint {found[0]}."
        elif found[:1] < b" " and found:
            words = "Invalid control characters encountered in text."
        caffe = self.source.caffe(at, words or f"Expected identifier, got: {_said(_bare(found))}")
        _refuse(self.source, code, message, where, caffe, self.findings)

    def _too_deep(self) -> NoReturn:
        message = f"messages are nested more than {DEEPEST} levels deep"
        _refuse(self.source, "too-deep", message, self.tokens.offset(), None, self.findings)


def _quoted(token: bytes) -> str:
    """A token as messages show it; of bytes that are not ASCII, the first character."""
    if token[:1] > b"\x7f":
        return f"'{_shown(token)[:1]}'"
    return _shown(token) if token[:1] in _QUOTES else f"'{_shown(_bare(token))}'"


def _innermost(data: bytes, limit: int) -> tuple[bytes, int] | None:
    """The innermost bracket that is open before byte `limit`, and where it is."""
    opened: list[tuple[bytes, int]] = []
    for match in _TOKEN.finditer(data, 0, limit):
        if match[1] in _BRACKETS:
            opened.append((match[1], match.start(1)))
        elif match[1] in _CLOSERS and opened:
            opened.pop()
    return opened[-1] if opened else None


def _refuse(source: _Source, code: str, message: str, at: int, caffe: str | None, findings: list[Finding]) -> NoReturn:
    where = source.position(at)
    said = {} if caffe is None else {"caffe": caffe}
    raise PrototxtError(f"{message}\n{source.caret(where)}", code=code, where=where, findings=findings, **said)


def parse(text: str | bytes, message: type[Message] | None = None, name: str = "<text>") -> Document:
    """Reads a message (default: NetParameter) from protobuf's text format.

    Bytes are UTF-8 or, if they are not, Latin-1. `name` is what positions call the text. Findings of severity "error" are
    what Caffe would refuse the file for, and their `values["caffe"]` is how.

    Raises PrototxtError where the text is not the format: codes `syntax-error`, `unclosed`, `too-deep`, `not-text`. Its
    values hold the findings made up to there, and the words of Caffe's parser where it has any.
    """
    if message is None:
        from caffe_proto import caffe_pb2

        message = caffe_pb2.NetParameter
    source = _Source(text, name)
    data = source.data
    if (nul := data.find(b"\0")) >= 0:
        wide = text[:2] in (b"\xff\xfe", b"\xfe\xff", "\ufeff\0") if isinstance(text, bytes) else False
        what = "the text is UTF-16; save it as UTF-8" if wide else "a NUL byte: this is not a text file"
        _refuse(source, "not-text", what, nul, source.caffe(nul, "Invalid control characters encountered in text."), [])
    reader = _Reader(source)
    if source.has_mark:
        words = "Interpreting non ascii codepoint 239."
        reader._find("byte-order-mark", "the text begins with a byte order mark", 0, words, remedy="save it without")
    if source.not_utf8 is not None:
        said = "the text is not UTF-8; it was read as Latin-1"
        reader._find("not-utf-8", said, source.not_utf8, severity="warning", remedy="save it as UTF-8")
    wire = reader.read(_table(message.DESCRIPTOR))
    result = message()
    result.ParseFromString(wire)
    document = Document(result, name, reader.findings, reader.unknown, source, reader.dropped)
    _name_layers(document, reader.owners)
    if reader.more:
        said = f"{reader.more} more findings are not listed"
        document.findings.append(Finding("too-many-findings", said, "note", document.findings[-1].where))
    if not result.IsInitialized():
        _find_missing(document)
    return document


def _name_layers(document: Document, owners: list[tuple[str, int | None] | None]) -> None:
    """Says of every finding in which layer it is, where the outermost message around it has a name."""
    for finding, owner in zip(document.findings, owners, strict=True):
        if owner is None:
            continue
        layer = getattr(document.message, owner[0])
        if owner[1] is not None:
            layer = layer[owner[1]]
        fields = layer.DESCRIPTOR.fields_by_name
        if "name" in fields and fields["name"].type == _STRING_TYPE and layer.HasField("name"):
            finding.layer = layer.name
            if "type" in fields and fields["type"].type in (_STRING_TYPE, _ENUM) and layer.HasField("type"):
                kind = layer.type
                finding.layer_type = kind if isinstance(kind, str) else fields["type"].enum_type.values_by_number[kind].name


def _find_missing(document: Document) -> None:
    """Required fields that are not set. C++ lists them all, without a place, after it has read the rest."""
    message: Any = document.message
    missing = message.FindInitializationErrors()
    words = "Message missing required fields: " + ", ".join(missing[:MOST_FINDINGS])
    for path in missing[:MOST_FINDINGS]:
        steps = [int(step) if step.isdigit() else step for step in re.findall(r"\w+", path)]
        values = {"field": steps[-1], "caffe": words}
        said = f"required field '{path}' is missing"
        document.findings.append(Finding("missing-field", said, "error", document.position(steps[:-1]), values=values))
