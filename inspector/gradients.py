"""Which gradients a backward pass computes."""

from __future__ import annotations

from dataclasses import dataclass

from .graph import Blob, Graph, Node


@dataclass(frozen=True, slots=True)
class Gradients:
    """For each node that runs backward: of each bottom, then of each parameter, whether its gradient is wanted."""

    wanted: dict[Node, tuple[bool, ...]]
    assumed: bool  # nothing in the net asks for a gradient, so a loss is supposed on every output


def of(graph: Graph) -> Gradients:
    """What Caffe would compute (Net::Init); a net without a loss is taken as if there were one on every output."""
    found = {
        node: (*node.bottom_backward, *(param.lr_mult != 0 for param in node.params or ())) for node in graph.nodes if node.backward
    }
    if found:
        return Gradients(found, assumed=False)
    needing: set[Blob] = set()
    for node in graph.nodes:
        params = [param.lr_mult != 0 for param in node.params or ()]
        bottoms = [blob.root in needing for blob in node.bottoms]
        if any(params) or any(bottoms):
            needing.update(blob.root for blob in node.tops)
            found[node] = (*bottoms, *params)
    return Gradients(found, assumed=bool(found))
