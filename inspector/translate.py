"""Nets and older versions of Caffe: what their parsers made of a file, and today's nets written as they would have had them.

`read` looks at a file with a version's schema: fields and layer types that it did not know are refused in its words, and names
that it alone had are understood. `to_version` writes a net of any generation in that version's own, or refuses what it could not
say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from google.protobuf import text_format

from caffe_proto import caffe_pb2

from . import phases, upgrade
from .dialect import Dialect
from .draft import Draft, Path
from .errors import Finding, InspectorError, Position
from .opening import Opened
from .upgrade import TRANSFORM_FIELDS, TRANSFORMED, V0_IM2COL, V0_NAMES, V0_UNTRANSFORMED, V1_NAMES

V1_TYPES = {name: v1 for v1, name in V1_NAMES.items()}
V0_TYPES = {v1: v0 for v0, v1 in V0_NAMES.items()}
TEST = 1

# ---- reading with an older schema


def read(opened: Opened, dialect: Dialect) -> Opened:
    """The same file as a version's parser read it. What its schema lacked is a finding, in file order with the others."""
    if not dialect.schema or opened.document is None:
        return opened
    proto = type(opened.proto)()
    proto.CopyFrom(opened.proto)
    findings = _understood(opened, proto, dialect)
    for path, message_type, field in _lacking(opened.proto, dialect):
        findings.append(_unknown(opened, path, message_type, field, dialect))
    findings.sort(key=lambda finding: (finding.where.line, finding.where.column) if finding.where else (0, 0))
    return replace(opened, proto=proto, findings=findings)


def _understood(opened: Opened, proto: Any, dialect: Dialect) -> list[Finding]:
    """Findings without those about names of layer types that the version had; `proto` gets these types."""
    kept: list[Finding] = []
    for finding in opened.findings:
        alias = dialect.aliases.get(finding.values.get("value", ""))
        if finding.code != "unknown-enum-value" or finding.values.get("field") != "type" or alias is None:
            kept.append(finding)
            continue
        layer = proto.layers[_layer_at(opened, len(proto.layers), finding.where)]
        text_format.Parse(alias["settings"], layer)
        layer.type = caffe_pb2.V1LayerParameter.LayerType.Value(alias["type"])
    return kept


def _layer_at(opened: Opened, layers: int, where: Position | None) -> int:
    """The last of the net's layers that begins before a place."""
    place = (where.line, where.column) if where else (0, 0)
    starts = (opened.locate(("layers", i)) for i in range(layers))
    return max(i for i, start in enumerate(starts) if start is not None and (start.line, start.column) <= place)


def _lacking(message: Any, dialect: Dialect, path: Path = ()) -> Iterator[tuple[Path, str, str]]:
    """(path, message, field) of everything set that the version's schema did not have; a type of layer as the field `=NAME`."""
    kind = message.DESCRIPTOR.name
    known = dialect.schema.get(kind)
    for field, value in message.ListFields():
        if known is not None and field.name not in known:
            yield (*path, field.name), kind, field.name
        elif kind == "V1LayerParameter" and field.name == "type":
            name = caffe_pb2.V1LayerParameter.LayerType.Name(value)
            if name not in dialect.schema.get("LayerType", (name,)):
                yield (*path, "type"), kind, "=" + name
        elif field.message_type is not None:
            several = hasattr(value, "add")
            for i, item in enumerate(value if several else (value,)):
                yield from _lacking(item, dialect, (*path, field.name, i) if several else (*path, field.name))


def _unknown(opened: Opened, path: Path, message_type: str, field: str, dialect: Dialect) -> Finding:
    """What protobuf's parser said of it; it stands at the token behind the name, or behind the value."""
    where = opened.locate(path)
    named = f"caffe.{dialect.schema_names.get(message_type, message_type)}"
    if field.startswith("="):
        words, past = f'Unknown enumeration value of "{field[1:]}" for field "type".', rf"type\s*:\s*{field[1:]}"
        message = f"'{field[1:]}' is no layer type of {dialect.name}"
    else:
        words, past = f'Message type "{named}" has no field named "{field}".', re.escape(field)
        message = f"'{field}' is no field of {named} in {dialect.name}"
    values = {"caffe": f"{_behind(opened, where, past)}: {words}", "message_type": named, "field": field}
    return Finding("unknown-field", message, "error", where, remedy="translate the net, or choose a later version", values=values)


def _behind(opened: Opened, where: Position | None, pattern: str) -> str:
    """LINE:COLUMN of the first token behind what stands at a place."""
    if where is None or opened.document is None:
        return "1:1"
    text = opened.document.text
    start = sum(len(line) for line in text.splitlines(keepends=True)[: where.line - 1]) + where.column - 1
    match = re.compile(pattern + r"(?:\s|#[^\n]*)*").match(text, start)
    end = match.end() if match else start
    return f"{text.count(chr(10), 0, end) + 1}:{end - text.rfind(chr(10), 0, end)}"


# ---- writing for an older version


def translated(opened: Opened, dialect: Dialect, phase: int = TEST, level: int = 0, stages: Sequence[str] = ()) -> Opened:
    """An opened net as a version would have had it. Raises InspectorError for what that version could not say."""
    proto = to_version(opened.proto, dialect, phase, level, stages)
    return replace(opened, proto=proto, document=None, locate=lambda path: None, findings=[])


def to_version(proto: Any, dialect: Dialect, phase: int = TEST, level: int = 0, stages: Sequence[str] = ()) -> Any:
    """A NetParameter of any generation in the one that a version had: inputs, multipliers and settings in their old places.

    A net that the version could read comes back as it is. Where it had no rules for layers, the net is that of the phase, level
    and stages. Raises InspectorError that names the layer and what the version lacked.
    """
    if _readable(proto, dialect):
        out = caffe_pb2.NetParameter()
        out.CopyFrom(proto)
        return out
    draft = upgrade.net(Draft(proto))
    if draft.refusals:
        raise draft.refusals[0]
    if not _has_rules(dialect):
        draft = phases.select(replace(draft, proto=phases.set_state(draft.proto, phase, level, stages)))
    source = draft.proto
    out = caffe_pb2.NetParameter()
    if source.HasField("name"):
        out.name = source.name
    if source.force_backward:
        out.force_backward = True
    if _has_rules(dialect) and source.HasField("state"):
        out.state.CopyFrom(source.state)
    for layer in source.layer:
        if layer.type == "Input" and not dialect.edition.input_layers:
            _input_fields(layer, out, dialect)
        elif dialect.generation == "V2":
            _check_type(layer, dialect)
            out.layer.add().CopyFrom(layer)
        else:
            _Translation(layer, dialect, _read_by_others(source, layer)).into(out.layers.add())
    if dialect.generation == "V0":
        for v1 in out.layers:
            _to_v0(v1, dialect)
    return out


def _readable(proto: Any, dialect: Dialect) -> bool:
    """Whether the version understood the message as it is."""
    if dialect.generation == "V2":
        return dialect.edition.input_layers
    if proto.layer or any(True for _ in _lacking(proto, dialect)):
        return False
    return dialect.generation == "V1" or all(layer.HasField("layer") for layer in proto.layers)


def _has_rules(dialect: Dialect) -> bool:
    known = dialect.schema.get("V1LayerParameter")
    return known is None or "include" in known


def _read_by_others(net: Any, layer: Any) -> set[str]:
    return {blob for other in net.layer if other is not layer for blob in other.bottom}


def _refuse(layer: Any, dialect: Dialect, what: str, remedy: str = "") -> NoReturn:
    sentence = f"cannot be said in Caffe {dialect.name}: {what}"
    raise InspectorError(sentence, code="untranslatable", layer=layer.name, layer_type=layer.type, remedy=remedy)


def _check_type(layer: Any, dialect: Dialect) -> None:
    if layer.type in dialect.edition.absent_types:
        _refuse(layer, dialect, "it had no layer of this type")


def _input_fields(layer: Any, net: Any, dialect: Dialect) -> None:
    """An Input layer as the net's `input` and `input_shape` fields; of four axes as `input_dim`."""
    shapes = layer.input_param.shape
    if len(shapes) not in (1, len(layer.top)):
        _refuse(layer, dialect, "inputs had their shapes in the file", "give input_param a shape")
    for i, top in enumerate(layer.top):
        dims = list(shapes[i if len(shapes) > 1 else 0].dim)
        net.input.append(top)
        if dialect.edition.nd_blobs:
            net.input_shape.add().dim.extend(dims)
        elif len(dims) > 4:
            _refuse(layer, dialect, f"blobs had four axes, and '{top}' has {len(dims)}")
        else:
            net.input_dim.extend(dims + [1] * (4 - len(dims)))


# settings that say nothing of the net itself: how data is fetched, which library computes
_HARMLESS = {"engine", "prefetch", "backend", "force_encoded_color", "force_nd_im2col"}
_FILLERS = {"constant", "gaussian", "positive_unitball", "uniform", "xavier"}


class _Translation:
    """One LayerParameter into a V1LayerParameter of a version."""

    def __init__(self, layer: Any, dialect: Dialect, read_later: set[str]) -> None:
        self.layer = layer
        self.dialect = dialect
        self.read_later = read_later  # blobs that other layers read
        self.fields = dialect.schema.get("V1LayerParameter") if dialect.generation == "V1" else None  # all where V0 comes later

    def refuse(self, what: str, remedy: str = "") -> NoReturn:
        _refuse(self.layer, self.dialect, what, remedy)

    def into(self, v1: Any) -> None:
        layer = self.layer
        self._type(v1)
        v1.bottom.extend(layer.bottom)
        v1.top.extend(self._tops())
        v1.name = layer.name
        v1.include.extend(layer.include if _has_rules(self.dialect) else ())
        v1.exclude.extend(layer.exclude if _has_rules(self.dialect) else ())
        for rule in (*v1.include, *v1.exclude):
            self._clean(rule)
        v1.blobs.extend(layer.blobs)
        self._multipliers(v1)
        self._loss_weights(v1)
        if layer.propagate_down:
            self.refuse("no layer chose the bottoms that get a gradient (propagate_down)")
        for field, settings in layer.ListFields():
            if field.message_type is not None and field.name.endswith("_param"):
                self._settings(v1, field.name, settings)

    def _type(self, v1: Any) -> None:
        name = V1_TYPES.get(self.layer.type, "")
        known = set(V1_NAMES)
        if self.fields is not None:
            known = {*self.dialect.schema["LayerType"], *(alias["type"] for alias in self.dialect.aliases.values())}
        if name not in known or self.layer.type in self.dialect.edition.absent_types:
            self.refuse("it had no layer of this type")
        v1.type = caffe_pb2.V1LayerParameter.LayerType.Value(name)

    def _tops(self) -> list[str]:
        """A loss had no top before it could have a weight; one that nobody reads is left out."""
        tops = list(self.layer.top)
        if self.dialect.edition.tops.get(self.layer.type) == 0:
            needed = [top for top in tops if top in self.read_later]
            if needed:
                self.refuse(f"a loss had no top, and this one makes '{needed[0]}'")
            return []
        return tops

    def _multipliers(self, v1: Any) -> None:
        """`param` messages as lists, one entry for each parameter blob."""
        specs = self.layer.param
        blobs = self._blobs()
        if len(specs) > blobs:
            self.refuse(f"{len(specs)} param fields and {blobs} parameter blob(s)")
        filled = [*specs, *[caffe_pb2.ParamSpec()] * (blobs - len(specs))]
        for field, target in (("lr_mult", v1.blobs_lr), ("decay_mult", v1.weight_decay)):
            if any(spec.HasField(field) for spec in specs):
                target.extend(getattr(spec, field) for spec in filled)
        names, modes = [spec.name for spec in filled], [spec.share_mode for spec in filled]
        if any(names):
            if self.fields is None or "param" not in self.fields:
                self.refuse("layers could not share parameters")
            v1.param.extend(names)
            if any(modes):
                v1.blob_share_mode.extend(modes)

    def _blobs(self) -> int:
        layer = self.layer
        if layer.type in ("Convolution", "Deconvolution"):
            return 1 + layer.convolution_param.bias_term
        return 1 + layer.inner_product_param.bias_term if layer.type == "InnerProduct" else 0

    def _loss_weights(self, v1: Any) -> None:
        weights = list(self.layer.loss_weight)
        if self.dialect.edition.loss_weights:
            v1.loss_weight.extend(weights)
        elif weights[:1] not in ([], [1]) or any(weights[1:]):
            self.refuse("losses had no weights", "give every loss the weight 1")

    # ---- settings

    def _settings(self, v1: Any, name: str, settings: Any) -> None:
        copy = type(settings)()
        copy.CopyFrom(settings)
        _convert(self, copy)
        self._clean(copy)
        if name == "transform_param" and "transform" not in self.dialect.edition.upgrades:
            self._transform(v1, copy)
        elif name in v1.DESCRIPTOR.fields_by_name and (self.fields is None or name in self.fields):
            getattr(v1, name).MergeFrom(copy)
            if not copy.ListFields():
                getattr(v1, name).SetInParent()
        elif name == "eltwise_param" and any(a["type"] == "ELTWISE" for a in self.dialect.aliases.values()):
            if copy.operation != copy.PROD or copy.coeff:
                self.refuse("it only multiplied elementwise")
            v1.eltwise_param.CopyFrom(copy)
        else:
            left = next((f for f, value in copy.ListFields() if f.name not in _HARMLESS and value != f.default_value), None)
            if left is not None:
                self.refuse(f"it had no {name} {{ {left.name} }}")

    def _clean(self, message: Any) -> None:
        """Take out what the version's schema lacks and what says nothing; refuse the rest of what it lacks."""
        known = self.dialect.schema.get(message.DESCRIPTOR.name)
        for field, value in message.ListFields():
            if known is None or field.name in known:
                if field.message_type is not None:
                    for item in value if hasattr(value, "add") else (value,):
                        self._clean(item)
                continue
            if field.name not in _HARMLESS and (hasattr(value, "append") or value != field.default_value):
                self.refuse(f"{message.DESCRIPTOR.name} had no {field.name}")
            message.ClearField(field.name)
        if message.DESCRIPTOR.name == "FillerParameter" and known is not None and message.type not in _FILLERS:
            self.refuse(f"it had no filler '{message.type}'", f"use one of {', '.join(sorted(_FILLERS))}")

    def _transform(self, v1: Any, transform: Any) -> None:
        """Scale, mean file, crop size and mirror into the data layer's own settings."""
        home = TRANSFORMED.get(V1_TYPES[self.layer.type])
        for name in TRANSFORM_FIELDS:
            if transform.HasField(name):
                if home is None:
                    self.refuse(f"this layer had no {name}")
                setattr(getattr(v1, home), name, getattr(transform, name))


def _convert(layer: _Translation, settings: Any) -> None:
    converter = _CONVERSIONS.get(settings.DESCRIPTOR.name)
    known = layer.dialect.schema.get(settings.DESCRIPTOR.name)
    if converter is not None and known is not None:
        converter(layer, settings, known)


def _convolution(layer: _Translation, settings: Any, known: frozenset[str]) -> None:
    """Repeated sizes were numbers, for both axes at once or by name for each."""
    for name in ("pad", "kernel_size", "stride"):
        values = getattr(settings, name)
        short = name.removesuffix("_size")
        if len(values) > 2:
            layer.refuse(f"{name} had two axes at most")
        if len(values) == 2:
            h, w = values
            settings.ClearField(name)
            setattr(settings, f"{short}_h", h)
            setattr(settings, f"{short}_w", w)
        _equal_axes(layer, settings, known, short, name)
    if all(value == 1 for value in settings.dilation):
        settings.ClearField("dilation")
    if settings.HasField("axis") and settings.axis == 1:
        settings.ClearField("axis")


def _pooling(layer: _Translation, settings: Any, known: frozenset[str]) -> None:
    for name in ("pad", "kernel_size", "stride"):
        _equal_axes(layer, settings, known, name.removesuffix("_size"), name)


def _equal_axes(layer: _Translation, settings: Any, known: frozenset[str], short: str, name: str) -> None:
    """Height and width as one number where the version knew no others."""
    h, w = f"{short}_h", f"{short}_w"
    if h in known or not (settings.HasField(h) or settings.HasField(w)):
        return
    if getattr(settings, h) != getattr(settings, w):
        layer.refuse(f"{name} was one number for height and width")
    value = getattr(settings, h)
    settings.ClearField(h)
    settings.ClearField(w)
    field = getattr(settings, name)
    if hasattr(field, "append"):
        field.append(value)
    else:
        setattr(settings, name, value)


def _older_axis(older: str) -> Callable[[_Translation, Any, frozenset[str]], None]:
    def convert(layer: _Translation, settings: Any, known: frozenset[str]) -> None:
        if settings.HasField("axis"):
            axis = settings.axis % 4
            if axis > 1:
                layer.refuse("it worked along num and channels only", "use axis 0 or 1")
            settings.ClearField("axis")
            if axis != 1:
                setattr(settings, older, axis)

    return convert


def _dummy(layer: _Translation, settings: Any, known: frozenset[str]) -> None:
    for shape in settings.shape:
        dims = list(shape.dim)
        if len(dims) > 4:
            layer.refuse(f"blobs had four axes, and a top has {len(dims)}")
        for name, size in zip(("num", "channels", "height", "width"), dims + [1] * (4 - len(dims)), strict=True):
            getattr(settings, name).append(size)
    settings.ClearField("shape")


_CONVERSIONS: dict[str, Callable[[_Translation, Any, frozenset[str]], None]] = {
    "ConvolutionParameter": _convolution,
    "PoolingParameter": _pooling,
    "ConcatParameter": _older_axis("concat_dim"),
    "SliceParameter": _older_axis("slice_dim"),
    "DummyDataParameter": _dummy,
}


# ---- the first generation


def _to_v0(v1: Any, dialect: Dialect) -> None:
    """A V1 layer, in place, as the connection of a V0 layer."""
    kind = V0_TYPES.get(caffe_pb2.V1LayerParameter.LayerType.Name(v1.type))
    named = caffe_pb2.LayerParameter(name=v1.name, type=V1_NAMES[caffe_pb2.V1LayerParameter.LayerType.Name(v1.type)])
    if kind is None:
        _refuse(named, dialect, "it had no layer of this type")
    old = caffe_pb2.V0LayerParameter(name=v1.name, type=kind)
    old.blobs.extend(v1.blobs)
    old.blobs_lr.extend(v1.blobs_lr)
    old.weight_decay.extend(v1.weight_decay)
    homes = {(settings, name): v0 for v0, (name, takers) in V0_UNTRANSFORMED.items() for by, settings in takers if by == kind}
    if kind == "im2col":
        homes |= {("convolution_param", name): v0 for v0, name in V0_IM2COL.items()}
    if kind == "pool":
        del homes["pooling_param", "pad"]
    for field, settings in v1.ListFields():
        if field.message_type is None or not field.name.endswith("_param"):
            continue
        for item, value in settings.ListFields():
            v0 = homes.get((field.name, item.name))
            if v0 is None:
                if item.name not in _HARMLESS and (hasattr(value, "append") or value != item.default_value):
                    _refuse(named, dialect, f"it had no {item.name}")
            elif item.message_type is not None:
                getattr(old, v0).CopyFrom(value)
            else:
                setattr(old, v0, value[0] if hasattr(value, "append") and not isinstance(value, str) else value)
    bottoms, tops = list(v1.bottom), list(v1.top)
    v1.Clear()
    v1.bottom.extend(bottoms)
    v1.top.extend(tops)
    v1.layer.CopyFrom(old)
