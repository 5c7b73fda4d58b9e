"""Other programs on our nets: each peer takes files that it can read and gives a call from the input to the output.

A peer `write`s its form of a net with weights into a folder and `load`s it from there, so that loading can be timed in a process
of its own. Native Caffe and OpenCV read prototxt and caffemodel as they are; for onnxruntime the net is converted to ONNX, and
torch runs it eagerly, function by function. Both conversions know the layers of the six nets that are measured, refuse everything
else (`Unsupported`), and help the peer as its own exporters would: BatchNorm and the Scale behind it become one operation, Dropout
and Split none.

Peers are optional, and none is a dependency of the project: `load` and `write` raise ImportError where a library is missing.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import inspector
from inspector.caffemodel import write_model
from inspector.layers.combine import SUM
from inspector.layers.pool import AVE, FLOOR, MAX

if TYPE_CHECKING:
    import numpy as np

    from inspector import Net
    from inspector.graph import Blob, Graph, Node
    from inspector.window import Window

Run = Callable[["np.ndarray"], "np.ndarray"]
Arrays = Mapping[str, Sequence["np.ndarray"]]

PROTOTXT, CAFFEMODEL, ONNX, TORCH = "net.prototxt", "net.caffemodel", "net.onnx", "net.pt"


class Unsupported(Exception):
    """A layer, or a setting of one, that the six nets do not have and the conversions therefore do not know."""


# ---- Caffe's own files: for OpenCV, native Caffe and ourselves


def write_prototxt(net: Net, folder: Path) -> None:
    from google.protobuf import text_format

    (folder / PROTOTXT).write_text(text_format.MessageToString(net.graph.proto), encoding="utf-8")


def parameters(net: Net) -> Arrays:
    """Every layer's arrays by its name, those of another layer included."""
    return {name: [array for array in arrays if array is not None] for name, arrays in net.weights.by_layer().items()}


def write_caffe(net: Net, folder: Path) -> None:
    write_prototxt(net, folder)
    write_model(folder / CAFFEMODEL, net.graph.proto, parameters(net))


def load_opencv(folder: Path, batch: int, threads: int) -> Run:
    cv2: Any = import_module("cv2")
    cv2.setNumThreads(threads)
    net = cv2.dnn.readNetFromCaffe(str(folder / PROTOTXT), str(folder / CAFFEMODEL))
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)

    def run(x: np.ndarray) -> np.ndarray:
        net.setInput(x)
        return net.forward()

    return run


def pycaffe() -> Path | None:
    """The folder of the Python module that belongs to the `caffe` on the PATH: a build tree's or an installation's."""
    command = shutil.which("caffe")
    above = Path(command).resolve().parents if command else ()
    return next((folder / "python" for folder in [*above][:4] if (folder / "python" / "caffe" / "__init__.py").is_file()), None)


def load_caffe(folder: Path, batch: int, threads: int) -> Run:
    """Threads are those of Caffe's BLAS, which threadpoolctl limits from outside."""
    beside = pycaffe()
    if beside is not None and str(beside) not in sys.path:
        sys.path.append(str(beside))
    caffe: Any = import_module("caffe")
    caffe.set_mode_cpu()
    net = caffe.Net(str(folder / PROTOTXT), str(folder / CAFFEMODEL), caffe.TEST)
    (source,), (output,) = net.inputs, net.outputs
    net.blobs[source].reshape(batch, *net.blobs[source].data.shape[1:])
    net.reshape()

    def run(x: np.ndarray) -> np.ndarray:
        net.blobs[source].data[...] = x
        return net.forward()[output]

    return run


def load_ours(engine: str, folder: Path, batch: int, threads: int) -> Run:
    net = inspector.load(folder / PROTOTXT, weights=folder / CAFFEMODEL, engine=engine, threads=threads)
    (source,), (output,) = net.inputs, net.outputs
    shape = net.blobs[source].shape or ()
    if shape[0] != batch:
        net.reshape(**{source: (batch, *shape[1:])})

    def run(x: np.ndarray) -> np.ndarray:
        inputs: dict[str, Any] = {source: x}
        return net.forward(**inputs)[output]

    return run


# ---- what both conversions share


@dataclass(frozen=True)
class Operation:
    """One thing to compute; `scale` is the Scale layer that a BatchNorm takes along."""

    node: Node
    bottoms: list[Blob]
    top: Blob
    scale: Node | None = None

    @property
    def param(self) -> Any:
        """The message with the layer's settings."""
        field = {"Convolution": "convolution_param", "InnerProduct": "inner_product_param", "BatchNorm": "batch_norm_param"}
        return getattr(self.node.layer.proto, field.get(self.node.type, f"{self.node.type.lower()}_param"))

    def window(self) -> Window:
        found = self.node.layer.window(self.bottoms[0].shape)  # type: ignore[attr-defined]  # Convolution's also tells the axis
        return found[1] if isinstance(found, tuple) else found

    def need(self, condition: bool) -> None:
        if not condition:
            raise Unsupported(f"layer '{self.node.name}' ({self.node.type}) has settings that this conversion does not know")


def operations(graph: Graph) -> Iterator[Operation]:
    """What a run in TEST computes, in order. Blobs that only pass on another are replaced by it."""
    same: dict[Blob, Blob] = {}
    taken: set[Node] = set()
    for node in graph.nodes:
        bottoms = [same.get(blob, blob) for blob in node.bottoms]
        if node.type in ("Dropout", "Split"):
            same.update(dict.fromkeys(node.tops, bottoms[0]))
        elif node.type != "Input" and node not in taken:
            (top,) = node.tops
            (reader,) = top.readers if len(top.readers) == 1 else (None,)
            if node.type == "BatchNorm" and reader is not None and reader.type == "Scale" and len(reader.bottoms) == 1:
                taken.add(reader)
                yield Operation(node, bottoms, reader.tops[0], reader)
            else:
                yield Operation(node, bottoms, top)


def normalised(op: Operation, arrays: Arrays) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scale, shift, mean and variance of a BatchNorm and its Scale, one number per channel each."""
    import numpy as np

    mean, variance, factor = arrays[op.node.name]
    divisor = np.float32(1 / factor.item() if factor.item() else 0)
    scale, shift = scaled(op.scale, arrays) if op.scale is not None else (np.ones_like(mean), np.zeros_like(mean))
    return scale, shift, mean * divisor, variance * divisor


def scaled(node: Node, arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Factor and summand of a Scale layer with parameters of its own, one number per channel each."""
    import numpy as np

    param = node.layer.proto.scale_param
    if len(node.bottoms) != 1 or param.axis != 1 or param.num_axes != 1:
        raise Unsupported(f"layer '{node.name}' (Scale) does not scale channels by parameters of its own")
    factor, *summand = arrays[node.name]
    return factor, summand[0] if summand else np.zeros_like(factor)


def pooled(op: Operation) -> tuple[bool, bool, Window, list[int]]:
    """Of a Pooling: whether MAX, whether one window takes the whole image, the window, and how much padding each axis needs at its
    end so that the last window, where Caffe rounds up, lies inside.
    """
    op.need(op.param.pool in (MAX, AVE))
    window = op.window()
    sizes, outs = (op.bottoms[0].shape or ())[2:], (op.top.shape or ())[2:]
    ends = [max(0, (out - 1) * s + k - n - p) for n, out, k, s, p in zip(sizes, outs, window.kernel, window.stride, window.pad)]
    largest = op.param.pool == MAX
    op.need(largest or not any((*window.pad, *ends)))  # each program has a divisor of its own at the edges
    return largest, window.kernel == sizes and not any(window.pad), window, ends


# ---- ONNX


def onnx_model(net: Net) -> Any:
    """The net as an ONNX ModelProto, its batch left open. Raises Unsupported."""
    onnx: Any = import_module("onnx")
    helper, tensor = onnx.helper, onnx.numpy_helper.from_array
    arrays = parameters(net)
    (source,) = (net.blobs[name].root for name in net.inputs)
    (output,) = (net.blobs[name] for name in net.outputs)
    names: dict[Blob, str] = {source: source.name}
    nodes: list[Any] = []
    constants: list[Any] = []
    settings: dict[str, Any]

    def emit(kind: str, inputs: Sequence[str], into: str, values: Sequence[np.ndarray] = (), **settings: Any) -> str:
        weights = [f"{into}/{number}" for number in range(len(values))]
        constants.extend(map(tensor, values, weights))
        nodes.append(helper.make_node(kind, [*inputs, *weights], [into], into, **settings))
        return into

    for number, op in enumerate(operations(net.graph)):
        bottoms = [names[blob] for blob in op.bottoms]
        values = arrays.get(op.node.name, ())
        name = names[op.top] = f"{number}:{op.top.name}"
        match op.node.type:
            case "Convolution":
                w = op.window()
                settings = {"kernel_shape": w.kernel, "strides": w.stride, "pads": w.pad * 2, "dilations": w.dilation}
                emit("Conv", bottoms, name, values, group=op.param.group, **settings)
            case "InnerProduct":
                op.need(op.param.axis == 1 and not op.param.transpose)
                emit("Gemm", [emit("Flatten", bottoms, f"{name}/flat", axis=1)], name, values, transB=1)
            case "ReLU":
                op.need(op.param.negative_slope == 0)
                emit("Relu", bottoms, name)
            case "Pooling":
                largest, whole, w, ends = pooled(op)
                settings = {} if whole else {"kernel_shape": w.kernel, "strides": w.stride, "pads": [*w.pad, *ends]}
                emit(f"{'Global' * whole}{'Max' if largest else 'Average'}Pool", bottoms, name, **settings)
            case "LRN":
                op.need(op.param.norm_region == 0)
                settings = {"size": op.param.local_size, "alpha": op.param.alpha, "beta": op.param.beta, "bias": op.param.k}
                emit("LRN", bottoms, name, **settings)
            case "BatchNorm":
                emit("BatchNormalization", bottoms, name, normalised(op, arrays), epsilon=op.param.eps)
            case "Scale":
                factor, summand = (each[:, None, None] for each in scaled(op.node, arrays))
                emit("Add", [emit("Mul", bottoms, f"{name}/product", [factor])], name, [summand])
            case "Eltwise":
                op.need(op.param.operation == SUM and not op.param.coeff and len(bottoms) == 2)
                emit("Add", bottoms, name)
            case "Concat":
                emit("Concat", bottoms, name, axis=op.param.axis)
            case "Softmax":
                emit("Softmax", bottoms, name, axis=op.param.axis)
            case _:
                op.need(False)
    ends = [
        helper.make_tensor_value_info(names[blob], onnx.TensorProto.FLOAT, ["N", *(blob.shape or ())[1:]])
        for blob in (source, output)
    ]
    graph = helper.make_graph(nodes, net.name or "net", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def write_onnx(net: Net, folder: Path) -> None:
    (folder / ONNX).write_bytes(onnx_model(net).SerializeToString())


def load_onnxruntime(folder: Path, batch: int, threads: int) -> Run:
    ort: Any = import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle workers would spin in the others' turns
    session = ort.InferenceSession(str(folder / ONNX), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0].name
    return lambda x: session.run(None, {source: x})[0]


# ---- torch


def torch_steps(graph: Graph, arrays: Arrays) -> Iterator[tuple[Operation, Callable[..., Any]]]:
    """Each operation with the function of its inputs by which torch computes it. Raises Unsupported."""
    torch: Any = import_module("torch")
    functional = torch.nn.functional
    settings: dict[str, Any]
    for op in operations(graph):
        values = list(map(torch.from_numpy, arrays.get(op.node.name, ())))
        weight, bias = (*values, None, None)[:2]
        match op.node.type:
            case "Convolution":
                w = op.window()
                settings = {"stride": w.stride, "padding": w.pad, "dilation": w.dilation, "groups": op.param.group}
                yield op, partial(functional.conv2d, weight=weight, bias=bias, **settings)
            case "InnerProduct":
                op.need(op.param.axis == 1 and not op.param.transpose)
                yield op, lambda x, weight=weight, bias=bias: functional.linear(x.flatten(1), weight, bias)
            case "ReLU":
                op.need(op.param.negative_slope == 0)
                alone = op.node.in_place(0) and op.bottoms == op.node.bottoms and len(op.bottoms[0].readers) == 1
                yield op, torch.relu_ if alone else torch.relu
            case "Pooling":
                largest, whole, w, _ = pooled(op)
                settings = {"kernel_size": w.kernel, "stride": w.stride}
                if largest:
                    settings |= {"padding": w.pad, "ceil_mode": op.param.round_mode != FLOOR}
                    yield op, partial(functional.max_pool2d, **settings)
                elif whole:
                    yield op, partial(torch.mean, dim=(2, 3), keepdim=True)
                else:
                    yield op, partial(functional.avg_pool2d, **settings)
            case "LRN":
                op.need(op.param.norm_region == 0)
                settings = {"size": op.param.local_size, "alpha": op.param.alpha, "beta": op.param.beta, "k": op.param.k}
                yield op, partial(functional.local_response_norm, **settings)
            case "BatchNorm":
                names = ("weight", "bias", "running_mean", "running_var")
                settings = dict(zip(names, map(torch.from_numpy, normalised(op, arrays)), strict=True))
                yield op, partial(functional.batch_norm, eps=op.param.eps, **settings)
            case "Scale":
                factor, summand = (torch.from_numpy(each)[:, None, None] for each in scaled(op.node, arrays))
                yield op, lambda x, factor=factor, summand=summand: x * factor + summand
            case "Eltwise":
                op.need(op.param.operation == SUM and not op.param.coeff and len(op.bottoms) == 2)
                yield op, torch.add
            case "Concat":
                yield op, lambda *parts, axis=op.param.axis: torch.cat(parts, axis)
            case "Softmax":
                yield op, partial(torch.softmax, dim=op.param.axis)
            case _:
                op.need(False)


def write_torch(net: Net, folder: Path) -> None:
    torch: Any = import_module("torch")
    write_prototxt(net, folder)
    torch.save({name: list(map(torch.from_numpy, arrays)) for name, arrays in parameters(net).items()}, folder / TORCH)


def load_torch(folder: Path, batch: int, threads: int) -> Run:
    """The net's structure is read by us, its weights by torch. Values are dropped after their last reader."""
    torch: Any = import_module("torch")
    torch.set_num_threads(threads)
    net = inspector.load(folder / PROTOTXT)
    stored = torch.load(folder / TORCH, weights_only=True)
    steps = list(torch_steps(net.graph, {name: [tensor.numpy() for tensor in tensors] for name, tensors in stored.items()}))
    source, output = net.blobs[net.inputs[0]].root, net.blobs[net.outputs[0]]
    last = {blob: number for number, (op, _) in enumerate(steps) for blob in op.bottoms}
    dropped = [[blob for blob in set(op.bottoms) if last[blob] == number] for number, (op, _) in enumerate(steps)]

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            values = {source: torch.from_numpy(x)}
            for (op, function), gone in zip(steps, dropped, strict=True):
                values[op.top] = function(*(values[blob] for blob in op.bottoms))
                for blob in gone:
                    del values[blob]
            return values[output].numpy()

    return run


# ---- the table


@dataclass(frozen=True)
class Peer:
    """How a program gets a net. `package` is what it is installed as, `module` what is imported."""

    module: str
    package: str
    write: Callable[[Net, Path], None]
    load: Callable[[Path, int, int], Run]

    @property
    def installed(self) -> bool:
        if self.module == "caffe" and pycaffe() is not None:
            return True
        needs = (self.module, "onnx") if self.write is write_onnx else (self.module,)
        return all(find_spec(name) is not None for name in needs)


PEERS: Mapping[str, Peer] = {
    "OpenCV": Peer("cv2", "opencv-python-headless", write_caffe, load_opencv),
    "onnxruntime": Peer("onnxruntime", "onnxruntime", write_onnx, load_onnxruntime),
    "torch": Peer("torch", "torch", write_torch, load_torch),
    "Caffe": Peer("caffe", "caffe", write_caffe, load_caffe),
}
OURS: Mapping[str, Peer] = {
    name: Peer("inspector", "alexinspect", write_caffe, partial(load_ours, name)) for name in ("reference", "default", "fast")
}
