"""Every layer type, one class each, one file per family; importing this package fills the registry."""

from . import base, combine, conv, data, linear, loss, neuron, norm, pool, python, recurrent, retired, wiring
from .base import Context, Costs, Layer, ParamShape, Shape, Unknown, count, create, register, registry, shape_text

__all__ = [
    "Context",
    "Costs",
    "Layer",
    "ParamShape",
    "Shape",
    "Unknown",
    "base",
    "combine",
    "conv",
    "count",
    "create",
    "data",
    "linear",
    "loss",
    "neuron",
    "norm",
    "pool",
    "python",
    "recurrent",
    "register",
    "registry",
    "retired",
    "shape_text",
    "wiring",
]
