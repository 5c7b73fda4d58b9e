"""Where HDF5Output layers write: rows of every forward, in the files that the prototxt names. (hdf5_output_layer.cpp)"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InspectorError
from .sources import hdf5

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

    from .graph import Blob, Node
    from .net import Net

NAMES = ("data", "label")  # of the data sets


@contextmanager
def writing(net: Net) -> Iterator[list[str]]:
    """While the block lasts, every whole forward of the net adds its rows. Gives the files, as the prototxt names them.

    They are relative to the current folder, as Caffe has it, appear when the block ends well, and otherwise not at all. What is no
    HDF5 file is not replaced.

    Raises InspectorError where a layer's file cannot be written; MissingExtra without h5py.
    """
    with ExitStack() as stack:
        outputs = Outputs(net)
        for node in outputs.nodes():
            name = _file_name(node)
            if name in outputs.files:
                raise _trouble(node, f"writes to '{name}', as another layer does", "give each a file_name of its own", "file")
            path = Path(name)
            if path.exists() and not hdf5.looks_like(path):
                raise _trouble(node, f"would replace '{name}', which is no HDF5 file", "change its file_name", "file")
            outputs.files[name] = stack.enter_context(hdf5.writing(path))
        net.outputs_open = outputs
        try:
            yield list(outputs.files)
        finally:
            net.outputs_open = None


class Outputs:
    """The open files of a net's HDF5Output layers, by name.

    Caffe's layer reads its bottoms as four axes, and so are the data sets; it fails at a second forward, whose rows come next here.
    """

    def __init__(self, net: Net) -> None:
        self._net = net
        self.files: dict[str, hdf5.Rows] = {}

    def nodes(self) -> list[Node]:
        """The layers, of the graph as it is now: a net may be reshaped."""
        return [node for node in self._net.layers if node.type == "HDF5Output"]

    def blobs(self) -> list[Blob]:
        """What the layers read."""
        return [blob for node in self.nodes() for blob in node.bottoms]

    def add(self, values: Mapping[Blob, np.ndarray]) -> None:
        """The rows of one forward. Raises InspectorError where the bottoms do not belong together."""
        for node in self.nodes():
            rows = {name: values[blob] for name, blob in zip(NAMES, node.bottoms, strict=True)}
            large = next((array for array in rows.values() if array.ndim > 4), None)
            if large is not None:
                raise _trouble(node, f"reads a blob of {large.ndim} axes, and writes 4", "reshape it before", "hdf5-rows")
            self.files[_file_name(node)].append(**{key: _four_axes(array) for key, array in rows.items()})


def _file_name(node: Node) -> str:
    return str(node.layer.proto.hdf5_output_param.file_name)


def _four_axes(array: np.ndarray) -> np.ndarray:
    return array.reshape(array.shape + (1,) * (4 - array.ndim))


def _trouble(node: Node, message: str, remedy: str, code: str) -> InspectorError:
    return InspectorError(message, code=code, layer=node.name, layer_type=node.type, remedy=remedy)
