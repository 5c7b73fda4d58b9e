"""The rewrite rules. Each changes a plan in place, keeps its numbers, and leaves alone what the caller wants to see.

Any subset of them gives the same numbers; a test draws subsets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..graph import Blob, Node
from ..layers import Shape, count
from ..layers.combine import SUM, Concat, Eltwise, Slice
from ..layers.conv import Filtering
from ..layers.data import DummyData
from ..layers.linear import Bias, InnerProduct, Scale
from ..layers.neuron import Clip, Dropout, Neuron, PReLU, ReLU
from ..layers.norm import LRN, WITHIN_CHANNEL, BatchNorm
from ..layers.pool import AVE, MAX, Pooling
from ..layers.recurrent import Recurrent
from ..layers.wiring import Flatten, Reshape
from ..plan import Head, Home, Op, Plan, Rule, Step

PROD, MAXIMUM = 0, 2  # EltwiseParameter.EltwiseOp, beside SUM
HEAVY = {"conv", "deconv", "lrn", "fc"}  # steps whose tuned kernel saves much; two of them are worth a change of layout
MUCH = 1 << 20  # floats of columns, or of weights, at which a tuned kernel is quicker even with changes of layout


# ---- what needs no work


def drop_unread(plan: Plan) -> None:
    """Leave out steps that nobody reads, unless they draw random numbers, remember something or write a file."""
    needed = set(plan.keep)
    steps = []
    for step in reversed(plan.steps):
        acts = isinstance(step.node.layer, (DummyData, Recurrent)) or (not step.outputs and step.node.type != "Silence")
        if acts or needed.intersection(step.outputs):
            steps.append(step)
            needed.update(step.reads)
    plan.steps = steps[::-1]


def skip_copies(plan: Plan) -> None:
    """Split, Dropout (it is TEST), Concat and Slice of one, Flatten and Reshape become views of what they read.

    A slice along the channels is a view, too. A Flatten before an InnerProduct is not needed at all: that flattens itself. Other
    changes of shape are views only where the memory is the same in both layouts.
    """
    makers = plan.makers()
    readers: dict[Blob, list[Step]] = {}
    for step in plan.steps:
        for blob in step.reads:
            readers.setdefault(blob, []).append(step)
    kept = []
    for step in plan.steps:
        layer, bottoms = step.node.layer, step.inputs
        one = len(bottoms) == len(step.outputs) == 1
        if step.node.type == "Split" or (one and isinstance(layer, (Dropout, Concat, Slice))):
            views = dict.fromkeys(step.outputs, Home(bottoms[0]))
        elif isinstance(layer, Slice) and layer.position(_shape(bottoms[0])) == 1 and len(_shape(bottoms[0])) in (2, 4):
            starts = [sum(_shape(top)[1] for top in step.outputs[:i]) for i in range(len(step.outputs))]
            views = {top: Home(bottoms[0], start) for top, start in zip(step.outputs, starts, strict=True)}
        elif isinstance(layer, (Flatten, Reshape)) and _viewed(_shape(bottoms[0])) and _viewed(_shape(step.outputs[0])):
            views = {step.outputs[0]: Home(bottoms[0])}
        elif isinstance(layer, (Flatten, Reshape)) and _flattened(plan, step, readers.get(step.outputs[0], [])):
            for reader in readers[step.outputs[0]]:
                reader.inputs[0] = bottoms[0]
            views = {}
        else:
            kept.append(step)
            continue
        plan.homes.update(views)
        maker = makers.get(plan.root(bottoms[0]))
        if maker is not None:
            maker.absorbed.append(step.node)
    plan.steps = kept


def _shape(blob: Blob) -> Shape:
    return blob.shape or ()


def _viewed(shape: Shape) -> bool:
    """Whether NCHW and NHWC are the same memory."""
    return len(shape) != 4 or shape[2:] == (1, 1)


def _flattened(plan: Plan, step: Step, readers: list[Step]) -> bool:
    """Whether the step makes rows of images that only fully connected layers read."""
    before, after = _shape(step.inputs[0]), _shape(step.outputs[0])
    rows = after == (before[0], count(before[1:])) and step.outputs[0] not in plan.keep
    return rows and bool(readers) and all(_plain_product(reader.node) for reader in readers)


def _plain_product(node: Node) -> bool:
    return isinstance(node.layer, InnerProduct) and node.layer.proto.inner_product_param.axis == 1


# ---- tuned kernels


def tuned_kernels(plan: Plan) -> None:
    """Give a step its tuned kernel, where there is one.

    Steps that share blobs, directly or through others, form an island, which changes the layout of what comes and goes. That pays
    for two heavy steps, or for one that is much quicker; a lone pooling is better off as it is.
    """
    kinds = {step: kind for step in plan.steps if (kind := _tuned(step)) is not None}
    for island in _islands(plan, list(kinds)):
        heavy = [step for step in island if kinds[step] in HEAVY]
        pays = len(heavy) > 1 or any(map(_pays_alone, island))
        for step in island if pays else ():
            step.kind = kinds[step]
            if step.kind == "elementwise":
                _operations(step)


def _islands(plan: Plan, steps: list[Step]) -> list[list[Step]]:
    """Steps in groups that are connected by blobs that they read or make."""
    islands: dict[Blob, list[Step]] = {}  # by every root that a group touches
    for step in steps:
        roots = {plan.root(blob) for blob in (*step.reads, *step.outputs)}
        touched = {id(islands[root]): islands[root] for root in roots if root in islands}
        merged = [*(other for island in touched.values() for other in island), step]
        for root in [*roots, *(root for root, island in islands.items() if id(island) in touched)]:
            islands[root] = merged
    return list({id(island): island for island in islands.values()}.values())


def _pays_alone(step: Step) -> bool:
    """Whether the step is so much quicker with its tuned kernel that it may change the layout of its input and output.

    Of filters, those with a stride or with columns that would leave the cache; of those with a filter for each channel, those
    without a stride.
    """
    layer, shape = step.node.layer, _shape(step.inputs[0])
    if isinstance(layer, InnerProduct):
        return sum(param.count for param in step.node.params or ()) > MUCH
    if not isinstance(layer, Filtering):
        return False
    _, window = layer.window(shape)
    columns = count(_shape(step.outputs[0])[2:]) * shape[1] * count(window.kernel)
    strided = max(window.stride) > 1
    if layer.proto.convolution_param.group == shape[1] > 1:
        return layer.transposed or not strided
    return not layer.transposed and window.kernel != (1, 1) and (strided or columns > MUCH)


def _tuned(step: Step) -> str | None:
    """The kind of the tuned kernel for a step of one layer; None where only the layer's own forward will do."""
    layer, shapes = step.node.layer, [_shape(blob) for blob in (*step.reads, *step.outputs)]
    if len(step.outputs) != 1 or any(0 in shape for shape in shapes):
        return None
    images = all(len(shape) == 4 for shape in shapes)
    if _plain_product(step.node):
        return "fc"
    if isinstance(layer, Filtering) and images:
        return _filtering(layer, shapes[0], shapes[1])
    if isinstance(layer, LRN) and layer.proto.lrn_param.norm_region != WITHIN_CHANNEL:
        return "lrn"
    if isinstance(layer, Pooling) and layer.proto.pooling_param.pool in (MAX, AVE):
        window = layer.window(shapes[0])
        return "pool" if all(span > 0 for spans in window.spans(shapes[0][2:], shapes[1][2:]) for span in spans) else None
    if not (images or all(len(shape) == 2 for shape in shapes)) or len(set(shapes)) != 1:
        return None
    if isinstance(layer, (ReLU, PReLU, Clip)) or (isinstance(layer, Eltwise) and _join(layer) is not None):
        return "elementwise"
    return "elementwise" if _affine(step.node) else None


def _filtering(layer: Filtering, bottom: Shape, top: Shape) -> str | None:
    axis, window = layer.window(bottom)
    group = layer.proto.convolution_param.group
    if axis != 1 or group < 1 or min(*window.pad, *window.dilation) < 0:
        return None
    if not layer.transposed:
        return "conv"
    return "deconv" if group == 1 or (group == bottom[1] == top[1]) else None


def _affine(node: Node) -> bool:
    """Whether the layer multiplies and adds one learned number per channel."""
    layer = node.layer
    if isinstance(layer, BatchNorm):
        return layer.stored
    learned = isinstance(layer, (Scale, Bias)) and len(node.bottoms) == 1
    return learned and all(param.shape == _shape(node.bottoms[0])[1:2] for param in node.params or ()) and _axis(node) == 1


def _axis(node: Node) -> int:
    proto = node.layer.proto
    axis = proto.scale_param.axis if isinstance(node.layer, Scale) else proto.bias_param.axis
    return node.layer.axis(axis, _shape(node.bottoms[0]))


def _join(layer: Eltwise) -> str | None:
    param = layer.proto.eltwise_param
    if param.operation == SUM:
        return "sum" if all(c == 1 for c in param.coeff) else None
    return {PROD: "product", MAXIMUM: "maximum"}[param.operation]


def _operations(step: Step) -> None:
    """Say an elementwise layer as its first bottom and operations on it."""
    first, *others = step.inputs
    layer = step.node.layer
    join = _join(layer) if isinstance(layer, Eltwise) else None
    if join is not None:
        ops = [Op(join, step.node, other) for other in others]
    else:
        ops = [Op("activation" if isinstance(layer, (ReLU, PReLU, Clip)) else "affine", step.node)]
    step.inputs, step.heads[0].ops = [first], ops


# ---- elementwise operations onto the step that makes their input


def fold_affine(plan: Plan) -> None:
    """BatchNorm, Scale and Bias onto the product before them; behind a convolution they end in its weights."""
    _fuse(plan, lambda step: step.kind == "elementwise" and all(op.kind == "affine" for op in step.heads[0].ops))


def residual_onto_producer(plan: Plan) -> None:
    """An Eltwise onto whichever of its inputs is made by a tuned step that nobody else reads."""
    _fuse(plan, lambda step: step.kind == "elementwise" and any(op.blob is not None for op in step.heads[0].ops))


def activation_onto_producer(plan: Plan) -> None:
    """ReLU, PReLU and any other function of one number onto the step that makes it."""
    _fuse(plan, lambda step: _activates(step))


def _activates(step: Step) -> bool:
    if step.kind == "layer":
        return isinstance(step.node.layer, Neuron)
    return step.kind == "elementwise" and all(op.kind == "activation" for op in step.heads[0].ops)


def _fuse(plan: Plan, wanted: Callable[[Step], bool]) -> None:
    """Put the operations of the wanted steps onto the step that makes their input, if nobody else reads that.

    The step moves to the place of the later one: all that either reads has been made there.
    """
    readers, kept = plan.readers(), plan.kept()
    makers: dict[Blob, tuple[Step, Head]] = {}
    steps: dict[Step, None] = {}
    for step in plan.steps:
        target = _target(plan, step, makers, readers, kept) if wanted(step) else None
        if target is not None:
            blob, maker, head = target
            own = step.heads[0]
            ops = own.ops if step.kind != "layer" else [Op("activation", step.node)]
            if blob is not step.inputs[0]:  # one of those that were to be joined: the first one takes its place
                ops = [Op(op.kind, op.node, step.inputs[0]) if op.blob is blob else op for op in ops]
            head.ops += ops
            head.output = own.output
            maker.absorbed += step.absorbed
            if any(op.blob is not None for op in ops):
                del steps[maker]
                steps[maker] = None
            step = maker
        else:
            steps[step] = None
        for head in step.heads:
            makers[plan.root(head.output)] = step, head
    plan.steps = list(steps)


def _target(
    plan: Plan, step: Step, makers: Mapping[Blob, tuple[Step, Head]], readers: Mapping[Blob, int], kept: set[Blob]
) -> tuple[Blob, Step, Head] | None:
    """The input of an elementwise step onto whose maker it can go: (input, maker, head)."""
    shape = _shape(step.outputs[0])
    ops = step.heads[0].ops
    candidates = [step.inputs[0], *(op.blob for op in ops if op.blob is not None and len({op.kind for op in ops}) == 1)]
    for blob in reversed(candidates):  # of several, the one made last
        root = plan.root(blob)
        if root not in makers or readers[root] != 1 or root in kept or _shape(root) != shape or len(shape) not in (2, 4):
            continue
        maker, head = makers[root]
        if maker.kind not in ("layer", "concat") and head.output is root:
            return blob, maker, head
    return None


# ---- where products go


def concat_by_slices(plan: Plan) -> None:
    """What a Concat along the channels puts together is written where it goes at once; what cannot be is copied by its step."""
    makers = plan.makers()
    reshaped = {plan.root(blob) for blob in plan.homes if len(_shape(blob)) != len(_shape(plan.homes[blob].of))}
    steps = []
    for step in plan.steps:
        layer = step.node.layer
        joins = isinstance(layer, Concat) and step.kind == "layer" and len(_shape(step.outputs[0])) in (2, 4)
        if not joins or layer.position(_shape(step.inputs[0])) != 1:  # type: ignore[attr-defined]
            steps.append(step)
            continue
        start, left, last = 0, [], None
        for blob in step.inputs:
            root = plan.root(blob)
            maker = makers.get(root)
            whole = root not in reshaped and _shape(root) == _shape(blob)
            if maker is not None and maker.kind != "layer" and whole:
                plan.homes[root] = Home(step.outputs[0], start)
                last = maker
            else:
                left.append(blob)
            start += _shape(blob)[1]
        if last is not None:
            step.kind, step.inputs = "concat", left
        if left:
            steps.append(step)
        elif last is not None:
            last.absorbed += [step.node, *step.absorbed]
            makers[step.outputs[0]] = last
    plan.steps = steps


def merge_siblings(plan: Plan) -> None:
    """1x1 convolutions of one blob, with the same stride, become one product with several heads."""
    firsts: dict[object, Step] = {}
    steps = []
    for step in plan.steps:
        key = _sibling(plan, step)
        first = firsts.get(key) if key is not None else None
        if first is None:
            steps.append(step)
            if key is not None:
                firsts[key] = step
        else:
            first.heads += step.heads
            first.absorbed += step.absorbed
    plan.steps = steps


def _sibling(plan: Plan, step: Step) -> object:
    """What convolutions must share in order to be one product; None for those that cannot be."""
    layer = step.node.layer
    if step.kind != "conv" or not isinstance(layer, Filtering) or any(op.blob is not None for op in step.heads[0].ops):
        return None
    blob = step.inputs[0]
    _, window = layer.window(_shape(blob))
    if window.kernel != (1, 1) or any(window.pad) or layer.proto.convolution_param.group != 1:
        return None
    start = 0
    while blob in plan.homes:
        start, blob = start + (plan.homes[blob].start or 0), plan.homes[blob].of
    return blob, start, _shape(step.inputs[0]), window.stride


def winograd(plan: Plan) -> None:
    """3x3 convolutions of large maps with 2.25 to 4 times fewer multiplications, and an error some ten times larger."""
    plan.winograd = True


def reuse_buffers(plan: Plan) -> None:
    """Values that are not alive at the same time share memory."""
    plan.reuse = True


DEFAULT: tuple[Rule, ...] = (
    drop_unread,
    skip_copies,
    tuned_kernels,
    fold_affine,
    residual_onto_producer,
    activation_onto_producer,
    concat_by_slices,
    merge_siblings,
    reuse_buffers,
)
FAST: tuple[Rule, ...] = (*DEFAULT, winograd)
