"""Who runs backward: the passes over a finished net at the end of Net::Init."""

from __future__ import annotations

from .graph import Blob, Graph


def mark(graph: Graph) -> Graph:
    """Set `backward` and `bottom_backward` of every node.

    Forward: a layer needs backward if a blob that it reads does, or one of its params has a learning rate (as the *net* states it:
    a BatchNorm, which zeroes its own, still counts). Backward: it keeps the need only where it leads to a loss. Caffe goes by blob
    names here, so an in-place chain shares one fate. force_backward comes last and changes no line of the log.
    """
    needing: set[Blob] = set()
    for node in graph.nodes:
        proto = node.layer.proto
        reads = [blob.root in needing for blob in node.bottoms]
        node.bottom_backward = list(proto.propagate_down) if proto.propagate_down else reads
        specs = proto.param
        learns = any(i >= len(specs) or specs[i].lr_mult != 0 for i in range(len(node.params or ())))
        node.backward = any(reads) or learns
        if node.backward:
            needing.update(blob.root for blob in node.tops)

    under_loss: set[str] = set()
    skipped: set[str] = set()
    for node in reversed(graph.nodes):
        names = [blob.name for blob in node.tops]
        contributes = any(w != 0 or name in under_loss for w, name in zip(node.loss_weights, names, strict=True))
        if all(name in skipped for name in names):
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


def force(graph: Graph) -> None:
    """What `force_backward` adds for the executor, after the log has been said: every layer that allows it, every bottom."""
    for node in graph.nodes:
        node.backward = True
        node.bottom_backward = [b or node.layer.can_force_backward(i) for i, b in enumerate(node.bottom_backward)]
