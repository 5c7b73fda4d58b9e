"""Random small nets of the layers that rules and tuned kernels know, and a few that they do not, wired at random."""

from __future__ import annotations

import numpy as np


def random_net(rng: np.random.Generator) -> str:
    """The prototxt of one net; sizes differ along all axes."""
    return _Maker(rng).text()


class _Maker:
    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.lines: list[str] = []
        self.blobs: dict[str, tuple[int, ...]] = {}
        self.read: set[str] = set()
        self.number = 0

    def pick(self, *choices: object) -> object:
        return choices[int(self.rng.integers(len(choices)))]

    def add(self, type_: str, bottoms: list[str], shape: tuple[int, ...], param: str = "", *, in_place: bool = False) -> str:
        self.number += 1
        name = f"{type_.lower()}{self.number}"
        top = bottoms[0] if in_place and bottoms[0] not in self.read and bottoms[0] != "in" else name
        self.read.update(blob for blob in bottoms if blob != top)
        lines = " ".join(f'bottom: "{blob}"' for blob in bottoms)
        self.lines.append(f'layer {{ name: "{name}" type: "{type_}" {lines} top: "{top}" {param} }}')
        self.blobs[top] = shape
        return top

    def text(self) -> str:
        n, c = int(self.rng.integers(1, 4)), int(self.pick(1, 3, 3, 6))
        h, w = int(self.rng.integers(9, 36)), int(self.rng.integers(10, 34))
        self.lines.append(
            f'layer {{ name: "in" type: "Input" top: "in" input_param {{ shape {{ {self._dims((n, c, h, w))} }} }} }}'
        )
        self.blobs["in"] = (n, c, h, w)
        for _ in range(int(self.rng.integers(6, 18))):
            self.grow()
        return "\n".join(self.lines)

    @staticmethod
    def _dims(shape: tuple[int, ...]) -> str:
        return " ".join(f"dim: {size}" for size in shape)

    def grow(self) -> None:
        """One more layer, or a few that belong together, on a blob made lately."""
        names = [name for name, shape in self.blobs.items() if len(shape) == 4][-5:]
        x = str(self.pick(*names))
        step = str(self.pick("conv", "conv", "conv", "norm", "neuron", "pool", "join", "branch", "wire", "flat", "deconv", "lrn"))
        getattr(self, step)(x)

    def conv(self, x: str) -> str:
        n, c, h, w = self.blobs[x]
        kernel, stride, pad, dilation = (int(self.pick(*some)) for some in ((1, 1, 3, 3, 5), (1, 1, 2), (0, 1, 2), (1, 1, 2)))
        dilation = 1 if kernel == 1 else dilation
        extent = dilation * (kernel - 1) + 1
        if h + 2 * pad < extent or w + 2 * pad < extent:
            kernel, extent, dilation, pad = 1, 1, 1, 0
        outputs = int(self.pick(4, 6, 8, 36))
        group = int(self.pick(1, 1, *(g for g in (2, 3, c) if c % g == 0 and outputs % g == 0)))
        if self.rng.random() < 0.2:
            group = outputs = c
        fields = f"num_output: {outputs} kernel_size: {kernel} stride: {stride} pad: {pad} dilation: {dilation} group: {group}"
        fields += " bias_term: false" if self.rng.random() < 0.3 else ""
        size = tuple((s + 2 * pad - extent) // stride + 1 for s in (h, w))
        return self.add("Convolution", [x], (n, outputs, *size), f"convolution_param {{ {fields} }}")

    def deconv(self, x: str) -> str:
        n, c, h, w = self.blobs[x]
        if h * w > 400:
            return self.conv(x)
        kernel, stride, pad = (int(self.pick(*some)) for some in ((2, 3, 4), (1, 2), (0, 1)))
        outputs, group = (c, c) if self.rng.random() < 0.4 else (5, 1)
        fields = f"num_output: {outputs} kernel_size: {kernel} stride: {stride} pad: {pad} group: {group}"
        size = tuple(stride * (s - 1) + kernel - 2 * pad for s in (h, w))
        if min(size) < 1:
            return x
        return self.add("Deconvolution", [x], (n, outputs, *size), f"convolution_param {{ {fields} }}")

    def norm(self, x: str) -> str:
        x = self.add("BatchNorm", [x], self.blobs[x], in_place=self.rng.random() < 0.6)
        if self.rng.random() < 0.8:
            x = self.add("Scale", [x], self.blobs[x], "scale_param { bias_term: true }", in_place=True)
        return self.neuron(x) if self.rng.random() < 0.6 else x

    def neuron(self, x: str) -> str:
        kind, param = self.pick(
            ("ReLU", ""),
            ("ReLU", ""),
            ("ReLU", "relu_param { negative_slope: 0.2 }"),
            ("PReLU", ""),
            ("Clip", "clip_param { min: -0.5 max: 0.7 }"),
            ("Sigmoid", ""),
            ("ELU", ""),
            ("Dropout", ""),
        )  # type: ignore[misc]
        return self.add(kind, [x], self.blobs[x], param, in_place=self.rng.random() < 0.5)

    def lrn(self, x: str) -> str:
        return self.add("LRN", [x], self.blobs[x], "lrn_param { local_size: 5 alpha: 0.3 beta: 0.75 }")

    def pool(self, x: str) -> str:
        n, c, h, w = self.blobs[x]
        if self.rng.random() < 0.2:
            return self.add("Pooling", [x], (n, c, 1, 1), "pooling_param { pool: AVE global_pooling: true }")
        kernel, stride = int(self.pick(2, 3)), int(self.pick(1, 2))
        pad = int(self.pick(0, 1))
        if min(h, w) < kernel:
            return x
        size = []
        for s in (h, w):
            out = -(-(s + 2 * pad - kernel) // stride) + 1
            size.append(out - 1 if pad and (out - 1) * stride >= s + pad else out)
        param = f"pooling_param {{ pool: {self.pick('MAX', 'AVE')} kernel_size: {kernel} stride: {stride} pad: {pad} }}"
        return self.add("Pooling", [x], (n, c, *size), param)

    def join(self, x: str) -> str:
        """A residual block, or a sum of any two blobs of one shape."""
        same = [name for name, shape in self.blobs.items() if shape == self.blobs[x] and name != x]
        c = self.blobs[x][1]
        if not same or self.rng.random() < 0.5:
            fields = f"num_output: {c} kernel_size: 3 pad: 1"
            inner = self.add("Convolution", [x], self.blobs[x], f"convolution_param {{ {fields} }}")
            other = self.norm(inner) if self.rng.random() < 0.5 else inner
        else:
            other = str(self.pick(*same))
        operation = str(self.pick("SUM", "SUM", "SUM", "PROD", "MAX"))
        bottoms = [x, other] if self.rng.random() < 0.5 else [other, x]
        y = self.add("Eltwise", bottoms, self.blobs[x], f"eltwise_param {{ operation: {operation} }}")
        return self.neuron(y) if self.rng.random() < 0.5 else y

    def branch(self, x: str) -> str:
        """An inception module: convolutions and a pooling of one blob, put together."""
        n, _, h, w = self.blobs[x]
        tops = []
        for _ in range(int(self.rng.integers(2, 5))):
            kernel, outputs = int(self.pick(1, 1, 3)), int(self.pick(2, 3, 5))
            fields = f"num_output: {outputs} kernel_size: {kernel} pad: {kernel // 2}"
            y = self.add("Convolution", [x], (n, outputs, h, w), f"convolution_param {{ {fields} }}")
            tops.append(self.neuron(y) if self.rng.random() < 0.6 else y)
        if self.rng.random() < 0.4:
            tops.append(x)
        shape = (n, sum(self.blobs[top][1] for top in tops), h, w)
        return self.add("Concat", tops, shape)

    def wire(self, x: str) -> str:
        """Layers that move things about."""
        n, c, h, w = self.blobs[x]
        kind = str(self.pick("slice", "reshape", "softmax", "crop", "reduction"))
        if kind == "slice" and c > 1:
            self.number += 1
            names = [f"part{self.number}a", f"part{self.number}b"]
            tops = " ".join(f'top: "{name}"' for name in names)
            point = f"slice_param {{ axis: 1 slice_point: {c // 2} }}"
            self.lines.append(f'layer {{ name: "slice{self.number}" type: "Slice" bottom: "{x}" {tops} {point} }}')
            self.read.add(x)
            self.blobs |= {names[0]: (n, c // 2, h, w), names[1]: (n, c - c // 2, h, w)}
            return names[0]
        if kind == "reshape":
            rows = self.add("Reshape", [x], (n, c, h * w), f"reshape_param {{ shape {{ dim: 0 dim: {c} dim: -1 }} }}")
            return self.add("Reshape", [rows], (n, c, h, w), f"reshape_param {{ shape {{ {self._dims((0, 0, h, w))} }} }}")
        if kind == "crop" and min(h, w) > 3:
            smaller = self.add("Pooling", [x], (n, c, h - 1, w - 1), "pooling_param { kernel_size: 2 }")
            return self.add("Crop", [x, smaller], (n, c, h - 1, w - 1), "crop_param { axis: 2 offset: 1 }")
        if kind == "reduction":
            return self.add("Reduction", [x], (n, c), "reduction_param { axis: 2 }")
        return self.add("Softmax", [x], self.blobs[x])

    def flat(self, x: str) -> str:
        """Fully connected layers, behind a Flatten or not."""
        n, c, h, w = self.blobs[x]
        if self.rng.random() < 0.5:
            x = self.add("Flatten", [x], (n, c * h * w))
        y = self.add("InnerProduct", [x], (n, 7), "inner_product_param { num_output: 7 }")
        if self.rng.random() < 0.5:
            y = self.add("ReLU", [y], (n, 7), in_place=True)
        z = self.add(
            "InnerProduct", [y], (n, 5), f"inner_product_param {{ num_output: 5 bias_term: {self.pick('true', 'false')} }}"
        )
        return self.add("Concat", [y, z], (n, 12)) if self.rng.random() < 0.5 else z
