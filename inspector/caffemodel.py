"""Binary files of Caffe: weights, mean images and solver states, read without copying, written without building them in memory.

Protobuf's wire format is walked here, tag by tag, over a memory map. Structure becomes a message; values are only found, and read
from the file, aligned, when somebody asks for them: a misaligned view would make a matrix product many times slower. So opening a
file takes milliseconds and next to no memory, whatever its size. HDF5 forms of the same files answer through the same classes.

Everything is untrusted: each length is held against the end of what contains it, and what no net has (a million layers, gigabytes
of settings) is refused, so that time and memory stay within a small multiple of the file.

Rules: Blob::FromProto and ShapeEquals in blob.cpp (shapes old and new), upgrade_proto.cpp (generations), Net::ToHDF5 and
sgd_solver.cpp (HDF5 layout), util/hdf5.cpp; https://protobuf.dev/programming-guides/encoding for the wire format.
"""

from __future__ import annotations

import math
import mmap
import os
import re
import stat
import sys
import weakref
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from caffe_proto import caffe_pb2

from . import foreign
from .errors import InspectorError, MissingExtra, UnreadableError
from .files import replacing, trouble
from .lazy import np
from .upgrade import V0_NAMES, V1_NAMES

if TYPE_CHECKING:
    import h5py

Shape = tuple[int, ...]
FilePath = str | os.PathLike[str]

MAX_AXES = 32
INT_MAX = 2**31 - 1
# Far above any net that was ever trained, and low enough that a hostile file ends in an error within a second or two
MAX_FIELDS = 500_000
MAX_LAYERS = 50_000
MAX_BLOBS = 100_000
MAX_STRUCTURE = 8 << 20  # bytes of everything that is not values

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_WIRE = {VARINT: "a varint", FIXED64: "8 bytes", LENGTH: "a length", FIXED32: "4 bytes"}

# ---------------------------------------------------------------------------------------------------------------- what was stored


def aligned(shape: Shape) -> np.ndarray:
    """An uninitialised float32 array that begins on a 64-byte boundary, as BLAS and vector units like it."""
    count = math.prod(shape)
    raw = np.empty(4 * count + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + 4 * count].view(np.float32).reshape(shape)


@dataclass(eq=False, slots=True)
class StoredBlob:
    """One array in a file: its shape is known, its values are read when they are asked for.

    `values` is how many there are, which should equal `count`, what the shape asks for. `legacy`: the shape was given as num,
    channels, height and width. `dtype` is that of the file; `read` always gives float32.
    """

    name: str  # for messages: "blob 0 of layer 'conv1'"
    index: int  # position among the layer's blobs; in HDF5 the name of the dataset
    shape: Shape
    legacy: bool = False
    values: int = 0
    dtype: str = "float32"
    has_diff: bool = False

    @property
    def count(self) -> int:
        """Elements that the shape asks for."""
        return math.prod(self.shape)

    def fits(self, shape: Shape) -> bool:
        """Whether Caffe takes this blob for a parameter of `shape`: a legacy one without ones in front (Blob::ShapeEquals)."""
        if not self.legacy:
            return self.shape == shape
        return len(shape) <= 4 and self.shape == (1,) * (4 - len(shape)) + shape

    def read(self, out: np.ndarray | None = None) -> np.ndarray:
        """The values as a float32 array of `shape`, 64-byte aligned; into `out` (float32, contiguous, `count` elements) if given.

        Raises UnreadableError if the file holds more or fewer values than the shape asks for, or became shorter meanwhile.
        """
        return self._read(self.values, out, diff=False)

    def diff(self) -> np.ndarray | None:
        """The gradient stored beside the values (snapshot_diff), as float32; None where there is none."""
        return self._read(None, None, diff=True) if self.has_diff else None

    def _read(self, values: int | None, out: np.ndarray | None, *, diff: bool) -> np.ndarray:
        if values is not None and values != self.count:
            raise UnreadableError(
                f"{self.name} holds {values} values, and its shape {_text(self.shape)} asks for {self.count}",
                code="value-count",
                remedy="the file is damaged, or what wrote it is; write it again",
                values=values,
                count=self.count,
            )
        if out is None:
            out = aligned(self.shape)
        elif out.dtype != np.float32 or not out.flags.c_contiguous or out.size != self.count:
            raise ValueError(f"out must be a contiguous float32 array of {self.count} elements, not {out.dtype} {out.shape}")
        self._fill(out.reshape(-1), diff=diff)
        return out

    def _fill(self, out: np.ndarray, *, diff: bool) -> None:
        """Put values or gradient into the flat array `out`."""
        raise NotImplementedError

    def blocks(self, size: int = 1 << 20) -> Iterator[np.ndarray]:
        """The values in order, as flat float32 arrays of at most about `size` values: for looking at files larger than memory."""
        raise NotImplementedError


@dataclass(eq=False, slots=True)
class StoredLayer:
    """One layer of a file. `type` is today's name; a V1 number or V0 word that Caffe does not know stays as it is."""

    name: str = ""
    type: str = ""
    generation: str = "V2"  # "V0" | "V1" | "V2" | "HDF5"
    blobs: list[StoredBlob] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class StoredModel:
    """A file of weights. `proto` is its NetParameter without values: settings, wiring, the blobs' shapes (HDF5 has names only)."""

    path: str
    proto: Any
    layers: list[StoredLayer]

    @property
    def count(self) -> int:
        """Values of all blobs together."""
        return sum(blob.values for layer in self.layers for blob in layer.blobs)


@dataclass(eq=False, slots=True)
class StoredState:
    """What `caffe train -snapshot` goes on from. `history` are the update rule's arrays, parameter by parameter."""

    path: str
    iter: int = 0
    learned_net: str = ""
    current_step: int = 0
    history: list[StoredBlob] = field(default_factory=list)


def open_weights(path: FilePath) -> StoredModel:
    """A file of weights, protobuf or HDF5, told apart by content. Raises UnreadableError; MissingExtra for HDF5 without h5py."""
    return _open_hdf5_model(path) if _is_hdf5(path) else open_model(path)


def open_model(path: FilePath) -> StoredModel:
    """A binary NetParameter of any generation. Raises UnreadableError, with the byte offset, if it is damaged or something else."""
    with _File(path) as file, file.map() as data:
        wire = _Wire(file, data)
        _refuse_others(wire, "weights")
        model = StoredModel(file.path, None, [])
        structure = wire.net(model.layers)
        if not model.layers:
            wire.fail(0, "expected the layers of a net, and there is none; it is no file of weights")
        model.proto = wire.message(caffe_pb2.NetParameter, structure, len(data))
        return model


def open_state(path: FilePath) -> StoredState:
    """A solver state, protobuf or HDF5. Raises UnreadableError; MissingExtra for HDF5 without h5py."""
    if _is_hdf5(path):
        return _open_hdf5_state(path)
    with _File(path) as file, file.map() as data:
        wire = _Wire(file, data)
        _refuse_others(wire, "a solver state")
        return wire.state(StoredState(file.path))


def open_blob(path: FilePath) -> StoredBlob:
    """A file that is one BlobProto, such as mean.binaryproto or an infogain matrix. Raises UnreadableError."""
    with _File(path) as file, file.map() as data:
        wire = _Wire(file, data)
        _refuse_others(wire, "a BlobProto (a mean file)")
        return wire.blob(0, len(data), 0, f"'{file.path}'", bytearray(), strict=True)


def read_blob(path: FilePath) -> np.ndarray:
    """The values of a BlobProto file as float32 of its shape; a mean image is 1 x channels x height x width."""
    return open_blob(path).read()


def _text(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def _refuse_others(wire: _Wire, wanted: str) -> None:
    """Say what the file is, if it is none of Caffe's binaries."""
    head = bytes(wire.data[: foreign.HEAD])
    verdict = foreign.recognise(head, len(wire.data))
    if verdict is None and not re.search(rb"[\x00-\x08\x0e-\x1f\x7f]", head) and re.match(rb"\s*(?:#|[a-z_]+\s*[:{])", head):
        verdict = f"this is text, as a prototxt is, and not {wanted}; give it as the model"
    if verdict:
        raise UnreadableError(f"'{wire.file.path}': {verdict}", code="foreign-file", file=wire.file.path)


# ---------------------------------------------------------------------------------------------------------------- protobuf, reading


class _File:
    """A regular file, open for as long as any blob refers to it, read at any offset from any thread.

    The descriptor stays with the file that was opened: a new snapshot that takes its name does not mix with it.
    """

    def __init__(self, path: FilePath) -> None:
        self.path = os.fspath(path)
        try:
            # a pipe without a writer must not block
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise trouble(self.path, error) from None
        except ValueError as error:  # a NUL in the name
            raise UnreadableError(f"cannot read {self.path!r}: {error}", code="file") from None
        self._close = weakref.finalize(self, os.close, self._descriptor)
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            self._close()
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
            remedy = "name a file in it" if stat.S_ISDIR(status.st_mode) else "copy its content to a file"
            raise UnreadableError(f"'{self.path}' is {kind}, not a file", code="file", remedy=remedy)
        self.size = status.st_size

    def __enter__(self) -> _File:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._close()

    @contextmanager
    def map(self) -> Iterator[mmap.mmap | bytes]:
        """The whole file as bytes that are fetched when touched."""
        if self.size == 0:  # cannot be mapped
            yield b""
            return
        try:
            data = mmap.mmap(self._descriptor, self.size, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise UnreadableError(f"cannot read '{self.path}': {error}", code="file") from None
        with data:
            yield data

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill `view`, which is bytes, from `offset` on."""
        done = 0
        while done < len(view):
            try:
                got = os.preadv(self._descriptor, [view[done:]], offset + done)
            except OSError as error:
                raise trouble(self.path, error) from None
            if not got:
                raise UnreadableError(f"'{self.path}' became shorter while it was in use", code="truncated-file")
            done += got


class _Pieces:
    """Where the values of a blob lie: (offset, length, packed) in the file's order. Unpacked values have a tag byte before each."""

    __slots__ = ("_flat", "dtype", "values")

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.values = 0
        self._flat = array("q")  # a hostile file has a million pieces

    def add(self, offset: int, length: int, *, packed: bool = True) -> None:
        if length:
            size = int(self.dtype[2:])
            self.values += length // (size if packed else size + 1)
            self._flat.extend((offset, length, packed))

    def __iter__(self) -> Iterator[tuple[int, int, bool]]:
        flat = self._flat
        return ((flat[i], flat[i + 1], bool(flat[i + 2])) for i in range(0, len(flat), 3))


_BLOCK = 1 << 18  # bytes converted at a time, where values cannot be read in place


@dataclass(eq=False, slots=True)
class _WireBlob(StoredBlob):
    file: _File | None = None
    data_pieces: _Pieces | None = None
    diff_pieces: _Pieces | None = None

    @property
    def pieces(self) -> list[tuple[int, int, bool]]:
        """(offset, length, packed) of the values in the file."""
        return list(self.data_pieces or ())

    def _fill(self, out: np.ndarray, *, diff: bool) -> None:
        pieces = self.diff_pieces if diff else self.data_pieces
        if pieces is None or self.file is None:
            return
        at = 0
        for offset, length, packed in pieces:
            if packed and pieces.dtype == "<f4":
                part = out[at : at + length // 4]
                self.file.read_into(part.view(np.uint8).data, offset)
                if sys.byteorder == "big":
                    part.byteswap(inplace=True)
                at += len(part)
                continue
            for values in self._converted(pieces.dtype, offset, length, packed, _BLOCK):
                with np.errstate(all="ignore"):  # a double beyond float32 becomes infinite, as in Caffe
                    out[at : at + len(values)] = values
                at += len(values)

    def _converted(self, dtype: str, offset: int, length: int, packed: bool, size: int) -> Iterator[np.ndarray]:
        """One piece in parts of about `size` bytes, in the file's own type; a part is valid until the next."""
        record = np.dtype(dtype if packed else [("tag", "u1"), ("value", dtype)])
        block = bytearray(min(length, size // record.itemsize * record.itemsize))
        for start in range(0, length, len(block)):
            view = memoryview(block)[: length - start]
            self.file.read_into(view, offset + start)  # type: ignore[union-attr]  # a blob with pieces has a file
            values = np.frombuffer(view, record)
            yield values if packed else values["value"]

    def blocks(self, size: int = 1 << 20) -> Iterator[np.ndarray]:
        for offset, length, packed in self.data_pieces or ():
            for values in self._converted(self.data_pieces.dtype, offset, length, packed, 4 * size):  # type: ignore[union-attr]
                with np.errstate(all="ignore"):
                    yield np.asarray(values, np.float32)


@dataclass(frozen=True, slots=True)
class _Generation:
    """Field numbers of a layer message."""

    label: str
    name: int
    type: int
    blobs: int
    wiring: tuple[int, ...] = ()  # bottom and top
    inner: int = 0  # a layer of the generation before, inside


_V0 = _Generation("V0", name=1, type=2, blobs=50)
_V1 = _Generation("V1", name=4, type=5, blobs=6, wiring=(2, 3), inner=1)
_V2 = _Generation("V2", name=1, type=2, blobs=7, wiring=(3, 4))
_LAYERS = {2: _V1, 100: _V2}  # NetParameter's fields `layers` and `layer`

_LEGACY = {1: "num", 2: "channels", 3: "height", 4: "width"}
_VALUES = {5: ("data", "<f4"), 6: ("diff", "<f4"), 8: ("double_data", "<f8"), 9: ("double_diff", "<f8")}
_RAW = {12: 10, 13: 11}  # NVIDIA's raw_data and raw_diff, and the fields that tell their dtype
_RAW_TYPES = {0: "<f8", 1: "<f4", 2: "<f2"}
_DTYPES = {"<f2": "float16", "<f4": "float32", "<f8": "float64"}

# a run of values with a tag before each, found at the speed of C; possessive, so that nothing is kept for backtracking
_UNPACKED = {
    5: re.compile(rb"(?s:\x2d.{4})++"),
    6: re.compile(rb"(?s:\x35.{4})++"),
    8: re.compile(rb"(?s:\x41.{8})++"),
    9: re.compile(rb"(?s:\x49.{8})++"),
}


class _Wire:
    """A walk over protobuf's wire format. What stays of the structure is collected, encoded again without values."""

    def __init__(self, file: _File, data: mmap.mmap | bytes) -> None:
        self.file = file
        self.data = data
        self.fields = 0
        self.blobs = 0

    def fail(self, offset: int, message: str, *, code: str = "corrupt-file", remedy: str = "") -> NoReturn:
        path = self.file.path
        raise UnreadableError(f"'{path}': byte {offset}: {message}", code=code, remedy=remedy, file=path, offset=offset)

    def cut(self, offset: int, needed: str, end: int) -> NoReturn:
        """`needed` reaches past `end`: the file was cut off, or a length in it is wrong."""
        if end == len(self.data):
            self.fail(offset, f"expected {needed}, and the file ends at byte {end}", code="truncated-file", remedy="fetch it again")
        self.fail(offset, f"expected {needed}, and what holds it ends at byte {end}", remedy="fetch it again")

    # ---- the format

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """A number and the offset behind it."""
        data = self.data
        value = shift = 0
        while shift < 70:
            if at >= end:
                self.cut(at, "a varint", end)
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        else:
            self.fail(at - 10, "expected a varint, which has at most 10 bytes")
        return value & 0xFFFF_FFFF_FFFF_FFFF, at

    def field(self, at: int, end: int) -> tuple[int, int, int, int]:
        """The field at an offset: number, wire type, and where its value begins and ends."""
        data = self.data
        tag, value = (data[at], at + 1) if data[at] < 0x80 else self.varint(at, end)
        number, kind = tag >> 3, tag & 7
        if number == 0 or number >= 1 << 29:
            zeros = number == 0 and not any(data[at : min(at + 64, end)])
            what = "zeros follow; the file was never written completely" if zeros else f"there is field number {number}"
            self.fail(at, f"expected a field, and {what}", remedy="fetch it again")
        self.fields += 1
        if self.fields > MAX_FIELDS:
            self.fail(at, f"more than {MAX_FIELDS} fields beside the values, which no net has")
        if kind == LENGTH:
            length, value = self.varint(value, end)
            stop = value + length
        elif kind == VARINT:
            stop = self.varint(value, end)[1]
        elif kind == FIXED32:
            stop = value + 4
        elif kind == FIXED64:
            stop = value + 8
        else:
            what = "a group (wire type 3 or 4), which Caffe's messages have not" if kind in (3, 4) else f"wire type {kind}"
            self.fail(at, f"expected a field, and there is {what}")
        if stop > end:
            self.cut(at, f"{stop - value} bytes for field {number}", end)
        return number, kind, value, stop

    def expect(self, at: int, kind: int, wanted: int, what: str) -> None:
        if kind != wanted:
            self.fail(at, f"expected {what} as {_WIRE[wanted]} (wire type {wanted}), and it has wire type {kind}")

    def signed(self, at: int, bits: int) -> int:
        """A varint that was checked before, as a two's complement number."""
        value = self.varint(at, len(self.data))[0] & ((1 << bits) - 1)
        return value - (1 << bits) if value >> (bits - 1) else value

    def text(self, at: int, stop: int) -> str:
        if stop - at > MAX_STRUCTURE:
            self.fail(at, f"expected a name, and it has {stop - at} bytes")
        return bytes(self.data[at:stop]).decode("utf-8", "backslashreplace")  # Caffe takes any bytes for a name

    # ---- Caffe's messages

    def net(self, layers: list[StoredLayer]) -> bytearray:
        """All layers of the NetParameter that the file is, and its encoding without values."""
        out = bytearray()
        at, end = 0, len(self.data)
        while at < end:
            number, kind, value, stop = self.field(at, end)
            generation = _LAYERS.get(number)
            if generation is not None:
                self.expect(at, kind, LENGTH, "a layer")
                if len(layers) == MAX_LAYERS:
                    self.fail(at, f"more than {MAX_LAYERS} layers, which no net has")
                layer, inner = StoredLayer(generation=generation.label), bytearray()
                layers.append(self.layer(value, stop, generation, layer, inner))
                self.nest(out, number, inner, at)
            elif number == 1 and kind == VARINT and at == 0:  # num of a BlobProto, iter of a SolverState
                self.fail(at, "expected the layers of a net, and this looks like a mean file or a solver's state")
            elif number in (1, 3):
                self.expect(at, kind, LENGTH, "the net's name" if number == 1 else "an input's name")
                self.nest(out, number, self.text(value, stop).encode(), at)
            else:
                self.keep(out, at, stop)
            at = stop
        return out

    def layer(self, at: int, end: int, generation: _Generation, layer: StoredLayer, out: bytearray) -> StoredLayer:
        """One layer message into `layer` and `out`; the layer that counts, which for V0 is the one inside."""
        inside: StoredLayer | None = None
        while at < end:
            number, kind, value, stop = self.field(at, end)
            if number == generation.blobs:
                self.expect(at, kind, LENGTH, "a blob")
                nested = bytearray()
                who = f"blob {len(layer.blobs)} of layer '{layer.name}'"
                layer.blobs.append(self.blob(value, stop, len(layer.blobs), who, nested))
                self.nest(out, number, nested, at)
            elif number == generation.inner:
                self.expect(at, kind, LENGTH, "a layer")
                inside, nested = inside or StoredLayer(generation=_V0.label), bytearray()
                self.layer(value, stop, _V0, inside, nested)
                self.nest(out, number, nested, at)
            elif number == generation.type and generation is _V1:
                self.expect(at, kind, VARINT, "a layer's type")
                layer.type = _v1_type(self.signed(value, 32))
                self.keep(out, at, stop)
            elif number in (generation.name, generation.type, *generation.wiring):
                self.expect(at, kind, LENGTH, "a name")
                text = self.text(value, stop)
                if number == generation.name:
                    layer.name = text
                elif number == generation.type:
                    layer.type = V1_NAMES[V0_NAMES[text]] if generation is _V0 and text in V0_NAMES else text
                self.nest(out, number, text.encode(), at)
            else:
                self.keep(out, at, stop)
            at = stop
        for blob in layer.blobs:  # whose layer may tell its name last
            blob.name = f"blob {blob.index} of layer '{layer.name}'"
        return inside or layer

    def blob(self, at: int, end: int, index: int, who: str, out: bytearray, *, strict: bool = False) -> _WireBlob:
        """One BlobProto; its shape goes to `out`. `strict`: it is a file of its own, so an unknown field means a different file."""
        self.blobs += 1
        begin = at
        if self.blobs > MAX_BLOBS:
            self.fail(at, f"more than {MAX_BLOBS} blobs, which no net has")
        dims: list[int] = []
        legacy = [0, 0, 0, 0]
        is_legacy = False
        found: dict[int, _Pieces] = {}
        raw_types: dict[int, str] = {}
        raw: list[tuple[int, int, int]] = []
        while at < end:
            number, kind, value, stop = self.field(at, end)
            if number in _VALUES:
                stop = self.values(at, value, stop, end, number, kind, found)
            elif number == 7:
                self.expect(at, kind, LENGTH, "a blob's shape")
                self.dims(value, stop, dims)
                self.keep(out, at, stop)
            elif number in _LEGACY:
                self.expect(at, kind, VARINT, _LEGACY[number])
                legacy[number - 1] = self.signed(value, 32)
                is_legacy = True
                self.keep(out, at, stop)
            elif number in _RAW.values() and kind == VARINT:
                raw_types[number] = _RAW_TYPES.get(self.signed(value, 32), "")
            elif number in _RAW and kind == LENGTH:
                raw.append((number, value, stop))
            elif strict:
                self.fail(at, f"expected a field of BlobProto, and there is field number {number}")
            at = stop
        for number, value, stop in raw:
            self.raw(number, value, stop, raw_types.get(_RAW[number], ""), found)
        shape = tuple(legacy if is_legacy else dims)
        self.check_shape(begin, shape)
        data = found.get(8) or found.get(5) or found.get(12)  # double_data goes first
        diff = found.get(9) or found.get(6) or found.get(13)
        if diff is not None and diff.values != math.prod(shape):
            self.fail(begin, f"expected {math.prod(shape)} values of diff for shape {_text(shape)}, and there are {diff.values}")
        dtype = _DTYPES[data.dtype] if data else "float32"
        values = data.values if data else 0
        return _WireBlob(who, index, shape, is_legacy, values, dtype, diff is not None, self.file, data, diff)

    def values(self, at: int, value: int, stop: int, end: int, number: int, kind: int, found: dict[int, _Pieces]) -> int:
        """Note a piece of a blob's values: packed, or a run of single ones. The offset behind it."""
        name, dtype = _VALUES[number]
        size = int(dtype[2:])
        pieces = found.get(number)
        if pieces is None:
            pieces = _Pieces(dtype)
        if kind == LENGTH:
            if (stop - value) % size:
                self.fail(at, f"expected whole {name} values of {size} bytes, and there are {stop - value} bytes")
            pieces.add(value, stop - value)
        else:
            self.expect(at, kind, FIXED32 if size == 4 else FIXED64, name)
            run = _UNPACKED[number].match(self.data, at, end)
            if run:
                stop = run.end()
                pieces.add(at, stop - at, packed=False)
            else:  # a tag of more bytes than it needs
                pieces.add(value, size)
        if pieces.values:
            found[number] = pieces
        return stop

    def raw(self, number: int, value: int, stop: int, dtype: str, found: dict[int, _Pieces]) -> None:
        """NVIDIA's raw bytes: the last of them counts, as for every field that is not repeated."""
        if not dtype or (stop - value) % int(dtype[2:]):
            self.fail(value, f"expected raw values of float, double or half, and there are {stop - value} bytes of another type")
        found[number] = _Pieces(dtype)
        found[number].add(value, stop - value)

    def dims(self, at: int, end: int, dims: list[int]) -> None:
        """A BlobShape: sizes, packed or one by one."""
        while at < end:
            number, kind, value, stop = self.field(at, end)
            if number != 1:
                self.fail(at, f"expected a size, and there is field number {number}")
            start = at
            if kind == VARINT:
                dims.append(self.signed(value, 64))
            else:
                self.expect(at, kind, LENGTH, "sizes")
                while value < stop and len(dims) <= MAX_AXES:
                    dims.append(self.signed(value, 64))
                    value = self.varint(value, stop)[1]
            if len(dims) > MAX_AXES:
                self.fail(start, f"expected a shape of at most {MAX_AXES} axes, and there are more")
            at = stop

    def check_shape(self, at: int, shape: Shape) -> None:
        """What Blob::Reshape checks: no negative size, fewer than 2^31 elements."""
        total = 1
        for size in shape:
            if size < 0:
                self.fail(at, f"expected sizes of 0 or more, and the blob's shape is {_text(shape)}", code="negative-size")
            if total and size > INT_MAX // total:
                self.fail(at, f"expected at most {INT_MAX} elements, and the blob's shape is {_text(shape)}", code="blob-too-large")
            total *= size

    def state(self, state: StoredState) -> StoredState:
        """The SolverState that the file is."""
        at, end = 0, len(self.data)
        while at < end:
            number, kind, value, stop = self.field(at, end)
            if number == 1:
                self.expect(at, kind, VARINT, "iter")
                state.iter = self.signed(value, 32)
            elif number == 2:
                self.expect(at, kind, LENGTH, "learned_net")
                state.learned_net = self.text(value, stop)
            elif number == 3:
                self.expect(at, kind, LENGTH, "a blob of the history")
                index = len(state.history)
                state.history.append(self.blob(value, stop, index, f"history blob {index}", bytearray()))
            elif number == 4:
                self.expect(at, kind, VARINT, "current_step")
                state.current_step = self.signed(value, 32)
            else:
                self.fail(at, f"expected a field of SolverState, and there is field number {number}")
            at = stop
        return state

    # ---- what stays

    def keep(self, out: bytearray, at: int, stop: int) -> None:
        """Take a field over as it is."""
        if len(out) + stop - at > MAX_STRUCTURE:
            self.fail(at, f"more than {MAX_STRUCTURE >> 20} MiB beside the values, which no net has")
        out += self.data[at:stop]

    def nest(self, out: bytearray, number: int, content: bytes | bytearray, at: int) -> None:
        """Take over a field whose content was encoded anew."""
        if len(out) + len(content) > MAX_STRUCTURE:
            self.fail(at, f"more than {MAX_STRUCTURE >> 20} MiB beside the values, which no net has")
        out += _tagged(number, len(content))
        out += content

    def message(self, kind: Any, structure: bytearray, end: int) -> Any:
        """Decode the structure; where protobuf refuses, find out where in the file."""
        from google.protobuf.message import DecodeError

        try:
            return kind.FromString(bytes(structure))
        except DecodeError:
            self.diagnose(0, end, kind.DESCRIPTOR, 0)
            self.fail(0, f"expected a {kind.DESCRIPTOR.name}, and protobuf cannot decode its settings")

    def diagnose(self, at: int, end: int, descriptor: Any, depth: int) -> None:
        """Walk a message with all that is in it, by the schema, down to the field that protobuf refused."""
        if depth > 100:
            self.fail(at, "messages nested more than 100 deep")
        while at < end:
            number, kind, value, stop = self.field(at, end)
            known = descriptor.fields_by_number.get(number)
            if known is not None and kind == LENGTH:
                if known.message_type is not None:
                    self.diagnose(value, stop, known.message_type, depth + 1)
                elif known.cpp_type not in (known.CPPTYPE_STRING, known.CPPTYPE_FLOAT, known.CPPTYPE_DOUBLE):  # packed
                    while value < stop:
                        value = self.varint(value, stop)[1]
            at = stop


def _v1_type(number: int) -> str:
    value = caffe_pb2.V1LayerParameter.LayerType.DESCRIPTOR.values_by_number.get(number)
    return V1_NAMES[value.name] if value else str(number)


# ---------------------------------------------------------------------------------------------------------------- HDF5, reading


def _is_hdf5(path: FilePath) -> bool:
    with _File(path) as file, file.map() as data:
        return data[:8] == foreign.HDF5_SIGNATURE


def h5py_module() -> Any:
    """h5py, imported when it is first needed. Raises MissingExtra where it is not installed."""
    try:
        import h5py
    except ImportError:
        remedy = 'pip install "alexinspect[hdf5]"'
        raise MissingExtra("HDF5 files need h5py", code="missing-extra", remedy=remedy, extra="hdf5") from None
    return h5py


@contextmanager
def hdf5_errors(path: FilePath) -> Iterator[None]:
    """h5py's complaints about a damaged file, which come in many types, as one of ours."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        reason = str(error).strip("'\"") or type(error).__name__
        message = f"'{os.fspath(path)}' is a damaged HDF5 file: {reason[:1].lower() + reason[1:]}"
        raise UnreadableError(message, code="corrupt-file", remedy="fetch it again") from None


@dataclass(eq=False, slots=True)
class _HDF5Blob(StoredBlob):
    path: str = ""
    dataset: Any = None
    diff_dataset: Any = None

    def _fill(self, out: np.ndarray, *, diff: bool) -> None:
        dataset = self.diff_dataset if diff else self.dataset
        if out.size:
            with hdf5_errors(self.path), np.errstate(all="ignore"):
                dataset.read_direct(out.reshape(dataset.shape))

    def blocks(self, size: int = 1 << 20) -> Iterator[np.ndarray]:
        if not self.values:
            return
        rows = max(1, size * self.dataset.shape[0] // self.values) if self.dataset.shape else 1
        for start in range(0, self.dataset.shape[0] if self.dataset.shape else 1, rows):
            with hdf5_errors(self.path), np.errstate(all="ignore"):
                part = self.dataset[start : start + rows] if self.dataset.shape else self.dataset[()]
                block = np.asarray(part, np.float32).reshape(-1)
            yield block


def _member(group: Any, name: str, kind: str, path: str) -> Any:
    """What a group holds under a name, None if nothing. It must be a "Group" or "Dataset", as `kind` says, in this very file."""
    h5py = h5py_module()
    link = group.get(name, getlink=True)
    if link is None:
        return None
    if not isinstance(link, h5py.HardLink):
        raise UnreadableError(f"'{path}': '{group.name}/{name}' is a link to elsewhere, which is not followed", code="corrupt-file")
    found = group[name]
    if not isinstance(found, getattr(h5py, kind)):
        raise UnreadableError(
            f"'{path}': expected a {kind.lower()} at '{group.name.rstrip('/')}/{name}', and there is something else",
            code="corrupt-file",
            remedy="Caffe keeps weights in /data/LAYER/INDEX, and a solver's state in /iter, /current_step and /history/INDEX",
        )
    return found


def _need(group: Any, name: str, kind: str, path: str) -> Any:
    found = _member(group, name, kind, path)
    if found is None:
        raise UnreadableError(
            f"'{path}': expected a {kind.lower()} '{group.name.rstrip('/')}/{name}', and there is none",
            code="corrupt-file",
            remedy="it is an HDF5 file, but not of the kind that Caffe writes here",
        )
    return found


def _numbered(group: Any) -> list[str]:
    """Names of a group that are whole numbers, in numeric order."""
    return sorted((name for name in group if name.isascii() and name.isdecimal() and str(int(name[:9])) == name), key=int)


def numeric_dataset(group: Any, name: str, path: str) -> Any:
    """A data set of numbers that is all in this file, and as large as it says. Raises UnreadableError."""
    dataset = _need(group, name, "Dataset", path)
    where = f"'{path}': dataset '{dataset.name}'"
    if dataset.shape is None or dataset.dtype.kind not in "fiu":
        raise UnreadableError(f"{where}: expected numbers, and there is {dataset.dtype}", code="corrupt-file")
    if dataset.is_virtual or dataset.external:
        raise UnreadableError(f"{where} keeps its values in another file, which is not followed", code="corrupt-file")
    if dataset.size > INT_MAX:
        raise UnreadableError(f"{where}: expected at most {INT_MAX} elements, and there are {dataset.size}", code="blob-too-large")
    # deflate, the strongest filter that is always there, packs at most about 1 : 1032
    if dataset.size * dataset.dtype.itemsize > 1100 * dataset.id.get_storage_size():
        raise UnreadableError(
            f"{where} has the shape {_text(dataset.shape)}, and {dataset.id.get_storage_size()} bytes are stored for it",
            code="value-count",
            remedy="fetch it again",
        )
    return dataset


def _hdf5_blob(group: Any, name: str, who: str, path: str, diffs: Any = None) -> _HDF5Blob:
    dataset = numeric_dataset(group, name, path)
    diff = numeric_dataset(diffs, name, path) if diffs is not None and name in diffs else None
    if diff is not None and diff.shape != dataset.shape:
        raise UnreadableError(f"{who}: values of {_text(dataset.shape)} and diffs of {_text(diff.shape)}", code="corrupt-file")
    shape = tuple(int(size) for size in dataset.shape)
    return _HDF5Blob(who, int(name), shape, False, dataset.size, str(dataset.dtype), diff is not None, path, dataset, diff)


def _open_hdf5_model(path: FilePath) -> StoredModel:
    """Weights as Net::ToHDF5 lays them out: /data/LAYER/INDEX; a parameter that another layer owns is left out."""
    h5py, name = h5py_module(), os.fspath(path)
    with hdf5_errors(name):
        file = h5py.File(name, "r")
        model = StoredModel(name, caffe_pb2.NetParameter(), [])
        data = _need(file, "data", "Group", name)
        diffs = _member(file, "diff", "Group", name)
        if len(data) > MAX_LAYERS:
            raise UnreadableError(f"'{name}': more than {MAX_LAYERS} layers, which no net has", code="corrupt-file")
        for layer_name in data:
            group = _need(data, layer_name, "Group", name)
            layer_diffs = _member(diffs, layer_name, "Group", name) if diffs is not None else None
            layer = StoredLayer(layer_name, "", "HDF5")
            proto = model.proto.layer.add(name=layer_name)
            for index in _numbered(group):
                blob = _hdf5_blob(group, index, f"blob {index} of layer '{layer_name}'", name, layer_diffs)
                layer.blobs.append(blob)
                proto.blobs.add().shape.dim.extend(blob.shape)
            model.layers.append(layer)
        return model


def _open_hdf5_state(path: FilePath) -> StoredState:
    """A solver's state as SGDSolver::SnapshotSolverStateToHDF5 lays it out."""
    h5py, name = h5py_module(), os.fspath(path)
    with hdf5_errors(name):
        file = h5py.File(name, "r")

        def whole(key: str) -> int:
            dataset = numeric_dataset(file, key, name)
            if dataset.size != 1:
                message = f"'{name}': expected one number in '/{key}', and there are {dataset.size}"
                raise UnreadableError(message, code="corrupt-file")
            return int(dataset[()].reshape(()))

        state = StoredState(name, whole("iter"), "", whole("current_step"))
        learned_net = _member(file, "learned_net", "Dataset", name)
        if learned_net is not None:
            text = learned_net[()]
            if not isinstance(text, bytes):
                message = f"'{name}': expected text in '/learned_net', and there is {learned_net.dtype}"
                raise UnreadableError(message, code="corrupt-file")
            state.learned_net = text.decode("utf-8", "backslashreplace")
        history = _need(file, "history", "Group", name)
        state.history = [_hdf5_blob(history, index, f"history blob {index}", name) for index in _numbered(history)]
        return state


# ---------------------------------------------------------------------------------------------------------------- writing


Values = Any  # a NumPy array or a StoredBlob, whose values are read only when they are written


def write_model(
    path: FilePath,
    proto: Any,
    arrays: Mapping[str, Sequence[Values | None]],
    diffs: Mapping[str, Sequence[np.ndarray]] | None = None,
) -> None:
    """Write weights that Caffe reads: `proto` (today's `layer` fields) with `arrays` by layer name, one per parameter blob.

    `diffs` are gradients to be stored beside them, as many. A name that ends in .h5 gives the HDF5 form: by that Caffe tells it,
    too. There None leaves out a parameter that another layer owns, whose diff is written all the same. Values go to the file one
    blob at a time, and the file appears when it is complete. Raises InspectorError.
    """
    names = [layer.name for layer in proto.layer]
    unknown = [name for name in arrays if name not in names]
    if unknown:
        message = f"values are given for layer '{unknown[0]}', which the net has not"
        raise InspectorError(message, code="no-such-layer", layers=unknown)
    if os.fspath(path).endswith(".h5"):
        _write_hdf5_model(path, names, arrays, diffs)
        return
    head = type(proto)()
    head.CopyFrom(proto)
    head.ClearField("layer")
    parts = [head.SerializeToString()]
    for source in proto.layer:
        layer = type(source)()
        layer.CopyFrom(source)
        layer.ClearField("blobs")
        values = arrays.get(source.name, ())
        beside: Sequence[Values | None] = (diffs or {}).get(source.name) or (None,) * len(values)
        blobs = [part for value, diff in zip(values, beside, strict=True) for part in _encoded(7, value, diff)]
        settings = layer.SerializeToString()
        parts += [_tagged(100, len(settings) + _size(blobs)), settings, *blobs]
    _write(path, parts)


def write_state(path: FilePath, *, iteration: int, learned_net: str, current_step: int, history: Sequence[Values]) -> None:
    """Write a solver's state that Caffe resumes from; a name that ends in .h5 gives the HDF5 form. Raises InspectorError."""
    if os.fspath(path).endswith(".h5"):
        _write_hdf5_state(path, iteration, learned_net, current_step, history)
        return
    head = caffe_pb2.SolverState(iter=iteration, learned_net=learned_net, current_step=current_step)
    _write(path, [head.SerializeToString(), *(part for value in history for part in _encoded(3, value))])


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _tagged(number: int, length: int) -> bytes:
    """Tag and length of a length-delimited field."""
    return _varint(number << 3 | LENGTH) + _varint(length)


def _encoded(number: int, value: Values | None, diff: Values | None = None) -> list[bytes | Values]:
    """A BlobProto as field `number`: its head, then the value itself, to be written when its turn comes; then the diff likewise."""
    if value is None:
        raise InspectorError("a parameter without values can be left out only in HDF5", code="missing-values")
    sizes = b"".join(map(_varint, value.shape))
    shape = _tagged(1, len(sizes)) + sizes
    count = math.prod(value.shape)
    # Blob::ToProto gives a scalar no shape at all
    head = (_tagged(7, len(shape)) + shape if value.shape else b"") + _tagged(5, 4 * count)
    rest = [value] if diff is None else [value, _tagged(6, 4 * count), diff]
    return [_tagged(number, len(head) + _size(rest)) + head, *rest]


def _size(parts: Sequence[bytes | Values]) -> int:
    return sum(len(part) if isinstance(part, bytes) else 4 * math.prod(part.shape) for part in parts)


def _floats(value: Values) -> np.ndarray:
    """The values as little-endian float32 without gaps, in the shape that they have."""
    values = value.read() if isinstance(value, StoredBlob) else value
    return np.ascontiguousarray(values, "<f4").reshape(value.shape)


def _write(path: FilePath, parts: Sequence[bytes | Values]) -> None:
    if _size(parts) > INT_MAX:
        message = f"cannot write '{os.fspath(path)}': {_size(parts)} bytes, and protobuf reads at most {INT_MAX}"
        raise InspectorError(message, code="too-large", remedy="let its name end in .h5, for HDF5")
    with replacing(path) as file:
        for part in parts:
            file.write(part if isinstance(part, bytes) else _floats(part).reshape(-1).view(np.uint8).data)


@contextmanager
def replacing_hdf5(path: FilePath) -> Iterator[h5py.File]:
    """An HDF5 file to write, which takes the name `path` when the block ends well. Raises InspectorError, MissingExtra."""
    h5py = h5py_module()
    with replacing(path) as file:
        try:
            with h5py.File(file.name, "w") as hdf5:
                yield hdf5
        except (RuntimeError, ValueError) as error:  # such as a full disk, as libhdf5 says it
            raise InspectorError(f"cannot write '{os.fspath(path)}': {error}", code="file") from None


def _write_hdf5_model(
    path: FilePath,
    names: Sequence[str],
    arrays: Mapping[str, Sequence[Values | None]],
    diffs: Mapping[str, Sequence[np.ndarray]] | None,
) -> None:
    for name in names:
        if "/" in name or not name or names.count(name) > 1:
            why = "a slash separates groups" if "/" in name else "each layer needs a name of its own"
            message = f"Caffe cannot keep layer '{name}' in HDF5: {why}"
            raise InspectorError(message, code="hdf5-layer-name", layer=name, remedy="write a .caffemodel instead")
    with replacing_hdf5(path) as file:
        data = file.create_group("data")
        for name in names:
            group = data.create_group(name)
            for index, value in enumerate(arrays.get(name, ())):
                if value is not None:
                    group.create_dataset(str(index), data=_floats(value))
        if diffs is None:
            return
        beside = file.create_group("diff")
        for name in names:
            group = beside.create_group(name)
            for index, diff in enumerate(diffs.get(name, ())):
                group.create_dataset(str(index), data=_floats(diff))


def _write_hdf5_state(path: FilePath, iteration: int, learned_net: str, current_step: int, history: Sequence[Values]) -> None:
    text = learned_net.encode()
    with replacing_hdf5(path) as file:
        file.create_dataset("iter", data=np.array([iteration], "<i4"))
        file.create_dataset("learned_net", data=np.array(text, f"S{len(text) + 1}"))  # Caffe reads up to a zero byte
        file.create_dataset("current_step", data=np.array([current_step], "<i4"))
        group = file.create_group("history")
        for index, value in enumerate(history):
            group.create_dataset(str(index), data=_floats(value))
