"""MemoryData: batches out of arrays that a program hands over. (memory_data_layer.cpp)"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..layers import Shape, shape_text
from ..lazy import np
from .base import Source

if TYPE_CHECKING:
    from .base import Batch


class MemoryData(Source):
    type = "MemoryData"
    _arrays: Batch | None = None

    def hold(self, arrays: Sequence[np.ndarray]) -> None:
        """Take data, N x channels x height x width, and N labels; N must be a multiple of the batch size. Not transformed."""
        data, labels = (np.asarray(array, np.float32) for array in arrays)
        shape = self.first()[0]
        if data.shape[1:] != shape[1:] or len(data) % shape[0] or not len(data) or labels.size != len(data):
            self.fail(
                f"takes data of {shape_text(shape)} or a multiple of it with a label for each, and was given "
                f"{shape_text(data.shape)} and {labels.size} labels",
                code="memory-data",
                remedy="give arrays of that shape",
            )
        self._arrays = [data, labels.reshape(-1)]

    @property
    def batch_size(self) -> int:
        return int(self.proto.memory_data_param.batch_size)

    def first(self) -> list[Shape]:
        param = self.proto.memory_data_param
        return [(self.batch_size, param.channels, param.height, param.width), (self.batch_size,)]

    def batches(self) -> Iterator[Batch]:
        if self._arrays is None:
            self.fail("holds no data", code="memory-data", remedy="hand it arrays first")
        while True:
            for row in range(0, len(self._arrays[0]), self.batch_size):
                yield [array[row : row + self.batch_size] for array in self._arrays]
