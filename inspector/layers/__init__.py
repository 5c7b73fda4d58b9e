"""Every layer type, one class each, one file per family; importing this package fills the registry."""

from . import base
from .base import Context, Costs, Layer, ParamShape, Shape, Unknown, count, create, register, registry, shape_text

__all__ = [
    "Context",
    "Costs",
    "Layer",
    "ParamShape",
    "Shape",
    "Unknown",
    "base",
    "count",
    "create",
    "register",
    "registry",
    "shape_text",
]
