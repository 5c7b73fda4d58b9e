"""Recurrent layers: LSTM, RNN, and LSTMUnit, one timestep of an LSTM.

Caffe unrolls LSTM and RNN into a net of their own, which its log shows in full: `unrolled` builds that net for the log, and the
arithmetic here runs without it. Bottoms are x (T, N, ...), cont (T, N), then a static input (N, ...) and, with `expose_hidden`,
the states before the first timestep, each (1, N, num_output).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from caffe_proto import caffe_pb2

from ..editions import MASTER, Arity, Edition
from ..lazy import LazyModule, np
from .base import TEST, Context, Costs, Layer, ParamShape, Shape, caffe_shape, count, register, shape_text

if TYPE_CHECKING:
    from ..kernels import recurrent as kernel
else:
    kernel = LazyModule("inspector.kernels.recurrent")


class Recurrent(Layer):
    """What LSTM and RNN have in common (Caffe's RecurrentLayer).

    Where the hidden state is not exposed it goes on from one forward to the next, as in Caffe: `state` holds it and `reset`
    forgets it.
    """

    messages = ("recurrent_param",)
    rule = "timesteps x streams x num_output; exposed states are 1 x streams x num_output"
    recurs: ClassVar[tuple[str, ...]] = ()  # the states that go from timestep to timestep, in Caffe's order
    gates: ClassVar[int] = 1  # rows of the weights per hidden unit
    hidden: ClassVar[str] = ""  # letters of the hidden layer in the names of parameters

    bottoms: Arity = (2, None)
    tops: Arity = (1, None)

    def __init__(self, proto: Any, phase: int = TEST, edition: Edition = MASTER) -> None:
        super().__init__(proto, phase, edition)
        self.param = proto.recurrent_param
        self.exposed = len(self.recurs) if self.param.expose_hidden else 0
        self.bottoms = (2 + self.exposed, 3 + self.exposed)
        self.tops = 1 + self.exposed
        self.state: tuple[np.ndarray, ...] | None = None

    def reset(self) -> None:
        """Forget the hidden state: the next forward starts from zeros (RecurrentLayer::Reset)."""
        self.state = None

    # ---- shapes

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        x, cont = bottoms[:2]
        if len(x) < 2:
            self.refuse("recurrent-x-axes", f"takes an input of timesteps x streams x ..., not {shape_text(x)}", a=len(x), b=2)
        if len(cont) != 2:
            self.refuse(
                "recurrent-cont-axes",
                f"takes sequence markers of timesteps x streams, not {shape_text(cont)}",
                a=len(cont),
                b=2,
            )
        steps, streams = x[:2]
        for axis, name in enumerate(("timesteps", "streams")):
            if x[axis] != cont[axis]:
                self.refuse(
                    f"recurrent-{name}",
                    f"has {x[axis]} {name} of input ({shape_text(x)}) and {cont[axis]} of sequence markers ({shape_text(cont)})",
                    a=x[axis],
                    b=cont[axis],
                )
        static = self.static(bottoms)
        if static is not None:
            if not static:
                self.refuse("recurrent-static-axes", "takes a static input of streams x ..., not a scalar", a=0, b=1)
            if static[0] != streams:
                self.refuse(
                    "recurrent-static-streams",
                    f"has {streams} streams, and its static input {static[0]} ({shape_text(static)})",
                    a=streams,
                    b=static[0],
                )
        if not self.param.num_output:
            self.refuse(f"{self.type.lower()}-num-output", "has num_output 0", remedy="set num_output to at least 1", a=0, b=0)
        if not steps:
            self.refuse("top-count-least", "unrolls no timestep", remedy="give it one at least", type="Slice", need=1, have=0)
        self.axis(2, x)  # the inner products that Caffe builds flatten from here on
        if static is not None:
            self.axis(1, static)
        hidden = (1, streams, self.param.num_output)
        first = len(bottoms) - self.exposed
        for j, bottom in enumerate(bottoms[first:]):
            if bottom != hidden:
                self.refuse(
                    "recurrent-hidden-shape",
                    f"takes states of {shape_text(hidden)}, and bottom {first + j} is {shape_text(bottom)}",
                    j=j,
                    i=first + j,
                    need=caffe_shape(hidden),
                    have=caffe_shape(bottom),
                )
        return [(steps, streams, self.param.num_output), *[hidden] * self.exposed]

    def static(self, bottoms: Sequence[Any]) -> Any | None:
        """The static input among the bottoms, if there is one."""
        return bottoms[2] if len(bottoms) > 2 + self.exposed else None

    def params(self, *bottoms: Shape) -> Sequence[ParamShape]:
        letters, rows = self.hidden, self.gates * self.param.num_output
        weight, bias = self.param.weight_filler, self.param.bias_filler
        params = [
            ParamShape(f"W_x{letters}", (rows, count(bottoms[0][2:])), weight),
            ParamShape(f"b_{letters}", (rows,), bias),
        ]
        static = self.static(bottoms)
        if static is not None:
            params.append(ParamShape(f"W_x{letters}_static", (rows, count(static[1:])), weight))
        return [*params, ParamShape(f"W_h{letters}", (rows, self.param.num_output), weight)]

    def can_force_backward(self, bottom: int) -> bool:
        return bottom != 1

    def settings(self) -> str:
        return f"{self.param.num_output}" + (" exposed" if self.exposed else "")

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        steps, streams = bottoms[0][:2]
        items, rows = steps * streams, self.gates * self.param.num_output
        static = self.static(bottoms)
        mac = items * rows * (count(bottoms[0][2:]) + self.param.num_output)
        add = items * rows
        if static is not None:
            mac += rows * count(static)
            add += items * rows
        return Costs(mac=mac, bias=items * rows, add=add, multiply=items * self.param.num_output)  # what cont multiplies

    # ---- arrays

    def backward_costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape], wanted: Sequence[bool]) -> Costs:
        """Each product of forward once for the gradient of its input and once for that of its weights; the elementwise operations
        of the units as often as in forward. The states' gradients are always computed, as Caffe does."""
        forward = self.costs(bottoms, tops)
        items, rows = bottoms[0][0] * bottoms[0][1], self.gates * self.param.num_output
        once = forward.mac - items * rows * count(bottoms[0][2:])  # all but the product with x, whose gradient may not be wanted
        mac = forward.mac + once + (forward.mac - once) * wanted[0]
        return replace(forward, mac=mac)

    def share(self, ctx: Context, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """What x and the static input add to every timestep: (T, N, gates * H)."""
        x, params = arrays[0], arrays[ctx.bottoms :]
        steps, streams = x.shape[:2]
        share = (x.reshape(steps * streams, -1) @ params[0].T + params[1]).reshape(steps, streams, -1)
        static = self.static(arrays[: ctx.bottoms])
        if static is not None:
            share = share + static.reshape(streams, -1) @ params[2].T
        return share

    def share_gradients(self, ctx: Context, arrays: Sequence[np.ndarray], dshare: np.ndarray) -> list[np.ndarray | None]:
        """Gradients of the bottoms, then of the input's weights, bias and static weights.

        None for `cont`, and for exposed states: Caffe propagates neither to the states before nor from those after.
        """
        x, w = arrays[0], arrays[ctx.bottoms]
        flat = dshare.reshape(-1, dshare.shape[2])  # T * N, rows
        grads: list[np.ndarray | None] = [(flat @ w).reshape(x.shape), *[None] * (ctx.bottoms - 1)]
        grads += [flat.T @ x.reshape(len(flat), -1), flat.sum(axis=0)]
        static = self.static(arrays[: ctx.bottoms])
        if static is not None:
            once = dshare.sum(axis=0)  # N, rows: it takes part in every timestep
            grads[2] = (once @ arrays[ctx.bottoms + 2]).reshape(static.shape)
            grads.append(once.T @ static.reshape(len(static), -1))
        return grads

    def before(self, ctx: Context, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """The states before the first timestep, each (N, H)."""
        if self.exposed:
            return tuple(a[0] for a in arrays[ctx.bottoms - self.exposed : ctx.bottoms])
        shape = (arrays[0].shape[1], self.param.num_output)
        if self.state is None or self.state[0].shape != shape:
            return tuple(np.zeros(shape, arrays[0].dtype) for _ in self.recurs)
        return tuple(state.astype(arrays[0].dtype, copy=False) for state in self.state)

    def after(self, top: np.ndarray, *states: np.ndarray) -> Sequence[np.ndarray]:
        """The tops, and the states kept for the next forward where they are not exposed."""
        if self.exposed:
            return [top, *(state[None].copy() for state in states)]
        self.state = tuple(state.copy() for state in states)
        return [top]

    # ---- the net that Caffe builds

    def unrolled(self, *bottoms: Shape) -> Any:
        """The NetParameter that Caffe unrolls this layer into and prints (RecurrentLayer::LayerSetUp, FillUnrolledNet)."""
        net = caffe_pb2.NetParameter()
        names = ["x", "cont"] + ["x_static"] * (self.static(bottoms) is not None)
        self._input(net, dict(zip(names, bottoms, strict=False)))
        output = self.unroll(net, bottoms)
        if self.proto.name:
            for layer in net.layer:
                layer.name = f"{self.proto.name}_{layer.name}"
        loss = f"{output}_pseudoloss"
        net.layer.add(name=loss, type="Reduction", bottom=[output], top=[loss], loss_weight=[1])
        return net

    def unroll(self, net: Any, bottoms: Sequence[Shape]) -> str:
        """Add the timesteps to `net` and name the output blob."""
        raise NotImplementedError

    @staticmethod
    def _input(net: Any, tops: dict[str, Shape]) -> None:
        layer = net.layer.add(type="Input", top=list(tops))
        for shape in tops.values():
            layer.input_param.shape.add(dim=shape)

    def _inner_product(self, net: Any, name: str, bottom: str, top: str, params: list[str], axis: int = 2, rows: int = 0) -> Any:
        """An InnerProduct with the settings that Caffe spells out; with a bias where two parameters are named."""
        layer = net.layer.add(name=name, type="InnerProduct", bottom=[bottom], top=[top])
        for param in params:
            layer.param.add(name=param)
        inner = layer.inner_product_param
        inner.num_output = rows or self.gates * self.param.num_output
        inner.bias_term = len(params) == 2
        inner.weight_filler.CopyFrom(self.param.weight_filler)
        if inner.bias_term:
            inner.bias_filler.CopyFrom(self.param.bias_filler)
        inner.axis = axis
        return layer

    def _unroll_inputs(self, net: Any, bottoms: Sequence[Shape]) -> tuple[Any, Any]:
        """Everything before the first timestep; the two Slice layers, whose tops the timesteps add."""
        steps_of_x, letters = f"W_x{self.hidden}_x", self.hidden
        state = (1, bottoms[0][1], self.param.num_output)
        self._input(net, {f"{name}_0": state for name in sorted(self.recurs)})
        cont = net.layer.add(name="cont_slice", type="Slice", bottom=["cont"])
        cont.slice_param.axis = 0
        self._inner_product(net, "x_transform", "x", steps_of_x, [f"W_x{letters}", f"b_{letters}"]).propagate_down.append(True)
        if self.static(bottoms) is not None:
            name = f"{steps_of_x}_static"
            layer = self._inner_product(net, name, "x_static", f"{name}_preshape", [f"W_x{letters}_static"], axis=1)
            layer.propagate_down.append(True)
            reshape = net.layer.add(name=f"{name}_reshape", type="Reshape", bottom=[f"{name}_preshape"], top=[name])
            reshape.reshape_param.shape.dim.extend([1, -1, layer.inner_product_param.num_output])
        inputs = net.layer.add(name=f"{steps_of_x}_slice", type="Slice", bottom=[steps_of_x])
        inputs.slice_param.axis = 0
        return cont, inputs

    def _unroll_hidden(self, net: Any, t: int, cont: Any, inputs: Any, product: str, total: str, summed: str, static: bool) -> None:
        """The beginning of timestep `t`: the state before times cont, times the recurrent weights, plus the inputs' share.

        `product`, `total` name the two layers, `summed` the blob of their sum.
        """
        letters = self.hidden
        recurrent = f"W_h{letters}"
        steps_of_x = f"W_x{letters}_x"
        cont.top.append(f"cont_{t}")
        inputs.top.append(f"{steps_of_x}_{t}")
        conted, multiplied = f"h_conted_{t - 1}", f"{recurrent}_h_{t - 1}"
        scale = net.layer.add(name=conted, type="Scale", bottom=[f"h_{t - 1}", f"cont_{t}"], top=[conted])
        scale.scale_param.axis = 0
        self._inner_product(net, product, conted, multiplied, [recurrent])
        terms = [multiplied, f"{steps_of_x}_{t}"] + [f"{steps_of_x}_static"] * static
        added = net.layer.add(name=total, type="Eltwise", bottom=terms, top=[summed])
        added.eltwise_param.operation = caffe_pb2.EltwiseParameter.SUM

    @staticmethod
    def _concat(net: Any, letter: str, steps: int) -> str:
        layer = net.layer.add(name=f"{letter}_concat", type="Concat", top=[letter])
        layer.bottom.extend(f"{letter}_{t}" for t in range(1, steps + 1))
        layer.concat_param.axis = 0
        return letter


@register("LSTM")
class LSTM(Recurrent):
    """Long short-term memory over T timesteps of N streams; `cont` is 0 where a stream begins anew::

        layer { type: "LSTM" bottom: "x" bottom: "cont" top: "h" recurrent_param { num_output: 256 } }

    (Caffe's LSTMLayer; Donahue et al., Long-term Recurrent Convolutional Networks, 2014)
    """

    recurs = ("h", "c")
    gates = 4
    hidden = "c"

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        return super().costs(bottoms, tops) + _unit_costs(count(tops[0]))

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        cont, w_h = arrays[1], arrays[-1]
        hidden, c, saved = kernel.lstm(self.share(ctx, arrays), w_h, cont, *self.before(ctx, arrays))
        ctx.saved = arrays, saved
        return self.after(hidden, hidden[-1], c)

    def backward(self, ctx: Context, *top_diffs: np.ndarray) -> Sequence[np.ndarray | None]:
        arrays, saved = ctx.saved
        dgates, dw = kernel.lstm_backward(top_diffs[0], arrays[-1], arrays[1], saved)
        return [*self.share_gradients(ctx, arrays, dgates), dw]

    def unroll(self, net: Any, bottoms: Sequence[Shape]) -> str:
        steps, static = bottoms[0][0], self.static(bottoms) is not None
        cont, inputs = self._unroll_inputs(net, bottoms)
        for t in range(1, steps + 1):
            gates = f"gate_input_{t}"
            self._unroll_hidden(net, t, cont, inputs, f"transform_{t}", gates, gates, static)
            net.layer.add(name=f"unit_{t}", type="LSTMUnit", bottom=[f"c_{t - 1}", gates, f"cont_{t}"], top=[f"c_{t}", f"h_{t}"])
        net.layer.add(type="Split", bottom=[f"c_{steps}"], top=["c_T"])
        return self._concat(net, "h", steps)


@register("RNN")
class RNN(Recurrent):
    """Plain recurrent net over T timesteps of N streams: hidden and output layer, both with tanh::

        layer { type: "RNN" bottom: "x" bottom: "cont" top: "o" recurrent_param { num_output: 256 } }

    (Caffe's RNNLayer)
    """

    recurs = ("h",)
    hidden = "h"

    def params(self, *bottoms: Shape) -> Sequence[ParamShape]:
        size = self.param.num_output
        return [
            *super().params(*bottoms),
            ParamShape("W_ho", (size, size), self.param.weight_filler),
            ParamShape("b_o", (size,), self.param.bias_filler),
        ]

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        n = count(tops[0])
        return super().costs(bottoms, tops) + Costs(mac=n * self.param.num_output, bias=n, exponential=2 * n)

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        cont, (w_h, w_o, b_o) = arrays[1], arrays[-3:]
        hidden, seen = kernel.rnn(self.share(ctx, arrays), w_h, cont, *self.before(ctx, arrays))
        top = np.tanh(hidden @ w_o.T + b_o)  # T, N, H
        ctx.saved = arrays, hidden, seen, top
        return self.after(top, hidden[-1])

    def backward(self, ctx: Context, *top_diffs: np.ndarray) -> Sequence[np.ndarray | None]:
        arrays, hidden, seen, top = ctx.saved
        w_h, w_o, _ = arrays[-3:]
        do = top_diffs[0] * (1 - top * top)  # T, N, H
        flat = do.reshape(-1, do.shape[2])
        dshare, dw_h = kernel.rnn_backward(do @ w_o, w_h, arrays[1], hidden, seen)
        dw_o = flat.T @ hidden.reshape(len(flat), -1)
        return [*self.share_gradients(ctx, arrays, dshare), dw_h, dw_o, flat.sum(axis=0)]

    def unroll(self, net: Any, bottoms: Sequence[Shape]) -> str:
        steps, static = bottoms[0][0], self.static(bottoms) is not None
        cont, inputs = self._unroll_inputs(net, bottoms)
        for t in range(1, steps + 1):
            self._unroll_hidden(net, t, cont, inputs, f"W_hh_h_{t - 1}", f"h_input_sum_{t}", f"h_neuron_input_{t}", static)
            net.layer.add(name=f"h_neuron_{t}", type="TanH", bottom=[f"h_neuron_input_{t}"], top=[f"h_{t}"])
            self._inner_product(net, f"W_ho_h_{t}", f"h_{t}", f"W_ho_h_{t}", ["W_ho", "b_o"])
            net.layer.add(name=f"o_neuron_{t}", type="TanH", bottom=[f"W_ho_h_{t}"], top=[f"o_{t}"])
        return self._concat(net, "o", steps)


def _unit_costs(n: int) -> Costs:
    """An LSTM's gates for `n` hidden numbers: three sigmoids and two tanh, cont on the forget gate, and the two state equations."""
    return Costs(exponential=5 * n, divide=3 * n, add=4 * n, multiply=4 * n)


@register("LSTMUnit")
class LSTMUnit(Layer):
    """One timestep of an LSTM, without its weights: cell state and gate inputs to the next cell and hidden state::

        layer { type: "LSTMUnit" bottom: "c_0" bottom: "gate_input" bottom: "cont" top: "c_1" top: "h_1" }

    Bottoms are (1, N, H), (1, N, 4H) and (1, N). (Caffe's LSTMUnitLayer)
    """

    rule = "those of the first bottom, 1 x streams x hidden, for cell state and hidden state"
    bottoms = 3
    tops = 2

    def shapes(self, *bottoms: Shape) -> Sequence[Shape]:
        streams = bottoms[0][self.axis(1, bottoms[0])]
        for i, shape in enumerate(bottoms):
            axes = 2 if i == 2 else 3
            if len(shape) != axes:
                self.refuse(
                    "lstm-unit-cont-axes" if i == 2 else "lstm-unit-axes",
                    f"takes {axes} axes as bottom {i}, not {shape_text(shape)}",
                    a=axes,
                    b=len(shape),
                )
            if shape[0] != 1:
                self.refuse("lstm-unit-steps", f"takes one timestep, and bottom {i} has {shape[0]}", a=1, b=shape[0])
            if shape[1] != streams:
                self.refuse(
                    "lstm-unit-streams",
                    f"takes {streams} streams, as bottom 0 has, and bottom {i} has {shape[1]}",
                    a=streams,
                    b=shape[1],
                )
        hidden, gates = bottoms[0][2], bottoms[1][2]
        if 4 * hidden != gates:
            self.refuse(
                "lstm-unit-gates",
                f"takes 4 gates of {hidden}, which is {4 * hidden} numbers, and gets {gates}",
                a=4 * hidden,
                b=gates,
            )
        return [bottoms[0], bottoms[0]]

    def can_force_backward(self, bottom: int) -> bool:
        return bottom != 2

    def costs(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Costs:
        return _unit_costs(count(tops[0]))

    def forward(self, ctx: Context, *arrays: np.ndarray) -> Sequence[np.ndarray]:
        c, gates, cont = arrays
        c_next, h, ctx.saved = kernel.lstm_unit(c[0], gates[0], cont[0])
        return [c_next[None], h[None]]

    def backward(self, ctx: Context, *top_diffs: np.ndarray) -> Sequence[np.ndarray | None]:
        dc, dgates = kernel.lstm_unit_backward(ctx.saved, top_diffs[0][0], top_diffs[1][0])
        return [dc[None], dgates[None], None]
