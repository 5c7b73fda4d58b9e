"""Which layers a net keeps: include and exclude rules against a NetState (Net::FilterNet and Net::StateMeetsRule)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from caffe_proto import caffe_pb2

from .draft import FILTERED, Draft, Event, Path
from .editions import MASTER, Edition
from .errors import Refusal


def set_state(proto: Any, phase: int, level: int = 0, stages: Sequence[str] = (), edition: Edition = MASTER) -> Any:
    """A copy of the net with its state as Caffe sets it when it opens a file: the caller's phase and level win, stages add up."""
    out: Any = caffe_pb2.NetParameter()
    out.CopyFrom(proto)
    if edition.state != "file" or not out.state.HasField("phase"):
        out.state.phase = phase
    out.state.stage.extend(stages)
    if level or edition.state == "caller":
        out.state.level = level
    return out


def write_state(draft: Draft, state: Any) -> Draft:
    """The state that a solver gives its net, in the net as an older edition had it too: what such an edition then prints."""
    if draft.written is None:
        return draft
    written = caffe_pb2.NetParameter()
    written.CopyFrom(draft.written)
    written.state.CopyFrom(state)
    return replace(draft, written=written)


def mismatch(state: Any, rule: Any) -> tuple[str, dict[str, Any]] | None:
    """The first clause of a NetStateRule that the NetState does not meet, as (kind, values), or None when the rule is met."""
    if rule.HasField("phase") and rule.phase != state.phase:
        return "phase", {"have": state.phase, "rule": rule.phase}
    if rule.HasField("min_level") and state.level < rule.min_level:
        return "min-level", {"have": state.level, "rule": rule.min_level}
    if rule.HasField("max_level") and state.level > rule.max_level:
        return "max-level", {"have": state.level, "rule": rule.max_level}
    for stage in rule.stage:
        if stage not in state.stage:
            return "stage", {"rule": stage}
    for stage in rule.not_stage:
        if stage in state.stage:
            return "not-stage", {"rule": stage}
    return None


def select(draft: Draft) -> Draft:
    """The net without the layers that its state leaves out. Every rule that was tried and not met is an event."""
    source = draft.proto
    out = caffe_pb2.NetParameter()
    out.CopyFrom(source)
    out.ClearField("layer")
    written = None
    if draft.written is not None:
        written = caffe_pb2.NetParameter()
        written.CopyFrom(draft.written)
        written.ClearField("layers")
    events: list[Event] = []
    origins: list[Path | None] = []
    left_out: dict[str, str] = {}

    def meets(rule: Any, layer: Any) -> bool:
        failed = mismatch(source.state, rule)
        if failed:
            kind, values = failed
            events.append(Event("rule-" + kind, {**values, "layer": layer.name}))
        return failed is None

    for i, (layer, origin) in enumerate(zip(source.layer, draft.origins, strict=True)):
        if layer.include and layer.exclude:
            refusal = Refusal(
                f"has {len(layer.include)} include and {len(layer.exclude)} exclude rules",
                code="include-and-exclude",
                layer=layer.name,
                layer_type=layer.type,
                where=draft.locate((*origin, "exclude", 0)) if origin else None,
                remedy="keep one kind",
            )
            events.append(Event.refused(refusal))
            continue
        # any() stops at the first rule that is met, and so do Caffe's messages
        kept = (
            any(meets(rule, layer) for rule in layer.include)
            if layer.include
            else not any(meets(rule, layer) for rule in layer.exclude)
        )
        if kept:
            out.layer.add().CopyFrom(layer)
            origins.append(origin)
            if written is not None:
                written.layers.add().CopyFrom(draft.written.layers[i])
        else:
            left_out.update(dict.fromkeys(layer.top, layer.name))
    return replace(draft.then(out, tuple(origins), [*events, Event(FILTERED)]), written=written, left_out=left_out)
