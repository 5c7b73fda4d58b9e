"""Fillers: how Caffe fills parameters before training (filler.hpp), from a FillerParameter, a shape and a random generator.

The distributions are Caffe's, the numbers are not: they come from NumPy's generator and so from another sequence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from .editions import MASTER, Edition
from .errors import Refusal
from .lazy import np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

NAMES = ("constant", "gaussian", "positive_unitball", "uniform", "xavier", "msra", "bilinear")
FAN_IN, FAN_OUT, AVERAGE = range(3)  # FillerParameter.VarianceNorm


def check_name(filler: Any, edition: Edition = MASTER) -> None:
    """Raise Refusal for a filler that Caffe does not know (GetFiller)."""
    known = [name for name in NAMES if name not in edition.absent_fillers]
    if filler.type not in known:
        _refuse("filler-unknown", f"no filler is called '{filler.type}'", f"use one of {', '.join(known)}", name=filler.type)


def check(filler: Any, shape: Sequence[int], edition: Edition = MASTER) -> None:
    """Raise Refusal where Caffe could not fill a blob of `shape`; None is a parameter that nothing fills."""
    if filler is None:
        return
    check_name(filler, edition)
    size, kind = math.prod(shape), filler.type
    if kind == "bilinear":
        if len(shape) != 4:
            _refuse("filler-bilinear-axes", f"the bilinear filler fills 4 axes, not {len(shape)}", a=len(shape), b=4)
        if shape[3] != shape[2]:
            _refuse(
                "filler-bilinear-square",
                f"the bilinear filler needs a square kernel, not {shape[2]} x {shape[3]}",
                a=shape[3],
                b=shape[2],
            )
    elif size == 0:
        _refuse(f"filler-empty-{kind}", f"the {kind} filler has nothing to fill: the blob has no elements")
    if edition.fillers_by_num and len(shape) > 4 and kind in ("positive_unitball", "xavier", "msra"):
        message = f"the {kind} filler of this Caffe fills at most 4 axes, not {len(shape)}"
        _refuse("legacy-axes", message, "use constant, uniform or gaussian", axes=len(shape))
    if kind == "uniform" and filler.min > filler.max:
        _refuse(
            "filler-uniform-range",
            f"the uniform filler's min {filler.min:g} is above its max {filler.max:g}",
            a=filler.min,
            b=filler.max,
        )
    if kind == "gaussian":
        _check_gaussian(filler, shape, edition)
    elif filler.sparse != -1:
        _refuse(
            f"filler-sparse-{kind}",
            f"the {kind} filler cannot fill sparsely",
            "use gaussian, or remove sparse",
            a=filler.sparse,
            b=-1,
        )


def _check_gaussian(filler: Any, shape: Sequence[int], edition: Edition) -> None:
    if filler.std <= 0:
        _refuse("filler-gaussian-std", f"the gaussian filler's std is {filler.std:g}", "use a std above 0", a=filler.std, b=0)
    if filler.sparse < -1:
        _refuse(
            "filler-gaussian-sparse", f"the gaussian filler's sparse is {filler.sparse}", "use -1 for none", a=filler.sparse, b=-1
        )
    if filler.sparse > -1 and not shape:
        _refuse("filler-gaussian-axes", "the gaussian filler cannot fill a scalar sparsely", a=0, b=1)
    outputs = shape[0] if shape else 1
    if not edition.nd_blobs and filler.sparse > -1:  # weights of 1 x 1 x outputs x inputs, and nothing else
        for axis, name in ((0, "num"), (1, "channels")):
            if shape[axis] != 1:
                _refuse(
                    f"filler-gaussian-{name}",
                    f"this Caffe fills only matrices sparsely, and {name} is {shape[axis]}",
                    a=shape[axis],
                    b=1,
                )
        outputs = shape[2]
    if filler.sparse > -1 and filler.sparse > outputs:
        probability = filler.sparse / outputs
        _refuse(
            "filler-gaussian-probability",
            f"the gaussian filler's sparse {filler.sparse} is more than the {outputs} outputs",
            a=probability,
            b=1,
        )


def _refuse(code: str, message: str, remedy: str = "", **values: Any) -> NoReturn:
    raise Refusal(message, code=code, remedy=remedy, **values)


def fill(filler: Any, shape: Sequence[int], rng: np.random.Generator, dtype: DTypeLike = "float32") -> np.ndarray:
    """A filled array of `shape`; zeros where `filler` is None. Raises what `check` raises.

    xavier: Glorot and Bengio, 2010. msra: He et al., 2015. bilinear: weights of a Deconvolution that enlarges an image.
    """
    check(filler, shape)
    if filler is None:
        return np.zeros(shape, dtype)
    match filler.type:
        case "constant":
            return np.full(shape, filler.value, dtype)
        case "uniform":
            return rng.uniform(filler.min, filler.max, shape).astype(dtype)
        case "gaussian":
            values = rng.normal(filler.mean, filler.std, shape)
            if filler.sparse >= 0:  # on average that many non-zero weights in each column of outputs
                values *= rng.random(shape) < filler.sparse / shape[0]
            return values.astype(dtype)
        case "positive_unitball":  # each row is positive and sums to 1
            rows = rng.random((*shape[:1], math.prod(shape[1:])))
            return (rows / rows.sum(axis=-1, keepdims=True)).reshape(shape).astype(dtype)
        case "xavier":
            limit = math.sqrt(3 / _fan(filler, shape))
            return rng.uniform(-limit, limit, shape).astype(dtype)
        case "msra":
            return rng.normal(0, math.sqrt(2 / _fan(filler, shape)), shape).astype(dtype)
        case _:
            return np.broadcast_to(_bilinear(shape[3]), shape).astype(dtype)


def _fan(filler: Any, shape: Sequence[int]) -> float:
    """How many numbers meet in one output, or go out from one input, or the mean of both, as `variance_norm` says."""
    size = math.prod(shape)
    fan_in = size // (shape[0] if shape else 1)
    fan_out = size // shape[1] if len(shape) > 1 else size
    return (fan_in, fan_out, (fan_in + fan_out) / 2)[filler.variance_norm]


def _bilinear(size: int) -> np.ndarray:
    """The tent of a kernel of `size` x `size`: the product of two triangles that peak in its middle."""
    factor = math.ceil(size / 2)
    centre = (size - 1) / (2 * factor)
    triangle = 1 - np.abs(np.arange(size) / factor - centre)
    return np.outer(triangle, triangle)
