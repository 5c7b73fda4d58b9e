"""Shapes, parameters and sharing: what Layer::SetUp and Net::AppendParam work out, node by node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from . import fillers, multipliers
from .errors import Finding, InspectorError, Refusal
from .graph import PARAMS, SETUP, Graph, Node, Param
from .layers import Shape, Unknown, count, shape_text
from .layers.base import TRAIN, ParamShape

# What a data layer's source says of its tops, by name; nothing where there is no source. Raises InspectorError for a broken one.
Look = Callable[[Node], Mapping[str, Shape]]


def infer(graph: Graph, given: Mapping[str, Shape] | None = None, look: Look | None = None) -> Graph:
    """Fill in every shape, parameter and loss weight, then cut the graph where Caffe would stop.

    `given` names shapes of blobs that the prototxt alone does not settle: tops of data layers (some or all of them), of Input
    layers, and of layers of unknown type. What it does not name of a data layer, `look` may know. After a refusal the layer's tops
    are unknown, and inference goes on with what does not depend on them.
    """
    given = dict(given or {})
    shared: dict[str, Param] = {}
    belated: Refusal | None = None  # met by a data layer's thread, while the next layer is set up
    for node in graph.nodes:
        try:
            if belated is not None:
                raise belated
            _set_up(graph, node, _seen(graph, node, given, look) if look and node.layer.data else given)
        except Refusal as refusal:
            graph.refuse(refusal, node, SETUP)
            belated = None
            continue
        belated = _mirrors_in_test(node)
        try:
            _share(graph, node, shared)
        except Refusal as refusal:
            graph.refuse(refusal, node, PARAMS)
    if graph.proto.layers:
        multipliers.check(graph)
    graph.cut()
    for name in given.keys() - {blob.name for node in graph.nodes for blob in node.tops}:
        graph.notes.append(Finding("given-unknown-blob", f"a shape is given for '{name}', which is no blob of this net", "warning"))
    return graph


def _mirrors_in_test(node: Node) -> Refusal | None:
    """A Data layer that mirrors crops in TEST, in an edition where that stops its thread."""
    transform = node.layer.proto.transform_param
    if not (node.layer.edition.mirror_needs_training and node.type == "Data" and transform.mirror and transform.crop_size):
        return None
    if node.layer.phase == TRAIN:
        return None
    message = "mirrors in TEST, and random numbers are prepared for TRAIN only"
    return Refusal(message, code="mirror-in-test", layer=node.name, layer_type=node.type, remedy="set mirror: false")


def _seen(graph: Graph, node: Node, given: Mapping[str, Shape], look: Look) -> Mapping[str, Shape]:
    """What is given, with what the layer's source says of the rest; a batch of another size than its own changes that too."""
    names = {blob.name for blob in node.tops}
    if names <= given.keys():
        return given
    try:
        seen = look(node)
    except InspectorError as error:
        where = graph.locate(node.origin) if node.origin else None
        graph.notes.append(replace(error.finding, severity="warning", where=error.finding.where or where))
        return given
    batch = next((shape[:1] for name, shape in given.items() if name in names and shape), None)
    return {**{name: shape if batch is None else (*batch, *shape[1:]) for name, shape in seen.items()}, **given}


def _set_up(graph: Graph, node: Node, given: Mapping[str, Shape]) -> None:
    layer = node.layer
    layer.check_counts(len(node.bottoms))
    wanted = {blob.name: tuple(given[blob.name]) for blob in node.tops if blob.name in given}
    if layer.data:
        layer.given = wanted  # type: ignore[attr-defined]  # every data layer has it
    bottoms = [blob.shape for blob in node.bottoms]
    known = [shape for shape in bottoms if shape is not None]
    shapes: list[Shape | None] = [None] * len(node.tops)
    if len(known) == len(bottoms) and not isinstance(layer, Unknown):
        shapes = list(layer.shapes(*known))
    for i, (blob, shape) in enumerate(zip(node.tops, shapes, strict=True)):
        if blob.name in wanted and shape is None:
            shape = wanted[blob.name]
        elif blob.name in wanted and shape != wanted[blob.name] and not layer.data:  # a source crops what is given
            graph.notes.append(_given_ignored(graph, node, i, shape, wanted[blob.name]))
        if shape is not None:
            blob.shape = _legacy_blob(layer.check_blob(tuple(shape)), graph.edition.nd_blobs)
    for sentence in getattr(layer, "assumptions", ()):
        where = graph.locate(node.origin) if node.origin else None
        graph.notes.append(Finding("assumed-shape", sentence, "note", where, node.name, node.type))
    node.loss_weights = _loss_weights(node)
    node.params = None
    if len(known) == len(bottoms) and all(shape is not None for shape in shapes):
        specs = node.layer.proto.param
        node.params = [
            _param(graph, node, i, shape, specs[i] if i < len(specs) else None) for i, shape in enumerate(layer.params(*known))
        ]


def _param(graph: Graph, node: Node, index: int, declared: ParamShape, spec: Any) -> Param:
    shape = _legacy_param(node.layer.check_blob(declared.shape), graph.edition.nd_blobs)
    if declared.filler is not None:
        fillers.check(declared.filler, shape, graph.edition)
    param = Param(declared.name, shape, node, index, filler=declared.filler)
    if spec is not None:
        param.lr_mult, param.decay_mult, param.shared_name = spec.lr_mult, spec.decay_mult, spec.name
    if declared.fixed:
        param.lr_mult = 0.0
    return param


def _given_ignored(graph: Graph, node: Node, top: int, shape: Shape | None, wanted: Shape) -> Finding:
    return Finding(
        "given-ignored",
        f"top '{node.tops[top].name}' follows from its bottoms: {shape_text(shape or ())}, and not the given {shape_text(wanted)}",
        "warning",
        graph.locate(node.origin) if node.origin else None,
        node.name,
        node.type,
        "give the shape of the net's input instead",
    )


def _loss_weights(node: Node) -> list[float]:
    """Weights of the tops (Layer::SetLossWeights; LossLayer::LayerSetUp gives itself one weight of 1 when there is none)."""
    layer = node.layer
    weights = list(layer.proto.loss_weight)
    if not weights:
        weights = [1.0] if layer.loss else [0.0] * len(node.tops)
    if not layer.edition.loss_weights:
        return [0.0] * len(node.tops)
    if len(weights) != len(node.tops):
        layer.refuse(
            "loss-weight-count",
            f"has {len(node.tops)} tops and {len(weights)} loss weight(s)",
            remedy="give loss_weight once for each top",
            a=len(node.tops),
            b=len(weights),
        )
    return weights


def _share(graph: Graph, node: Node, shared: dict[str, Param]) -> None:
    """Parameters that several layers use by name (Net::AppendParam), with its dimension and multiplier checks."""
    specs = node.layer.proto.param
    if node.params is None:
        return
    if len(specs) > len(node.params) and node.layer.checks("too-many-params"):
        node.layer.refuse(
            "too-many-params",
            f"has {len(specs)} param fields and {len(node.params)} parameter blob(s)",
            remedy="remove the param fields that have no blob",
            a=len(specs),
            b=len(node.params),
        )
    for param, spec in zip(node.params, specs, strict=False):
        if not param.shared_name:
            continue
        owner = shared.setdefault(param.shared_name, param)
        if owner is param:
            continue
        param.shared_from = owner
        permissive = spec.share_mode == type(spec).PERMISSIVE
        if not permissive and not graph.edition.nd_blobs:
            node.layer.check_same_axes("shared", param.shape, owner.shape, since=0)
        if count(param.shape) != count(owner.shape) if permissive else param.shape != owner.shape:
            node.layer.refuse(
                "shared-count" if permissive else "shared-shape",
                f"shares parameter '{param.shared_name}' of layer '{owner.node.name}', which is {shape_text(owner.shape)}; "
                f"this layer needs {shape_text(param.shape)}",
                remedy="give both layers the same settings, or the parameters different names",
                param=param.shared_name,
                owner=owner.node.name,
                a=count(param.shape),
                b=count(owner.shape),
                owner_shape=owner.shape,
                shape=param.shape,
            )
        for name in ("lr_mult", "decay_mult"):
            if node.layer.checks("shared-" + name.replace("_", "-")):
                _share_multiplier(node, param, owner, spec, name)


def _share_multiplier(node: Node, param: Param, owner: Param, spec: Any, name: str) -> None:
    """The first layer that states a multiplier of a shared parameter settles it; a later one may only repeat it."""
    if not spec.HasField(name):
        return
    ours, theirs = getattr(spec, name), getattr(owner, name)
    owner_specs = owner.node.layer.proto.param
    stated = owner.index < len(owner_specs) and owner_specs[owner.index].HasField(name)
    if not stated and name not in owner.stated:
        owner.stated.add(name)
        setattr(owner, name, ours)
    elif ours != theirs:
        node.layer.refuse(
            "shared-" + name.replace("_", "-"),
            f"shares parameter '{param.shared_name}' with {name} {ours:g}, and layer '{owner.node.name}' has {theirs:g}",
            remedy="give both the same",
            param=param.shared_name,
            a=ours,
            b=theirs,
        )


def _legacy_blob(shape: Shape, nd: bool) -> Shape:
    """Before rc3 every blob has four axes; missing ones are 1 and stand last."""
    return shape if nd else shape + (1,) * (4 - len(shape))


def _legacy_param(shape: Shape, nd: bool) -> Shape:
    """Before rc3 a parameter's missing axes stand first: weights of 1 x 1 x outputs x inputs."""
    return shape if nd else (1,) * (4 - len(shape)) + shape
