"""Caffe's record: a Datum is a label with pixels as bytes, with floats, or with a whole image file. (util/io.cpp)"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.message import DecodeError

from caffe_proto import caffe_pb2

from ..errors import InspectorError, MissingExtra, UnreadableError
from ..lazy import np
from . import picture


def parse(record: bytes) -> Any:
    """The Datum in a record. Raises InspectorError."""
    try:
        return caffe_pb2.Datum.FromString(record)
    except DecodeError:
        raise InspectorError(f"{len(record)} bytes are no Datum", code="broken-record") from None


def decoded(records: Iterable[tuple[bytes, bytes]], color: bool | None = None) -> Iterator[tuple[str, Any, np.ndarray]]:
    """Key, Datum and image of each record of a database. Raises InspectorError, naming the record."""
    for key, value in records:
        name = key.decode("utf-8", "backslashreplace")
        try:
            item = parse(value)
            image = array(item, color)
        except MissingExtra:
            raise
        except InspectorError as error:
            raise UnreadableError(f"record '{name}': {error.finding.message}", code=error.code) from None
        yield name, item, image


def array(datum: Any, color: bool | None = None) -> np.ndarray:
    """Its image as channels x height x width, uint8 or float32, blue first. `color` decodes an encoded one to 3 channels or to 1,
    None as it is stored.

    Raises InspectorError if the sizes do not fit together, UnreadableError if the image cannot be decoded.
    """
    if datum.encoded:
        return picture.decode(datum.data, color, "its image").transpose(2, 0, 1)
    _check(datum)
    values = np.frombuffer(datum.data, np.uint8) if datum.data else np.array(datum.float_data, np.float32)
    return values.reshape(datum.channels, datum.height, datum.width)


def _check(datum: Any) -> None:
    sizes = (datum.channels, datum.height, datum.width)
    have = len(datum.data) or len(datum.float_data)
    if min(sizes) < 1 or have != sizes[0] * sizes[1] * sizes[2]:
        text = " x ".join(map(str, sizes))
        raise InspectorError(f"it says {text} and holds {have} values", code="broken-record")


def from_image(image: np.ndarray, label: int) -> Any:
    """A Datum of the bytes of an image, height x width x channels, blue first (CVMatToDatum)."""
    height, width, channels = image.shape
    data = image.transpose(2, 0, 1).tobytes()
    return caffe_pb2.Datum(channels=channels, height=height, width=width, data=data, label=label, encoded=False)
