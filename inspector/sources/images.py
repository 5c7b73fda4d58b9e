"""ImageData: files from a list of paths and labels. (image_data_layer.cpp)

Each line is a path, a blank and a label; the path may hold blanks itself. `root_folder` is put before it as it is. `shuffle` mixes
the list when it is opened and again each time it ends; `rand_skip` starts somewhere in its beginning. Resizing comes before the
transform.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UnreadableError
from ..files import read_bytes
from ..foreign import HEAD, recognise
from ..layers import Shape
from ..layers.base import int32
from ..lazy import np
from . import picture
from .base import Source, filled
from .transform import Transform, mean_of

if TYPE_CHECKING:
    from .base import Batch

_NUMBER = re.compile(r"\s*([+-]?\d+)")


def read_list(path: Path) -> list[tuple[str, int]]:
    """Paths and labels of an image list; blank lines do not count. A label that is no number is 0, as atoi has it.

    Raises UnreadableError if the file cannot be read, is something else than a list, or lists nothing.
    """
    items = []
    data = read_bytes(path)
    if data and (verdict := recognise(data[:HEAD], len(data))):
        raise UnreadableError(f"'{path}': {verdict}", code="broken-source")
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        line = line.removesuffix("\r")
        name, blank, label = line.rpartition(" ")
        if not line.strip():
            continue
        number = _NUMBER.match(label)
        items.append((name if blank else line, int32(int(number[1][:20])) if number else 0))
    if not items:
        raise UnreadableError("the list is empty", code="empty-source")
    return items


class ImageData(Source):
    type = "ImageData"

    def __init__(self, proto: Any, phase: int, folder: Path, rng: np.random.Generator) -> None:
        super().__init__(proto, phase, folder, rng)
        param = proto.image_data_param
        if bool(param.new_height) != bool(param.new_width):
            self.fail(f"has new_height {param.new_height} and new_width {param.new_width}", remedy="set both or none")
        self.path = self.find(param.source)
        self.lines.append(("images-open", {"source": param.source}))
        with self.blame():
            self.transform = Transform(proto.transform_param, phase, rng, mean_of(self))
        with self.blame(param.source, self.path):
            self.items: Sequence[tuple[str, int]] = read_list(self.path)
        if param.shuffle:
            self._shuffle()
            self.lines.append(("images-shuffle", {}))
        self.lines.append(("images-total", {"images": len(self.items)}))
        self._start = 0
        if param.rand_skip:
            self._start = int(rng.integers(param.rand_skip))
            self.lines.append(("images-skip", {"skip": self._start}))
            if self._start >= len(self.items):
                self.fail(f"skips {self._start} images, and the list has {len(self.items)}", remedy="use a smaller rand_skip")

    @property
    def batch_size(self) -> int:
        return int(self.proto.image_data_param.batch_size)

    def first(self) -> list[Shape]:
        image = self._read(self.items[self._start][0])
        height, width, channels = image.shape
        return [(self.batch_size, *self.transform.shape((channels, height, width))), (self.batch_size,)]

    def records(self) -> int | None:
        return None if self.proto.image_data_param.shuffle else len(self.items)

    def batches(self) -> Iterator[Batch]:
        with self.blame(self.proto.image_data_param.source, self.path):
            images = ((self.transform(self._read(name).transpose(2, 0, 1)), label) for name, label in self._endless())
            while True:
                yield filled(images, self.batch_size)

    def _endless(self) -> Iterator[tuple[str, int]]:
        position = self._start
        while True:
            yield from self.items[position:]
            position = 0
            if self.proto.image_data_param.shuffle:
                self._shuffle()

    def _shuffle(self) -> None:
        self.items = [self.items[i] for i in self.rng.permutation(len(self.items))]

    def _read(self, name: str) -> np.ndarray:
        param = self.proto.image_data_param
        path = self.find(name, prefix=param.root_folder)
        with self.blame(param.root_folder + name, path):
            image = picture.decode(path, param.is_color)
        return picture.resize(image, param.new_height, param.new_width) if param.new_height else image
