"""Memory: what Caffe's "Memory required for data" counts, in each edition."""

from __future__ import annotations

from collections.abc import Iterator

from .graph import Graph, Node

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
