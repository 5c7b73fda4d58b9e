"""Memory of a net: Caffe's own figure, and what its blobs really take.

Caffe's "Memory required for data" adds up every top, in each edition in its own way. Really, an in-place layer writes where it
reads, and some layers let a top use its bottom's memory (Caffe's ShareData): then there is one *buffer*, counted once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from . import gradients
from .gradients import Gradients
from .graph import Blob, Graph, Node

FLOAT = 4  # bytes of Caffe's Dtype in the `caffe` tool and in pycaffe


def counted(graph: Graph, node: Node) -> int:
    """Bytes that this node adds to Caffe's figure: every top, in-place ones again; unknown shapes count nothing.

    v0.99 leaves out a layer with any in-place top, v0.9999 counts tops before they have a size, and rc to rc3 leave out the inputs,
    which are no layers there.
    """
    if graph.edition.memory == "inputs":
        return 0
    if graph.edition.memory == "not_in_place" and any(node.in_place(i) for i in range(len(node.tops))):
        return 0
    return FLOAT * sum(blob.count or 0 for blob in node.tops)


def of_inputs(graph: Graph) -> int:
    """Bytes of inputs that are no layer's tops, where the edition counts them."""
    if graph.edition.memory not in ("inputs", "not_in_place"):
        return 0
    return FLOAT * sum(blob.count or 0 for blob in graph.net_inputs)


def running(graph: Graph) -> Iterator[int]:
    """Caffe's figure after each node."""
    total = of_inputs(graph)
    for node in graph.nodes:
        total += counted(graph, node)
        yield total


def required(graph: Graph) -> int:
    """Caffe's figure for the whole net, in bytes."""
    return of_inputs(graph) + sum(counted(graph, node) for node in graph.nodes)


# ---- buffers


def aliased(node: Node, top: int) -> Blob | None:
    """The bottom whose memory a top uses without being in place: Split, Flatten, Reshape, Concat of one, Slice into one."""
    shares = node.type in ("Split", "Flatten", "Reshape")
    shares = shares or (node.type in ("Concat", "Slice") and len(node.bottoms) == len(node.tops) == 1)
    return node.bottoms[0] if shares else None


def buffer(blob: Blob, *, diff: bool = False) -> Blob:
    """The blob that stands for the memory of this one's data, or of its gradient: each top of a Split has a gradient of its own."""
    while True:
        below = blob.in_place_of
        if below is None and blob.maker is not None and not (diff and blob.maker.type == "Split"):
            below = aliased(blob.maker, next(i for i, top in enumerate(blob.maker.tops) if top is blob))
        if below is None:
            return blob
        blob = below


def bytes_of(blob: Blob) -> int:
    """What its numbers take; nothing while its shape is unknown."""
    return FLOAT * (blob.count or 0)


@dataclass(frozen=True, slots=True)
class Use:
    """What one node needs, in bytes. `data` and `diff` are buffers that begin with it; `live` is all data alive while it runs."""

    data: int
    diff: int
    workspace: int
    live: int


def uses(graph: Graph, wanted: Gradients | None = None) -> list[Use]:
    """Node by node. A buffer lives from the layer that makes it to the last one that reads it, a net's output to the end.

    Gradients are kept wherever backward reaches: the bottoms whose gradient is wanted, and the tops of layers that run backward.
    """
    wanted = wanted or gradients.of(graph)
    last: dict[Blob, int] = {}
    for i, node in enumerate(graph.nodes):
        last.update((buffer(blob), i) for blob in (*node.bottoms, *node.tops))
    for name in graph.outputs:
        if name in graph.blobs:
            last[buffer(graph.blobs[name])] = len(graph.nodes)
    diffs: set[Blob] = set()
    for node, flags in wanted.wanted.items():
        diffs.update(buffer(blob, diff=True) for blob, want in zip(node.bottoms, flags, strict=False) if want)
        diffs.update(buffer(blob, diff=True) for blob in node.tops)
    alive = {blob: bytes_of(blob) for blob in graph.net_inputs}
    found = []
    for i, node in enumerate(graph.nodes):
        begun = [blob for blob in node.tops if buffer(blob) is blob]
        alive.update((blob, bytes_of(blob)) for blob in begun)
        diff = sum(bytes_of(blob) for blob in node.tops if blob in diffs)
        found.append(Use(sum(map(bytes_of, begun)), diff, workspace(node), sum(alive.values())))
        alive = {blob: size for blob, size in alive.items() if last.get(blob, i) > i}
    return found


def workspace(node: Node) -> int:
    """Bytes of the buffer into which Caffe's layer unrolls one image (im2col); each convolution has its own."""
    bottoms = [blob.shape for blob in node.bottoms if blob.shape is not None]
    tops = [blob.shape for blob in node.tops if blob.shape is not None]
    if len(bottoms) < len(node.bottoms) or len(tops) < len(node.tops):
        return 0
    return FLOAT * node.layer.workspace(bottoms, tops)
