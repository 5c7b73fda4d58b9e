"""Who runs backward: the passes over a finished net at the end of Net::Init."""

from __future__ import annotations

from typing import Any

from .editions import Edition
from .graph import Blob, Graph


def mark(graph: Graph) -> Graph:
    """Set `backward` and `bottom_backward` of every node.

    Forward: a layer needs backward if a blob that it reads does, or one of its params has a learning rate (as the *net* states it:
    a BatchNorm, which zeroes its own, still counts). Backward: it keeps the need only where it leads to a loss. Caffe goes by blob
    names here, so an in-place chain shares one fate. force_backward comes last and changes no line of the log, but in the first
    editions, which have no backward pass either.
    """
    forced = graph.edition.force_at_once and graph.proto.force_backward
    needing: set[Blob] = set()
    for node in graph.nodes:
        proto = node.layer.proto
        reads = [blob.root in needing for blob in node.bottoms]
        node.bottom_backward = _stated(list(proto.propagate_down), reads, graph.edition)
        learns = any(_learns(proto.param, i, graph.edition) for i in range(len(node.params or ())))
        node.backward = any(reads) or learns or forced
        if node.backward:
            needing.update(blob.root for blob in node.tops)
    if graph.edition.backward == "forward":
        return graph

    under_loss: set[str] = set()
    skipped: set[str] = set()
    for node in reversed(graph.nodes):
        names = [blob.name for blob in node.tops]
        contributes = any(w != 0 or name in under_loss for w, name in zip(node.loss_weights, names, strict=True))
        if graph.edition.propagate_down != "ignored" and all(name in skipped for name in names):
            if node.backward:
                node.bottom_backward = [False] * len(node.bottoms)
            node.backward = False
        if not contributes:
            node.backward = False
            node.bottom_backward = [False] * len(node.bottoms)
        for blob, needs in zip(node.bottoms, node.bottom_backward, strict=True):
            if contributes:
                under_loss.add(blob.name)
            if not needs:
                skipped.add(blob.name)
    return graph


def _stated(stated: list[bool], reads: list[bool], edition: Edition) -> list[bool]:
    """Which bottoms get a gradient, after what propagate_down says of them (Net::AppendBottom)."""
    if not stated or edition.propagate_down == "ignored":
        return reads
    if edition.propagate_down == "narrows":
        return [wanted and needed for wanted, needed in zip(stated, reads, strict=False)]
    return stated


def _learns(specs: Any, index: int, edition: Edition) -> bool:
    """Whether a parameter has a learning rate; the default multiplier is 1."""
    rate = specs[index].lr_mult if index < len(specs) else 1.0
    return rate > 0 if edition.learns == "positive" else rate != 0
