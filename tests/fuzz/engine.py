"""Mutate, read, judge: a result or one InspectorError, soon, and in little memory."""

from __future__ import annotations

import random
import re
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import text_format

from inspector import prototxt
from inspector.errors import InspectorError
from inspector.layers import registry

SLOW = 3.0  # seconds of computing that no file of some kilobytes may take
HUNGRY = 400 << 20  # bytes more than before

# what breaks readers of the wire format: ends of varints, groups, overlong tags, huge and negative numbers, zeros
NASTY_BYTES = (
    b"\x00", b"\x00" * 16, b"\xff", b"\x80" * 11, b"\xff" * 9 + b"\x01", b"\xff\xff\xff\xff\x07", b"\xff\xff\xff\xff\x0f",
    b"\x0b\x0c", b"\x2d\x00\x00\x80\x7f", b"\x2a\x00", b"\x3a\x00",
    b"\x3a\x0b\x0a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\xa2\x06\x00",
    b"\x12\x00", b"\x0a\x80\x80\x80\x80\x10", b"\x41", b"\x62\x08",
)  # fmt: skip
# what breaks readers of text and the arithmetic behind them
NASTY_WORDS = (
    b"0", b"1", b"2", b"3", b"-1", b"-2", b"7", b"32", b"33", b"2147483647", b"-2147483648", b"4294967295", b"9223372036854775807",
    b"1e38", b"1e999", b"-0.0", b"0.5", b"nan", b"inf", b"-inf", b'""', b"'a'", b'"\\x00"', b'"\\377"', b"true", b"false",
    b"{", b"}", b"{}", b"<", b">", b"[", b"]", b"[1, 2]", b":", b",", b";", b"#", b"\n", b"TRAIN", b"TEST", b"MAX", b"AVE",
    b'"data"', b'"label"', b"\xef\xbb\xbf", b"\xff", b"\x00", b"0x10", b"010", b"1.5f",
)  # fmt: skip
_TOKEN = re.compile(rb'"[^"\n]*"|[A-Za-z_]\w*:?|-?[0-9.]+|\s+|.', re.DOTALL)


@dataclass(frozen=True)
class Reader:
    """What is fuzzed: `read` takes bytes and does everything that a person could ask of the file. `words` go into texts."""

    read: Callable[[bytes], None]
    seeds: Sequence[bytes]
    text: bool = False
    message: Any = None  # of the text: then values, names and layers are changed too, and the text stays one
    words: Sequence[bytes] = ()


@dataclass
class Tally:
    runs: int = 0
    refused: int = 0
    slowest: float = 0.0
    nameless: list[bytes] = field(default_factory=list)


class Broken(AssertionError):
    """An input after which something else than an answer or an InspectorError came."""

    def __init__(self, content: bytes, where: str, runs: int) -> None:
        super().__init__(f"{where}: {content!r}")
        self.content, self.where, self.runs = content, where, runs


def fuzz(reader: Reader, *, seconds: float, seed: int, runs: int = sys.maxsize) -> Tally:
    """Read mutations until the time or the number of runs is over. Raises Broken."""
    rng = random.Random(seed)
    tally = Tally()
    end = time.monotonic() + seconds
    while time.monotonic() < end and tally.runs < runs:
        content = rng.choice(reader.seeds)
        content = mutated(rng, content, reader)
        tally.runs += 1
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.process_time()
        where, refused = judged(reader, content)
        took = time.process_time() - start
        tally.refused += refused
        tally.slowest = max(tally.slowest, took)
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) * 1024
        if not where and took > SLOW:
            where = f"took {took:.1f} s"
        if not where and more > HUNGRY:
            where = f"took {more >> 20} MiB"
        if where:
            raise Broken(content, where, tally.runs)
    return tally


def judged(reader: Reader, content: bytes) -> tuple[str, bool]:
    """Where it broke, as the last lines of a traceback ("" if it did not), and whether it was refused properly."""
    try:
        reader.read(content)
    except InspectorError as error:
        str(error)
        return "", True
    except RecursionError:
        return "RecursionError", False
    except Exception as error:  # noqa: BLE001  # that is what we are looking for
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:200]} at {last.filename}:{last.lineno}", False
    return "", False


def smaller(reader: Reader, broken: Broken) -> bytes:
    """The input without what it does not need to break in the same place."""
    content, place = broken.content, broken.where.rpartition(" at ")[2]
    if broken.where.startswith("took"):
        return content
    size = max(1, len(content) // 2)
    while size:
        at = 0
        while at < len(content):
            shorter = content[:at] + content[at + size :]
            if judged(reader, shorter)[0].rpartition(" at ")[2] == place:
                content = shorter
            else:
                at += size
        size //= 2
    return content


def mutated(rng: random.Random, content: bytes, reader: Reader) -> bytes:
    """Changed in one of the ways that the reader may be fuzzed."""
    if reader.message is not None and rng.random() < 0.75:
        content = mutated_message(rng, content, reader)
        if rng.random() < 0.8:
            return content
    if reader.text and rng.random() < 0.8:
        return mutated_text(rng, content, reader)
    return mutated_bytes(rng, content)


def mutated_bytes(rng: random.Random, content: bytes) -> bytes:
    """Some bytes changed, removed, repeated, inserted or cut off."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        nasty = rng.choice(NASTY_BYTES)
        match rng.randrange(7):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                del data[at : at + rng.randrange(1, 20)]
            case 3:
                data[at:at] = nasty
            case 4:
                data[at : at + len(nasty)] = nasty
            case 5:
                other = rng.randrange(len(data) + 1)
                data[at:at] = data[other : other + rng.randrange(40)]
            case 6:
                del data[at:]
    return bytes(data)


def mutated_text(rng: random.Random, content: bytes, reader: Reader) -> bytes:
    """Some tokens changed for others, removed, repeated or moved, or pieces of two texts joined."""
    tokens: list[Any] = _TOKEN.findall(content)
    for _ in range(rng.choice((1, 1, 2, 3, 5, 12))):
        if not tokens:
            break
        at, length = rng.randrange(len(tokens)), rng.choice((1, 1, 2, 3, 10, 40))
        match rng.randrange(8):
            case 0 | 1:
                tokens[at] = rng.choice(NASTY_WORDS)
            case 2 if reader.words:
                tokens[at] = rng.choice(reader.words)
            case 3:
                tokens[at] = rng.choice(tokens)
            case 4:
                del tokens[at : at + length]
            case 5:
                to = rng.randrange(len(tokens))
                tokens[to:to] = tokens[at : at + length]
            case 6:
                numbers = [i for i, token in enumerate(tokens) if token[:1].isdigit()]
                if numbers:
                    tokens[rng.choice(numbers)] = rng.choice(NASTY_WORDS[:20])
            case 7:
                other: list[Any] = _TOKEN.findall(rng.choice(reader.seeds))
                tokens = tokens[:at] + other[rng.randrange(len(other) + 1) :]
    return b"".join(tokens)


NUMBERS = (
    0,
    1,
    2,
    3,
    5,
    31,
    33,
    -1,
    -2,
    2**31 - 1,
    -(2**31),
    2**32 - 1,
    2**40,
    2**63 - 1,
    0.5,
    -0.5,
    1e30,
    float("inf"),
    float("nan"),
)


def mutated_message(rng: random.Random, content: bytes, reader: Reader) -> bytes:
    """Values, names and layers of the message changed, and joined with layers of others."""
    try:
        message: Any = prototxt.parse(content, reader.message).message
        if rng.random() < 0.3:
            message.MergeFrom(prototxt.parse(rng.choice(reader.seeds), reader.message).message)
    except InspectorError:  # some seeds are no text format
        return content
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        places = list(_places(message))
        names = [value for _, field, value in places if isinstance(value, str)]
        if not places:
            break
        inside, field, value = rng.choice(places)
        if not hasattr(value, "append"):
            _set(inside, field, _other(rng, field, value, names))
        elif rng.random() < 0.4:
            items = list(value)
            rng.shuffle(items)
            del value[:]
            value.extend(items[: rng.randrange(len(items) + 1)])
        elif rng.random() < 0.4:
            value.extend(list(value)[: rng.randrange(40)])
        elif field.message_type is None:
            items = [*value, _other(rng, field, value[0], names)]
            try:
                value.append(items[-1])
            except (TypeError, ValueError):
                continue
            rng.shuffle(items)
            del value[:]
            value.extend(items)
        else:
            inside = rng.choice(list(value))
            field = rng.choice(inside.DESCRIPTOR.fields)
            if field.message_type is None and not hasattr(getattr(inside, field.name), "append"):
                _set(inside, field, _other(rng, field, getattr(inside, field.name), names))
    return text_format.MessageToBytes(message)


def _places(message: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Every field that is set, with the message that it is in; messages that are not repeated give only what is in them."""
    for one, value in message.ListFields():
        many = hasattr(value, "append")
        if one.message_type is None or many:
            yield message, one, value
        if one.message_type is not None:
            for inner in value if many else [value]:
                yield from _places(inner)


def _other(rng: random.Random, field: Any, value: Any, names: list[str]) -> Any:
    """Another value for a field, which may be more than its type holds."""
    if field.enum_type is not None:
        return rng.choice(field.enum_type.values).number
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        types = list(registry)
        return rng.choice(names if rng.random() < 0.7 and names else types)
    number = rng.choice(NUMBERS)
    return number if isinstance(value, float) else int(number) if number == number and abs(number) < 2**64 else 0


def _set(message: Any, field: Any, value: Any) -> None:
    try:
        setattr(message, field.name, value)
    except (TypeError, ValueError):
        message.ClearField(field.name)
