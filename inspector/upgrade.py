"""Older generations to today's, as Caffe does it when it opens a file (upgrade_proto.cpp): V0 to V1 to V2, transformation fields,
input fields, BatchNorm's params; and a solver's old `solver_type`.

Each pass is a pure function of messages. Where Caffe refuses, the pass says so in the draft and goes on as well as it can, so that
a summary can still show the net.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from caffe_proto import caffe_pb2

from .draft import REFUSED, Draft, Event, Path
from .editions import MASTER, Edition
from .errors import Refusal

V1_NAMES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "ELTWISE": "Eltwise",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "SLICE": "Slice",
    "TANH": "TanH",
    "WINDOW_DATA": "WindowData",
    "THRESHOLD": "Threshold",
}

V0_NAMES = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}

_CONV, _FC = ("conv", "convolution_param"), ("innerproduct", "inner_product_param")
_POOL, _LRN = ("pool", "pooling_param"), ("lrn", "lrn_param")
_DATA, _HDF5, _IMAGES = ("data", "data_param"), ("hdf5_data", "hdf5_data_param"), ("images", "image_data_param")
_WINDOW = ("window_data", "window_data_param")

# V0 field -> today's name in each settings message that takes it over, in the order in which Caffe asks for them;
# a field that no listed type takes is reported and dropped
V0_FIELDS: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "num_output": ("num_output", (_CONV, _FC)),
    "biasterm": ("bias_term", (_CONV, _FC)),
    "weight_filler": ("weight_filler", (_CONV, _FC)),
    "bias_filler": ("bias_filler", (_CONV, _FC)),
    "pad": ("pad", (_CONV, _POOL)),
    "kernelsize": ("kernel_size", (_CONV, _POOL)),
    "group": ("group", (_CONV,)),
    "stride": ("stride", (_CONV, _POOL)),
    "pool": ("pool", (_POOL,)),
    "dropout_ratio": ("dropout_ratio", (("dropout", "dropout_param"),)),
    "local_size": ("local_size", (_LRN,)),
    "alpha": ("alpha", (_LRN,)),
    "beta": ("beta", (_LRN,)),
    "k": ("k", (_LRN,)),
    "source": ("source", (_DATA, _HDF5, _IMAGES, _WINDOW, ("infogain_loss", "infogain_loss_param"))),
    "scale": ("scale", (("", "transform_param"),)),
    "meanfile": ("mean_file", (("", "transform_param"),)),
    "batchsize": ("batch_size", (_DATA, _HDF5, _IMAGES, _WINDOW)),
    "cropsize": ("crop_size", (("", "transform_param"),)),
    "mirror": ("mirror", (("", "transform_param"),)),
    "rand_skip": ("rand_skip", (_DATA, _IMAGES)),
    "shuffle_images": ("shuffle", (_IMAGES,)),
    "new_height": ("new_height", (_IMAGES,)),
    "new_width": ("new_width", (_IMAGES,)),
    "concat_dim": ("concat_dim", (("concat", "concat_param"),)),
    "det_fg_threshold": ("fg_threshold", (_WINDOW,)),
    "det_bg_threshold": ("bg_threshold", (_WINDOW,)),
    "det_fg_fraction": ("fg_fraction", (_WINDOW,)),
    "det_context_pad": ("context_pad", (_WINDOW,)),
    "det_crop_mode": ("crop_mode", (_WINDOW,)),
    "hdf5_output_param": ("", (("hdf5_output", "hdf5_output_param"),)),
}

# the same for editions that had no transform_param: the fields stayed with the data layers, and not all had all of them
V0_UNTRANSFORMED: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    **V0_FIELDS,
    "scale": ("scale", (_DATA, _IMAGES)),
    "meanfile": ("mean_file", (_DATA, _IMAGES, _WINDOW)),
    "cropsize": ("crop_size", (_DATA, _IMAGES, _WINDOW)),
    "mirror": ("mirror", (_DATA, _IMAGES, _WINDOW)),
}

# fields of V0 that im2col read while V0 was all there was; the upgrade forgot them
V0_IM2COL = {"pad": "pad", "kernelsize": "kernel_size", "stride": "stride"}

# data layers whose transformation fields moved into transform_param
TRANSFORMED = {"DATA": "data_param", "IMAGE_DATA": "image_data_param", "WINDOW_DATA": "window_data_param"}
TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")


def net(draft: Draft, edition: Edition = MASTER) -> Draft:
    """Every upgrade that the net needs, in Caffe's order; the result has only `layer` fields (UpgradeNetAsNeeded).

    An edition that builds from an older generation stops there: `written` keeps that net, and what follows is ours alone and says
    nothing.
    """
    proto = draft.proto
    field = "layers" if proto.layers else "layer"
    draft = replace(draft, origins=tuple((field, i) for i in range(len(proto.layers or proto.layer))))
    for name, needed, upgrade in PASSES:
        if draft.written is None and name not in edition.upgrades and not proto.layer:
            draft = replace(draft, written=draft.proto)
        if needed(draft.proto):
            said = draft.events
            draft = upgrade(draft, edition)
            if draft.written is not None:
                draft = replace(draft, events=said)
    if edition.input_layers and proto.input:
        draft = _input(draft)
    if edition.input_layers and any(map(_old_batch_norm, draft.proto.layer)):
        draft = _batch_norm(draft)
    return draft


def is_v0(proto: Any) -> bool:
    """Whether any layer is of the first generation: a `layer { ... }` inside a `layers { ... }`."""
    return any(layer.HasField("layer") for layer in proto.layers)


def _v0(draft: Draft, edition: Edition = MASTER) -> Draft:
    """V0 to V1 (UpgradeV0Net). Like Caffe's it keeps name, input, input_dim and force_backward and drops everything else.

    An edition that built from V0 itself had padding layers of their own.
    """
    padded, origins, events = _fold_padding(draft) if "v0" in edition.upgrades else (draft.proto.layers, draft.origins, [])
    events.insert(0, Event("upgrade-v0"))
    fields = V0_FIELDS if "transform" in edition.upgrades else V0_UNTRANSFORMED
    if not edition.pooling_pads_in_v0:
        fields = {**fields, "pad": ("pad", (_CONV,))}
    if "v0" not in edition.upgrades:
        for field, name in V0_IM2COL.items():
            fields = {**fields, field: (name, (*fields[field][1], ("im2col", "convolution_param")))}
    out = caffe_pb2.NetParameter()
    for layer, origin in zip(padded, origins, strict=True):
        upgraded = out.layers.add()
        upgraded.bottom.extend(layer.bottom)
        upgraded.top.extend(layer.top)
        if layer.HasField("layer"):
            found = _v0_layer(layer.layer, upgraded, fields)
            for event in found:
                if event.kind == REFUSED:
                    event.values["refusal"].finding.where = draft.locate((*(origin or ()), "layer", "type"))
            events += found
    source = draft.proto
    if source.HasField("name"):
        out.name = source.name
    out.input.extend(source.input)
    out.input_dim.extend(source.input_dim)
    if source.HasField("force_backward"):
        out.force_backward = source.force_backward
    return draft.then(out, origins, [*events, *_done("upgrade-v0", events)])


def _fold_padding(draft: Draft) -> tuple[list[Any], tuple[Path | None, ...], list[Event]]:
    """V0 layers without the `padding` ones, whose pad moves into the convolution or pooling that reads them."""
    source = draft.proto
    last_maker: dict[str, int] = dict.fromkeys(source.input, -1)
    kept: list[Any] = []
    origins: list[Path | None] = []
    events: list[Event] = []

    def refuse(code: str, message: str, reader: int, **values: Any) -> None:
        where = draft.locate(("layers", reader))
        events.append(Event.refused(Refusal(message, code=code, layer=source.layers[reader].layer.name, where=where, **values)))

    for i, layer in enumerate(source.layers):
        kind = layer.layer.type
        if kind != "padding":
            copy = caffe_pb2.V1LayerParameter()
            copy.CopyFrom(layer)
            kept.append(copy)
            origins.append(draft.origins[i])
        for j, blob in enumerate(layer.bottom):
            if blob not in last_maker:
                refuse("v0-unknown-input", f"bottom '{blob}' is made by no layer before it", i, blob=blob, index=j)
                continue
            maker = last_maker[blob]
            if maker == -1 or source.layers[maker].layer.type != "padding":
                continue
            padding = source.layers[maker]
            if kind not in ("conv", "pool"):
                message = f"reads padding layer '{padding.layer.name}', which only a conv or pool layer can; this one is '{kind}'"
                refuse("v0-padding-reader", message, i, type=kind)
                continue
            for count, whose, code in (
                (len(layer.bottom), "a padded layer has one bottom", "v0-padded-bottoms"),
                (len(padding.bottom), "a padding layer has one bottom", "v0-padding-bottoms"),
                (len(padding.top), "a padding layer has one top", "v0-padding-tops"),
            ):
                if count != 1:
                    refuse(code, f"{whose}, not {count}", i, a=count, b=1)
            if padding.bottom:
                kept[-1].layer.pad = padding.layer.pad
                kept[-1].bottom[j] = padding.bottom[0]
        for blob in layer.top:
            last_maker[blob] = i
    return kept, tuple(origins), events


def _v0_layer(old: Any, new: Any, fields: Mapping[str, tuple[str, tuple[tuple[str, str], ...]]]) -> list[Event]:
    """Settings of one V0 layer into the V1 layer `new` (UpgradeV0LayerParameter); what Caffe says of it."""
    events: list[Event] = []
    if old.HasField("name"):
        new.name = old.name
    if old.HasField("type"):
        if old.type in V0_NAMES:
            new.type = caffe_pb2.V1LayerParameter.LayerType.Value(V0_NAMES[old.type])
        else:
            message = f"'{old.type}' is no layer type of the first generation"
            events.append(Event.refused(Refusal(message, code="v0-unknown-type", layer=old.name, type=old.type)))
    new.blobs.extend(old.blobs)
    new.blobs_lr.extend(old.blobs_lr)
    new.weight_decay.extend(old.weight_decay)
    for field, value in old.ListFields():
        if field.name not in fields:
            continue
        name, takers = fields[field.name]
        for kind, settings in takers:
            if kind in ("", old.type):
                target = getattr(new, settings)
                if not name:
                    target.CopyFrom(value)
                elif field.message_type is not None:
                    getattr(target, name).CopyFrom(value)
                elif hasattr(getattr(target, name), "append") and not isinstance(value, str):
                    getattr(target, name).append(value)
                else:
                    setattr(target, name, value)
                break
        else:
            events.append(Event("v0-unknown-parameter", {"field": field.name, "type": old.type}))
    return events


def _done(kind: str, events: list[Event]) -> list[Event]:
    """How an upgrade ends: well, or with a warning after any trouble; then the advice to upgrade the file."""
    troubled = any(event.kind in TROUBLES for event in events)
    return [Event(kind + ("-troubled" if troubled else "-done")), Event(kind + "-advice")]


TROUBLES = ("v0-unknown-parameter", "v1-holds-v0", "v1-layer-failed")


def has_old_transform(proto: Any) -> bool:
    """Whether a V1 data layer still holds scale, mean_file, crop_size or mirror itself (NetNeedsDataUpgrade)."""
    return any(_old_transform(layer) for layer in proto.layers)


def _old_transform(layer: Any) -> list[str]:
    settings = TRANSFORMED.get(caffe_pb2.V1LayerParameter.LayerType.Name(layer.type))
    if settings is None or not layer.HasField(settings):
        return []
    return [name for name in TRANSFORM_FIELDS if getattr(layer, settings).HasField(name)]


def _transform(draft: Draft) -> Draft:
    """Transformation fields of V1 data layers into transform_param (UpgradeNetDataTransformation)."""
    out = _copy(draft.proto)
    for layer in out.layers:
        for name in _old_transform(layer):
            settings = getattr(layer, TRANSFORMED[caffe_pb2.V1LayerParameter.LayerType.Name(layer.type)])
            setattr(layer.transform_param, name, getattr(settings, name))
            settings.ClearField(name)
    return draft.then(out, draft.origins, [Event("upgrade-transform"), *_done("upgrade-transform", [])])


def _v1(draft: Draft) -> Draft:
    """V1 `layers` to today's `layer` (UpgradeV1Net); a net that has both is refused by Caffe, and read in file order here."""
    source = draft.proto
    events = [Event("upgrade-v1")]
    if source.layer:
        refusal = Refusal(
            f"has both 'layer' ({len(source.layer)}) and 'layers' ({len(source.layers)}) fields",
            code="mixed-generations",
            where=draft.locate(("layer", 0)),
            remedy="write all of them as 'layer' with a quoted type",
        )
        events.append(Event.refused(refusal))
    out = caffe_pb2.NetParameter()
    out.CopyFrom(source)
    out.ClearField("layers")
    out.ClearField("layer")
    for i, layer in enumerate(source.layers):
        if not _v1_layer(layer, out.layer.add()):
            events += [Event("v1-holds-v0"), Event("v1-layer-failed", {"index": i})]
    if draft.written is not None and is_v0(draft.written):
        for old, new in zip(draft.written.layers, out.layer, strict=True):
            _only_v0(old.layer, new)
    origins = draft.origins + tuple(("layer", i) for i in range(len(source.layer)))
    out.layer.extend(source.layer)
    return draft.then(out, origins, [*events, *_done("upgrade-v1", events)])


def _v1_layer(old: Any, new: Any) -> bool:
    """One V1 layer as a LayerParameter; False if it still has a V0 layer inside (UpgradeV1LayerParameter)."""
    for field, value in old.ListFields():
        name = field.name
        if name == "type":
            new.type = V1_NAMES[caffe_pb2.V1LayerParameter.LayerType.Name(value)]
        elif name in ("param", "blob_share_mode", "blobs_lr", "weight_decay"):
            target = {"param": "name", "blob_share_mode": "share_mode", "blobs_lr": "lr_mult", "weight_decay": "decay_mult"}[name]
            for i, item in enumerate(value):
                if i == len(new.param):
                    new.param.add()
                setattr(new.param[i], target, item)
        elif name == "layer":
            continue
        elif name == "name":
            new.name = value
        elif name in ("bottom", "top", "include", "exclude", "blobs", "loss_weight"):
            getattr(new, name).extend(value)
        else:
            getattr(new, name).CopyFrom(value)
    return not old.HasField("layer")


def _only_v0(old: Any, new: Any) -> None:
    """What no later generation can say: the padding layer, and types that nobody knew."""
    if old.type == "padding":
        new.type = "Padding"
        new.convolution_param.pad.append(old.pad)
    elif old.type not in V0_NAMES:
        new.type = old.type


def _input(draft: Draft) -> Draft:
    """`input` fields into an Input layer at the front (UpgradeNetInput); inputs without any shape are dropped, as Caffe does."""
    source = draft.proto
    out = _copy(source)
    origins: tuple[Path | None, ...] = draft.origins
    events = [Event("upgrade-input")]
    if source.input_shape or source.input_dim:
        layers = list(source.layer)
        del out.layer[:]
        layer = out.layer.add(name="input", type="Input")
        for i, blob in enumerate(source.input):
            layer.top.append(blob)
            shape = layer.input_param.shape.add()
            if i < len(source.input_shape):
                shape.CopyFrom(source.input_shape[i])
            elif not source.input_shape:
                shape.dim.extend(source.input_dim[4 * i : 4 * i + 4])
        out.layer.extend(layers)
        origins = (("input", 0), *origins)
        shapes = len(source.input_shape)
        if shapes and shapes < len(source.input):
            refusal = _input_count(draft, "net-input-shape-count", "input_shape", len(source.input), shapes)
            events.append(Event.refused(refusal))
        elif not shapes and len(source.input_dim) < 4 * len(source.input):
            refusal = _input_count(draft, "input-dim-count", "input_dim", 4 * len(source.input), len(source.input_dim))
            events.append(Event.refused(refusal))
    for name in ("input", "input_shape", "input_dim"):
        out.ClearField(name)
    return draft.then(out, origins, [*events, *_done("upgrade-input", [])])


def _input_count(draft: Draft, code: str, field: str, need: int, have: int) -> Refusal:
    return Refusal(
        f"the net's inputs need {need} {field}, and {have} are given",
        code=code,
        where=draft.locate((field, 0)),
        remedy="give each input one input_shape, or four values of input_dim",
        a=need,
        b=have,
    )


def _old_batch_norm(layer: Any) -> bool:
    return layer.type == "BatchNorm" and len(layer.param) == 3


def _batch_norm(draft: Draft) -> Draft:
    """BatchNorm layers that give three params, as their first version wanted, get multipliers of 0 (UpgradeNetBatchNorm)."""
    out = _copy(draft.proto)
    for layer in filter(_old_batch_norm, out.layer):
        for param in layer.param:
            param.lr_mult = param.decay_mult = 0.0
    return draft.then(out, draft.origins, [Event("upgrade-batch-norm"), Event("upgrade-batch-norm-done")])


def _copy(proto: Any) -> Any:
    out = type(proto)()
    out.CopyFrom(proto)
    return out


# from one generation of layers to the next: name, when it is needed, the pass
PASSES: tuple[tuple[str, Callable[[Any], bool], Callable[[Draft, Edition], Draft]], ...] = (
    ("v0", is_v0, _v0),
    ("transform", has_old_transform, lambda draft, edition: _transform(draft)),
    ("v1", lambda proto: len(proto.layers) > 0, lambda draft, edition: _v1(draft)),
)

SOLVER_TYPES = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}


def solver(proto: Any) -> Any:
    """A SolverParameter with today's `type` instead of the old enum `solver_type` (UpgradeSolverAsNeeded).

    Raises Refusal if both are set.
    """
    out = _copy(proto)
    if out.HasField("solver_type"):
        if out.HasField("type"):
            raise Refusal("gives both 'type' and the old 'solver_type'", code="solver-type-twice", remedy="keep 'type'")
        out.type = SOLVER_TYPES[caffe_pb2.SolverParameter.SolverType.Name(out.solver_type)]
        out.ClearField("solver_type")
    return out
