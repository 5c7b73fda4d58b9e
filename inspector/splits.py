"""One reader per blob: a Split layer wherever a blob is read more than once, with Caffe's names (insert_splits.cpp)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from caffe_proto import caffe_pb2

from .draft import Draft, Event, Path
from .editions import MASTER, Edition
from .errors import SUGGESTIONS, Refusal, closest

Place = tuple[int, int]  # layer index, top index; layer -1 is the net's inputs


def layer_name(maker: str, blob: str, top: int) -> str:
    """Name of the split of `blob`, made by layer `maker` as its top number `top`."""
    return f"{blob}_{maker}_{top}_split"


def insert(draft: Draft, edition: Edition = MASTER) -> Draft:
    """The net with Split layers. A bottom that nobody makes is left as it is and becomes the draft's error, where Caffe stops."""
    source = draft.proto
    last_maker: dict[str, Place] = {blob: (-1, i) for i, blob in enumerate(source.input)}
    read_from: dict[Place, Place] = {}  # (layer, bottom) -> the top that it reads
    uses: dict[Place, int] = {}
    weight: dict[Place, float] = {}
    events: list[Event] = []

    for i, layer in enumerate(source.layer):
        for j, blob in enumerate(layer.bottom):
            place = last_maker.get(blob)
            if place is None:
                events.append(Event.refused(unknown_bottom(draft, i, j, last_maker if len(events) < SUGGESTIONS else ())))
                continue
            read_from[i, j] = place
            uses[place] = uses.get(place, 0) + 1
        for j, blob in enumerate(layer.top):
            last_maker[blob] = (i, j)
        if edition.loss_weights:
            for blob, value in zip(layer.top, layer.loss_weight, strict=False):
                place = last_maker[blob]
                weight[place] = value
                if value:  # being a loss is one more use
                    uses[place] = uses.get(place, 0) + 1

    out = caffe_pb2.NetParameter()
    out.CopyFrom(source)
    out.ClearField("layer")
    origins: list[Path | None] = []
    next_split: dict[Place, int] = {}

    def split_blob(maker: str, blob: str, place: Place, k: int) -> str:
        return blob if k == 0 and edition.split_keeps_name else f"{layer_name(maker, blob, place[1])}_{k}"

    def add_split(maker: str, blob: str, place: Place) -> None:
        split = out.layer.add(name=layer_name(maker, blob, place[1]), type="Split", bottom=[blob])
        split.top.extend(split_blob(maker, blob, place, k) for k in range(uses[place]))
        if weight.get(place):
            split.loss_weight.extend([weight[place]] + [0.0] * (uses[place] - 1))
            next_split[place] = 1  # the first top is the loss itself
        origins.append(None)

    for j, blob in enumerate(source.input):
        if uses.get((-1, j), 0) > 1:
            add_split("input", blob, (-1, j))
    for i, layer in enumerate(source.layer):
        copy = out.layer.add()
        copy.CopyFrom(layer)
        origins.append(draft.origins[i])
        for j, blob in enumerate(layer.bottom):
            place = read_from.get((i, j))
            if place is not None and uses[place] > 1:
                maker = source.layer[place[0]].name if place[0] >= 0 else "input"
                k = next_split.get(place, 0)
                next_split[place] = k + 1
                copy.bottom[j] = split_blob(maker, blob, place, k)
        for j, blob in enumerate(layer.top):
            if uses.get((i, j), 0) > 1:
                add_split(layer.name, blob, (i, j))
                if weight.get((i, j)):
                    copy.ClearField("loss_weight")  # all of them, as Caffe does
    return draft.then(out, tuple(origins), events)


def unknown_bottom(draft: Draft, layer: int, bottom: int, known: Iterable[str]) -> Refusal:
    """The Refusal for a bottom that no earlier layer makes, with a suggestion where a name comes close."""
    proto: Any = draft.proto.layer[layer]
    origin = draft.origins[layer]
    blob = proto.bottom[bottom]
    close = closest(blob, known)
    if blob in draft.left_out:
        remedy = f"layer '{draft.left_out[blob]}' makes it, but its rules leave it out here: choose another phase, level or stage"
    elif close:
        remedy = f"did you mean '{close}'?"
    else:
        remedy = "check the blob's name"
    return Refusal(
        f"bottom {bottom} is '{blob}', which no layer before it makes",
        code="unknown-bottom",
        where=draft.locate((*origin, "bottom", bottom)) if origin else None,
        layer=proto.name,
        layer_type=proto.type,
        remedy=remedy,
        blob=blob,
        bottom=bottom,
    )
