"""How each Caffe version behaved where it matters for a net's graph, shapes and memory: flags, no code.

A flag is read where the rule lives (`splits`, `graph`, `layers`, `memory`); nothing ever compares an edition's name.
Sources: the BVLC history between v0.99 (March 2014) and master (2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Arity = int | tuple[int, int | None]  # blobs that a layer takes or makes: exactly, or (least, most)


@dataclass(frozen=True, slots=True)
class Edition:
    """Behaviour of one Caffe version; the defaults are those of BVLC master."""

    name: str
    nd_blobs: bool = True  # since rc3 a blob has any number of axes; before, always num, channels, height, width
    split_keeps_name: bool = False  # up to v0.9999 a split's first top is the blob itself, in place
    automatic_tops: bool = True  # a loss layer without tops gets one; before rc it has none
    loss_weights: bool = True  # losses are weighted tops, and a weighted top that is read elsewhere is split
    input_layers: bool = True  # since rc4 `input:` fields become an Input layer
    state: str = "caller"  # whose phase and level win: the "caller"'s, (rc2, rc3) his "phase" only, (to rc) the "file"'s
    memory: str = "all"  # "all" tops | "not_in_place" (v0.99) | "inputs" (v0.9999) | "all_but_inputs" (rc to rc3)
    backward: str = "losses"  # "losses": only what lies under a loss | "forward": whatever follows a learnable layer
    force_at_once: bool = False  # up to v0.999 force_backward counts as a need of every layer, and the log says so
    upgrades: tuple[str, ...] = ("v0", "transform", "v1")  # that it had; it built from the last one's result
    propagate_down: str = "decides"  # a stated propagate_down "decides" on a bottom's need, or (rc3) only "narrows" it
    learns: str = "nonzero"  # a parameter learns if its lr_mult is "nonzero", or (up to rc2) if it is "positive"
    losses_by_num: bool = False  # up to rc3 losses compare batches by `num`, which only blobs of up to four axes have
    fillers_by_num: bool = False  # up to 1.0 most fillers went by `num`, so that blobs of more than four axes had none
    retired_types: tuple[str, ...] = ()  # layer types that it had and master has not
    absent_types: tuple[str, ...] = ()  # layer types that only later versions had
    bottoms: Mapping[str, Arity] = field(default_factory=dict, hash=False)  # by layer type, where it took other numbers
    tops: Mapping[str, Arity] = field(default_factory=dict, hash=False)
    accuracy_pair: bool = False  # up to v0.999 Accuracy gives the mean log likelihood too, in the same blob
    pooling_clips: bool = True  # since v0.9999 a padded window that would start behind the image is dropped
    pooling_pads_in_v0: bool = True  # since v0.9999 the upgrade of V0 takes the pad of a pooling layer
    mirror_needs_training: bool = False  # v0.999 asks for random numbers that it prepares for TRAIN only
    debug: bool = False  # built for debugging: what a release build does not check is checked
    absent_fillers: tuple[str, ...] = ()  # fillers that only later versions had
    unchecked: tuple[str, ...] = ()  # codes of refusals that a later version introduced


MASTER = Edition("master")
