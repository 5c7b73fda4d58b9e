"""Proto to graph, one pass after the other: what Net::Init does in one loop."""

from __future__ import annotations

from collections.abc import Mapping

from . import graph as graphs
from . import needs, phases, shapes, splits
from .draft import Draft
from .editions import MASTER, Edition
from .graph import Graph
from .layers import Shape
from .shapes import Look


def build(
    draft: Draft,
    given: Mapping[str, Shape] | None = None,
    edition: Edition = MASTER,
    *,
    allow_python: bool = False,
    look: Look | None = None,
) -> Graph:
    """The graph of an upgraded draft, in the phase that `draft.proto.state` says; `look` opens sources, as `shapes.infer` says."""
    draft = phases.select(draft)
    filtered = draft.proto if draft.written is None else draft.written
    draft = splits.insert(draft, edition)
    graph = graphs.connect(draft, filtered, edition, allow_python=allow_python)
    graph = shapes.infer(graph, given, look)
    return needs.mark(graph)
