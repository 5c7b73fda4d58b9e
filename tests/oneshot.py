"""Runs one reference case without the graph engine: a net of Input layers and the layer under test, forward and backward.

The cases lie in `layers/<Type>/` (and `forks/layers/<Type>/`) of the reference folder; its README says what is recorded.
A Scale layer called `pre_...` multiplies by one number and is there so that Caffe propagates: it is done here, all other
layers come from the registry.
"""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from caffe_proto import caffe_pb2
from inspector.errors import Refusal
from inspector.layers import base

DIALECTS = Path(base.__file__).resolve().parent.parent / "dialects"
NORMALISING = {"BatchNorm", "LRN", "MVN", "Normalize"}  # their gradients are small differences of large numbers
LONG_SUM = 1000  # terms from which float32 sums in another order may differ by more than 1e-5


@dataclass(frozen=True)
class Case:
    """One array: what we computed and what Caffe recorded under the same key."""

    key: str
    ours: np.ndarray
    caffe: np.ndarray
    tolerance: float

    @property
    def error(self) -> float:
        """Largest difference relative to Caffe's largest magnitude (at least 1e-3); infinite where the shapes differ."""
        if self.ours.shape != self.caffe.shape:
            return float("inf")
        if not self.caffe.size:
            return 0.0
        if not (np.isfinite(self.caffe) == np.isfinite(self.ours)).all():
            return float("inf")
        finite = np.isfinite(self.caffe)
        difference = np.abs(self.ours[finite] - self.caffe[finite]).max(initial=0.0)
        return float(difference / max(1e-3, np.abs(self.caffe[finite]).max(initial=0.0)))

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance

    def __str__(self) -> str:
        return f"{self.key}: error {self.error:.2e}, allowed {self.tolerance:.0e}, shapes {self.ours.shape} and {self.caffe.shape}"


def prototxts(reference: Path, *types: str, folder: str = "layers") -> list[Path]:
    """The cases of the given layer types, or of all types; those that Caffe refuses have a `.fatal` beside them."""
    found = sorted((reference / folder).glob("*/*.prototxt"))
    return [path for path in found if not types or path.parent.name in types]


def refused_line(prototxt: Path) -> str | None:
    """What Caffe said when it refused the case, as `file.cpp:12] Check failed: ...`, pointers masked; None where it accepted it."""
    fatal = prototxt.with_suffix(".fatal")
    return mask(fatal.read_text().strip().split(maxsplit=3)[3]) if fatal.is_file() else None


def hold(prototxt: Path) -> None:
    """Assert that a case is refused with Caffe's words, or that every array agrees."""
    words = refused_line(prototxt)
    if words is not None:
        with pytest.raises(Refusal) as caught:
            shapes_of(prototxt)
        assert caffe_words(caught.value) == words
        return
    cases = run_case(prototxt)
    assert cases
    assert not [str(case) for case in cases if not case.ok]


def mask(line: str) -> str:
    """Pointers, which differ from run to run, as one word."""
    return re.sub(r"0x[0-9a-f]+", "0x…", line)


def caffe_words(refusal: Refusal) -> str:
    """A refusal as BVLC master words it, `file.cpp:12] Check failed: ...`, from the tables `dialects/refusals_*.toml`."""
    for table in sorted(DIALECTS.glob("refusals_*.toml")):
        entry = tomllib.loads(table.read_text(encoding="utf-8")).get(refusal.code)
        if entry is not None:
            return mask(f"{entry['at']}] {entry['text'].format(**refusal.values)}")
    raise KeyError(refusal.code)


def read_net(prototxt: Path) -> Any:
    """The case's NetParameter."""
    return text_format.Parse(prototxt.read_text(), caffe_pb2.NetParameter())


def phase_of(prototxt: Path) -> int:
    """The phase in which Caffe ran the case."""
    return base.TRAIN if prototxt.with_suffix(".phase").read_text().strip() == "TRAIN" else base.TEST


def shapes_of(prototxt: Path) -> dict[str, base.Shape]:
    """Blob name -> shape according to `shapes()` alone; raises the Refusal of a case that Caffe refuses."""
    shapes: dict[str, base.Shape] = {}
    for proto in read_net(prototxt).layer:
        if proto.type == "Input":
            shapes[proto.top[0]] = tuple(proto.input_param.shape[0].dim)
        elif proto.name.startswith("pre_"):
            shapes[proto.top[0]] = shapes[proto.bottom[0]]
        else:
            layer = base.create(proto, phase_of(prototxt))
            layer.check_counts(len(proto.bottom))
            tops = layer.shapes(*(shapes[name] for name in proto.bottom))
            shapes.update(zip(proto.top, tops, strict=True))
    return shapes


def run_case(prototxt: Path) -> list[Case]:
    """Forward and backward of one case in float32; one Case per array that Caffe recorded beyond the inputs.

    Fails at once where shapes(), params() and forward contradict each other, or forward writes to a bottom.
    """
    return list(_run(prototxt))


@dataclass
class _Step:
    """A layer that ran: what backward needs to know. `layer` is None for the Scale `pre_...`."""

    proto: Any
    layer: base.Layer | None
    ctx: base.Context
    bottoms: list[np.ndarray]
    params: list[np.ndarray]

    def backward(self, diffs: list[np.ndarray]) -> list[np.ndarray | None]:
        if self.layer is not None:
            return list(self.layer.backward(self.ctx, *diffs))
        # where nothing wants the bottom's gradient, Caffe's Scale leaves there the product that it has just summed up
        product = diffs[0] * self.bottoms[0]
        return [diffs[0] * self.params[0] if self.ctx.needs[0] else product, np.asarray(product.sum(), np.float32)]


def _run(prototxt: Path) -> Iterator[Case]:
    net = read_net(prototxt)
    with np.load(prototxt.with_suffix(".npz"), allow_pickle=False) as archive:
        recorded = dict(archive)
    layer_type = next(proto.type for proto in net.layer if proto.name == "l")
    seen: set[str] = set()

    def case(key: str, ours: np.ndarray) -> Case:
        seen.add(key)
        terms = max(array.size for array in recorded.values()) / max(1, recorded[key].size)
        loose = terms > LONG_SUM or (layer_type in NORMALISING and key.startswith("d"))
        return Case(key, np.asarray(ours), recorded[key], 1e-4 if loose else 1e-5)

    values: dict[str, np.ndarray] = {}  # every blob as it lies in memory: an in-place layer overwrites
    steps: list[_Step] = []
    for proto in net.layer:
        if proto.type == "Input":
            values[proto.top[0]] = recorded[f"in:{proto.top[0]}"]
        else:
            steps.append(_forward(prototxt, net, proto, recorded, values))
    for step in steps:
        for i, param in enumerate(step.params):
            if f"param_after:{step.proto.name}:{i}" in recorded:
                yield case(f"param_after:{step.proto.name}:{i}", param)
    for name, array in values.items():
        yield case(f"out:{name}", array)

    diffs: dict[str, np.ndarray] = {key[5:]: array for key, array in recorded.items() if key.startswith("dtop:")}
    pieces: dict[str, list[np.ndarray]] = defaultdict(list)  # the gradient from each reader, the last reader's first
    for step in reversed(steps if any(key.startswith("dblob:") for key in recorded) else []):
        proto = step.proto
        for i, name in enumerate(proto.top):
            if name not in diffs:  # nobody read it: it starts from its loss weight
                weight = proto.loss_weight[i] if proto.loss_weight else float(step.layer is not None and step.layer.loss and i == 0)
                diffs[name] = np.full(values[name].shape, weight, np.float32)
        grads = step.backward([diffs[name] for name in proto.top])
        assert len(grads) == len(step.bottoms) + len(step.params), f"{prototxt.name}: {len(grads)} gradients"
        for i, name in enumerate(proto.bottom):
            grad = grads[i] if step.ctx.needs[i] or step.layer is None else None
            pieces[name].append(np.zeros_like(step.bottoms[i]) if grad is None else grad)
            diffs[name] = pieces[name][-1] if name in proto.top else sum(pieces[name][1:], pieces[name][0])
        for i, param in enumerate(step.params):
            grad = grads[len(step.bottoms) + i]
            yield case(f"dparam:{proto.name}:{i}", np.zeros_like(param) if grad is None else grad)
    for name, array in diffs.items():
        yield case(f"dblob:{name}", array)
    for name, parts in pieces.items():  # the copies that Caffe's Split layers make
        maker = next(proto for proto in net.layer if name in proto.top)
        for k, grad in enumerate(reversed(parts)):
            key = f"{name}_{maker.name}_{list(maker.top).index(name)}_split_{k}"
            if f"dblob:{key}" in recorded:
                yield case(f"out:{key}", values[name])
                yield case(f"dblob:{key}", grad)
    left = {key for key in recorded if key.split(":")[0] in ("out", "dblob", "dparam", "param_after")} - seen
    assert not left, f"{prototxt.name}: not compared: {sorted(left)}"


def _forward(prototxt: Path, net: Any, proto: Any, recorded: dict[str, np.ndarray], values: dict[str, np.ndarray]) -> _Step:
    """Run one layer on `values` and store its tops there."""
    count = sum(key.startswith(f"param:{proto.name}:") for key in recorded)
    params = [recorded[f"param:{proto.name}:{i}"].copy() for i in range(count)]
    bottoms = [values[name] for name in proto.bottom]
    ctx = base.Context(train=phase_of(prototxt) == base.TRAIN, rng=np.random.default_rng(1), bottoms=len(bottoms))
    if proto.name.startswith("pre_"):
        values[proto.top[0]] = bottoms[0] * params[0]
        ctx.needs = (net.force_backward, True)
        return _Step(proto, None, ctx, bottoms, params)
    layer = base.create(proto, phase_of(prototxt))
    layer.check_counts(len(bottoms))
    shapes = [array.shape for array in bottoms]
    top_shapes = list(layer.shapes(*shapes))
    owned = [tuple(param.shape) for param in layer.params(*shapes)]
    assert owned == [p.shape for p in params], f"{prototxt.name}: params() says {owned}, Caffe {[p.shape for p in params]}"
    learnable = {top for made in net.layer if made.name.startswith("pre_") for top in made.top}
    needs = [
        proto.propagate_down[i]
        if proto.propagate_down
        else name in learnable or (net.force_backward and layer.can_force_backward(i))
        for i, name in enumerate(proto.bottom)
    ]
    ctx.needs = (*needs, *(True for _ in params))
    before = [array.copy() for array in bottoms]
    tops = list(layer.forward(ctx, *bottoms, *params))
    assert all(map(np.array_equal, before, bottoms)), f"{prototxt.name}: forward wrote to a bottom"
    made = [top.shape for top in tops]
    assert made == top_shapes, f"{prototxt.name}: shapes() says {top_shapes}, forward gives {made}"
    assert all(top.dtype == np.float32 for top in tops), f"{prototxt.name}: {[top.dtype for top in tops]} from float32"
    values.update(zip(proto.top, tops, strict=True))
    return _Step(proto, layer, ctx, bottoms, params)
