"""The Python layer: a class of the user's own, given what pycaffe gives it.

Running it means running code that a prototxt names, so it stays a layer of unknown shape until `allow_python` is set.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from ..editions import MASTER, Edition
from ..errors import InspectorError, Refusal
from ..lazy import np
from .base import TEST, TRAIN, Context, Layer, ParamShape, Shape, count, register


class Blob:
    """A blob as pycaffe shows it: `data` and `diff` are float32 arrays, made when first asked for."""

    def __init__(self, shape: Shape = ()) -> None:
        self._shape = tuple(shape)
        self._arrays: dict[str, np.ndarray] = {}

    @property
    def shape(self) -> Shape:
        return self._shape

    @property
    def count(self) -> int:
        return count(self._shape)

    def _axis(self, index: int) -> int:
        return self._shape[index] if index < len(self._shape) else 1

    num = property(lambda self: self._axis(0))
    channels = property(lambda self: self._axis(1))
    height = property(lambda self: self._axis(2))
    width = property(lambda self: self._axis(3))

    def reshape(self, *dims: int) -> None:
        """Take another shape; contents stay where the count does."""
        self._shape = tuple(int(size) for size in dims)
        for name, array in list(self._arrays.items()):
            if array.size == self.count:
                self._arrays[name] = array.reshape(self._shape)
            else:
                del self._arrays[name]

    def _array(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            self._arrays[name] = np.zeros(self._shape, np.float32)
        return self._arrays[name]

    data = property(lambda self: self._array("data"))
    diff = property(lambda self: self._array("diff"))


class Blobs(list[Blob]):
    """The parameters of a Python layer; `add_blob` makes one, as in pycaffe."""

    def add_blob(self, *dims: int) -> None:
        self.append(Blob(tuple(int(size) for size in dims)))


class PyLayer:
    """What `class X(caffe.Layer)` derives from where Caffe is not installed."""

    def __init__(self, param: Any = None) -> None:
        self.param_str = ""
        self.phase = TEST
        self.blobs = Blobs()

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None: ...

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None: ...

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None: ...

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None: ...


@contextmanager
def stand_in() -> Iterator[None]:
    """Let `import caffe` find a module with `Layer`, `TRAIN` and `TEST` for the time being, unless there is a real one."""
    if "caffe" in sys.modules or importlib.util.find_spec("caffe") is not None:
        yield
        return
    module = ModuleType("caffe", "A stand-in for pycaffe, which holds what a Python layer derives from.")
    module.__dict__.update(Layer=PyLayer, TRAIN=TRAIN, TEST=TEST)
    sys.modules["caffe"] = module
    try:
        yield
    finally:
        del sys.modules["caffe"]


@register("Python")
class Python(Layer):
    """A layer written in Python: a class with setup, reshape, forward and backward in a module on the import path::

        layer { type: "Python" bottom: "x" top: "y" python_param { module: "mylayers" layer: "Twice" param_str: "{}" } }

    (Caffe's PythonLayer)
    """

    rule = "what its class says"
    bottoms = (0, None)
    tops = (0, None)
    allow_python: bool = False  # set on the instance by whoever trusts the prototxt

    @property
    def counted(self) -> bool:
        """Never: what it does is the user's own."""
        return False

    def __init__(self, proto: Any, phase: int = TEST, edition: Edition = MASTER) -> None:
        super().__init__(proto, phase, edition)
        self.instance: Any = None
        self.bottom: list[Blob] = []
        self.top: list[Blob] = []

    def shapes(self, *bottoms: Shape) -> Sequence[Shape | None]:  # type: ignore[override]  # unknown until it may run
        if not self.allow_python:
            return [None] * self.num_tops
        self._set_up(bottoms)
        return [blob.shape for blob in self.top]

    def params(self, *bottoms: Shape) -> Sequence[ParamShape]:
        return [ParamShape(f"param {i}", blob.shape) for i, blob in enumerate(self.instance.blobs)] if self.instance else ()

    def initial(self, index: int) -> np.ndarray | None:
        """What `setup` has put there."""
        return np.array(self.instance.blobs[index].data) if self.instance else None

    def settings(self) -> str:
        param = self.proto.python_param
        return f"{param.module}.{param.layer}"

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        if not self.allow_python:
            raise InspectorError(
                f"would run {self.settings()}, and Python layers are not allowed to run",
                code="python-not-allowed",
                layer=self.proto.name,
                layer_type=self.type,
                remedy="allow it only for prototxts that you trust",
            )
        bottoms, params = arrays[: ctx.bottoms], arrays[ctx.bottoms :]
        if self.instance is None:
            self._set_up([array.shape for array in bottoms])
        for blob, array in zip([*self.bottom, *self.instance.blobs], [*bottoms, *params], strict=True):
            blob.reshape(*array.shape)
            blob.data[...] = array
        self.instance.reshape(self.bottom, self.top)
        self.instance.forward(self.bottom, self.top)
        for blob, array in zip(self.instance.blobs, params, strict=True):
            if not np.array_equal(blob.data, array):  # a running statistic of its own
                array[...] = blob.data
        return [blob.data.copy() for blob in self.top]

    def backward(self, ctx: Context, *top_diffs: np.ndarray) -> Sequence[np.ndarray | None]:
        blobs = [*self.bottom, *self.instance.blobs]
        for blob, diff in zip(self.top, top_diffs, strict=True):
            blob.diff[...] = diff
        for blob in blobs:
            blob.diff[...] = 0
        wanted = [ctx.wants(i) for i in range(len(blobs))]
        self.instance.backward(self.top, wanted[: ctx.bottoms], self.bottom)
        return [blob.diff.copy() if want else None for blob, want in zip(blobs, wanted, strict=True)]

    def _set_up(self, bottoms: Sequence[Shape]) -> None:
        """Make the user's object once, as Caffe does in LayerSetUp, and let it reshape."""
        first = self.instance is None
        if first:
            self.instance = self._class()(self.proto)
            self.instance.param_str = self.proto.python_param.param_str
            self.instance.phase = self.phase
            self.top = [Blob() for _ in range(self.num_tops)]
            self.bottom = [Blob(shape) for shape in bottoms]
            self.instance.setup(self.bottom, self.top)
        for blob, shape in zip(self.bottom, bottoms, strict=True):
            blob.reshape(*shape)
        self.instance.reshape(self.bottom, self.top)

    def _class(self) -> Any:
        param = self.proto.python_param
        try:
            with stand_in():
                module = importlib.import_module(param.module)
            return getattr(module, param.layer)
        except (ImportError, AttributeError, ValueError) as error:
            raise Refusal(
                f"cannot find its class {self.settings()}: {error}",
                code="python-layer-missing",
                layer=self.proto.name,
                layer_type=self.type,
                remedy="put its folder on PYTHONPATH",
            ) from error
