"""The Caffe tool that needs no Caffe.

    prototxt, caffemodel, HDF5, solver, or the name of a model that ships
        | prototxt, caffemodel       read by content, with the line and column of everything that was set
        v
    NetParameter
        | upgrade                    V0 -> V1 -> today's
        | phases                     include and exclude rules against phase, level and stages
        | splits                     one reader per blob
        v
    NetParameter as Caffe would build it
        | graph                      blobs, parameters, nodes
        | shapes                     every top, every parameter
        | needs                      who runs backward
        v
    Graph
        |---- summary, cost, memory, receptive, check, compare, ...     plain data
        |---- log, logdiff                                              what Caffe would have said
        `---- weights, preprocess, plan, run                            arrays

The front door is `load`, which gives a `Net`; `net.py` is the same picture as code. Nothing is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from .errors import Finding, InspectorError
    from .net import Net, load, loads

__all__ = ["Finding", "InspectorError", "Net", "__version__", "load", "loads"]

_HOMES = {"Finding": ".errors", "InspectorError": ".errors", "Net": ".net", "load": ".net", "loads": ".net"}


def __getattr__(name: str) -> object:
    """Import a public name's module when the name is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'inspector' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value  # the next access is an ordinary attribute
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
