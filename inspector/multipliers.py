"""Learning rates and weight decays of V0 and V1 layers: `blobs_lr` and `weight_decay`, once for each parameter blob or not at all.

Today's `param` messages took their place, and with them went these checks, in Net::Init and in GetLearningRateAndWeightDecay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import Refusal
from .graph import COLLECT, PARAMS, Graph, Node


def check(graph: Graph) -> None:
    """Refuse what the editions refused that built from V0 or V1 layers, which `graph.proto` then holds, splits left out."""
    written = iter(graph.proto.layers)
    for node in graph.nodes:
        if node.origin is None:
            continue
        layer = next(written)
        if node.params is None:
            continue
        settings = layer.layer if layer.HasField("layer") else layer
        if not _check_counts(graph, node, layer, settings):
            _check_signs(graph, node, settings)


def _check_counts(graph: Graph, node: Node, layer: Any, settings: Any) -> bool:
    """While the layer is made: each list has one entry for each blob, or none. True if it was refused."""
    blobs = len(node.params or ())
    for field, values in (("blobs_lr", settings.blobs_lr), ("param", layer.param), ("blob_share_mode", layer.blob_share_mode)):
        if values and len(values) != blobs:
            _refuse(graph, node, PARAMS, field.replace("_", "-") + "-count", field, values, blobs)
            return True
    return False


def _check_signs(graph: Graph, node: Node, settings: Any) -> None:
    """When all layers are made: no multiplier is negative."""
    blobs = len(node.params or ())
    for field, values in (("blobs_lr", settings.blobs_lr), ("weight_decay", settings.weight_decay)):
        code = field.replace("_", "-")
        if values and len(values) != blobs:
            _refuse(graph, node, COLLECT, code + "-count", field, values, blobs)
            return
        negative = next((value for value in values if value < 0), None)
        if negative is not None:
            refusal = Refusal(f"has {field} {negative:g}", code=code + "-negative", remedy="use 0 or more", a=negative, b=0)
            graph.refuse(refusal, node, COLLECT, cuts=False)
            return


def _refuse(graph: Graph, node: Node, moment: int, code: str, field: str, values: Sequence[Any], blobs: int) -> None:
    refusal = Refusal(
        f"gives {field} {len(values)} time(s) and has {blobs} parameter blob(s)",
        code=code,
        remedy=f"give {field} once for each blob, or not at all",
        a=len(values),
        b=blobs,
    )
    graph.refuse(refusal, node, moment, cuts=moment == PARAMS)
