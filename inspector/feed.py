"""What a net's own data layers read: batch after batch, ready for `Net.forward`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from .lazy import np
from .sources import READERS, open_source
from .sources.base import Source

if TYPE_CHECKING:
    from .graph import Node
    from .net import Net


class Feed:
    """The sources of a net's Data, ImageData and HDF5Data layers, read side by side. Use it in a `with`, which closes them."""

    def __init__(self, net: Net, seed: int = 0) -> None:
        self._net = net
        self._sources: list[tuple[Node, Source]] = []
        rng = np.random.default_rng(seed)
        try:
            for node in net.layers:
                if node.type in READERS and node.type != "MemoryData":
                    source = open_source(node.layer.proto, node.layer.phase, net.opened.folder, rng)
                    self._sources.append((node, source))
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """How many layers read a source."""
        return len(self._sources)

    def next(self) -> dict[str, Any]:
        """The next batch of every source by the names of its blobs: after the last record comes the first.

        The net is reshaped where a batch has another shape than the last, as images of different sizes make it.
        """
        batch = {top.name: array for node, source in self._sources for top, array in zip(node.tops, source.next())}
        shapes = {name: array.shape for name, array in batch.items()}
        if any(self._net.blob(name).root.shape != shape for name, shape in shapes.items()):
            self._net.reshape(**shapes)
        return batch

    def skip(self, batches: int) -> None:
        """Pass over batches, as if they had been used."""
        for _, source in self._sources:
            source.skip(batches)

    def close(self) -> None:
        """Stop reading ahead and let go of files."""
        for _, source in self._sources:
            source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
