"""LSTM, RNN and LSTMUnit: against plain loops, central differences, and real Caffe, whose log shows the unrolled net."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from google.protobuf import text_format

from caffe_proto import caffe_pb2
from inspector.errors import Refusal
from inspector.layers import base

from . import oneshot
from .conftest import reference_folder
from .naive_window import arrays, context
from .test_layers_loss import central, named

TYPES = ("LSTM", "RNN", "LSTMUnit")
CASES = oneshot.prototxts(reference_folder(), *TYPES) if reference_folder() else []
CONT = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 1], [1, 1, 1]], float)  # T = 4, N = 3
H = 2


@pytest.mark.skipif(not CASES, reason="no reference folder: set ALEXINSPECT_REFERENCE to the answers of real Caffe")
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_caffe(path):
    cases = oneshot.run_case(path)
    assert cases and not [str(case) for case in cases if not case.ok]


@pytest.mark.skipif(not CASES, reason="no reference folder: set ALEXINSPECT_REFERENCE to the answers of real Caffe")
@pytest.mark.parametrize("path", [path for path in CASES if path.parent.name != "LSTMUnit"], ids=lambda path: path.stem)
def test_the_unrolled_net_is_the_one_in_the_log(path):
    log = path.with_suffix(".log").read_text()
    dump = re.split(r"^[IWEF]\d{4} ", log.split("Initializing net from parameters: \n")[2], flags=re.MULTILINE)[0]
    proto = next(proto for proto in oneshot.read_net(path).layer if proto.name == "l")
    shapes = oneshot.shapes_of(path)
    ours = base.create(proto).unrolled(*(shapes[name] for name in proto.bottom))
    theirs = text_format.Parse(dump, caffe_pb2.NetParameter())
    assert str(ours) == str(theirs)


def recurrent(kind: str, settings: str = "", bottoms: int = 2, tops: int = 1) -> base.Layer:
    return named(kind, bottoms, f"recurrent_param {{ num_output: {H} {settings} }}", tops)


def inputs(subject: base.Layer, *bottoms: np.ndarray, seed: int = 5) -> list[np.ndarray]:
    """The bottoms, and parameters of the shapes that the layer asks for."""
    return [*bottoms, *arrays(*(p.shape for p in subject.params(*(b.shape for b in bottoms))), seed=seed)]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def naive_lstm(x, cont, h0, c0, w_x, b, w_h, static=None, w_s=None):
    """One number at a time, from the equations in Caffe's documentation; gives h (T, N, H) and the last c."""
    steps, streams = x.shape[:2]
    h, c = h0.copy(), c0.copy()
    out = np.zeros((steps, streams, H))
    for t in range(steps):
        for n in range(streams):
            before = cont[t, n] * h[n]
            gate = []
            for row in range(4 * H):
                total = b[row] + sum(w_x[row, d] * v for d, v in enumerate(x[t, n].flat))
                total += sum(w_h[row, k] * before[k] for k in range(H))
                if static is not None:
                    total += sum(w_s[row, d] * v for d, v in enumerate(static[n].flat))
                gate.append(total)
            for k in range(H):
                i, f, o, g = (gate[part * H + k] for part in range(4))
                c[n, k] = cont[t, n] * sigmoid(f) * c[n, k] + sigmoid(i) * math.tanh(g)
                out[t, n, k] = sigmoid(o) * math.tanh(c[n, k])
            h[n] = out[t, n]
    return out, c


def naive_rnn(x, cont, h0, w_x, b, w_h, w_o, b_o, static=None, w_s=None):
    steps, streams = x.shape[:2]
    h = h0.copy()
    out = np.zeros((steps, streams, H))
    for t in range(steps):
        for n in range(streams):
            before = cont[t, n] * h[n]
            for k in range(H):
                total = b[k] + sum(w_x[k, d] * v for d, v in enumerate(x[t, n].flat)) + sum(w_h[k, j] * before[j] for j in range(H))
                if static is not None:
                    total += sum(w_s[k, d] * v for d, v in enumerate(static[n].flat))
                h[n, k] = math.tanh(total)
            for k in range(H):
                out[t, n, k] = math.tanh(b_o[k] + sum(w_o[k, j] * h[n, j] for j in range(H)))
    return out, h


def naive(kind, x, cont, static, states, params):
    """Tops h (or o) and the states after the last timestep, in the order in which Caffe exposes them."""
    extra = {}
    if static is not None:
        params = list(params)
        extra = {"static": static, "w_s": params.pop(2)}
    if kind == "LSTM":
        out, c = naive_lstm(x, cont, *states, *params, **extra)
        return out, [out[-1], c]
    out, h = naive_rnn(x, cont, *states, *params, **extra)
    return out, [h]


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("exposed", [False, True])
def test_forward(kind, static, exposed):
    states = 2 if kind == "LSTM" else 1
    (x,) = arrays((4, 3, 5, 2))
    static_input = arrays((3, 4, 2), seed=3)[0] if static else None
    first = arrays(*[(1, 3, H)] * states, seed=4)
    cont = CONT.copy()
    cont[0] = 1, 0, 1  # the states before do count
    bottoms = [x, cont, *([static_input] if static else []), *(first if exposed else [])]
    tops = 1 + exposed * states
    subject = recurrent(kind, "expose_hidden: true" if exposed else "", len(bottoms), tops)
    values = inputs(subject, *bottoms)
    shapes = [b.shape for b in bottoms]
    subject.check_counts(len(bottoms))
    assert list(subject.shapes(*shapes)) == [(4, 3, H)] + [(1, 3, H)] * (tops - 1)
    got = subject.forward(context(len(bottoms)), *values)
    start = [s[0] for s in first] if exposed else [np.zeros((3, H))] * states
    expected, last = naive(kind, x, cont, static_input, start, values[len(bottoms) :])
    np.testing.assert_allclose(got[0], expected)
    for top, state in zip(got[1:], last, strict=exposed):
        np.testing.assert_allclose(top, state[None])
    if not exposed:  # the next forward goes on where this one ended
        again, _ = naive(kind, x, cont, static_input, last, values[len(bottoms) :])
        np.testing.assert_allclose(subject.forward(context(len(bottoms)), *values)[0], again)
        subject.reset()
        np.testing.assert_allclose(subject.forward(context(len(bottoms)), *values)[0], expected)
        other = [x[:, :2], cont[:, :2], *([static_input[:2]] if static else []), *values[len(bottoms) :]]
        fewer, _ = naive(kind, *other[:2], static_input[:2] if static else None, [s[:2] * 0 for s in start], values[len(bottoms) :])
        np.testing.assert_allclose(subject.forward(context(len(bottoms)), *other)[0], fewer)  # another batch begins anew


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("exposed", [False, True])
def test_backward(kind, static, exposed):
    states = 2 if kind == "LSTM" else 1
    bottoms = [*arrays((4, 3, 5)), CONT, *arrays(*[(3, 4)] * static, seed=3), *arrays(*[(1, 3, H)] * (states * exposed), seed=4)]
    subject = recurrent(kind, "expose_hidden: true" if exposed else "", len(bottoms), 1 + exposed * states)
    values = inputs(subject, *bottoms)
    ctx = context(len(bottoms))
    tops = subject.forward(ctx, *values)
    (weight,) = arrays(tops[0].shape, seed=9)
    # Caffe takes nothing from the exposed states' gradients and gives none to the states before
    grads = subject.backward(ctx, weight, *(np.ones_like(top) for top in tops[1:]))
    assert len(grads) == len(values)
    for i, (grad, value) in enumerate(zip(grads, values, strict=True)):
        if i == 1 or len(bottoms) - states * exposed <= i < len(bottoms):
            assert grad is None
            continue
        numeric = central(lambda: (subject.forward(context(len(bottoms)), *values)[0] * weight).sum(), value)
        np.testing.assert_allclose(grad, numeric, atol=1e-7, err_msg=f"array {i}")


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_float32_stays_float32(kind):
    subject = recurrent(kind)
    values = [v.astype(np.float32) for v in inputs(subject, *arrays((4, 3, 5)), CONT)]
    ctx = context(2)
    (top,) = subject.forward(ctx, *values)
    assert top.dtype == np.float32
    assert all(g is None or g.dtype == np.float32 for g in subject.backward(ctx, top))


def test_lstm_unit():
    c, gates = arrays((1, 3, 2), (1, 3, 8))
    cont = np.array([[1, 0, 1.0]])
    subject = named("LSTMUnit", 3, tops=2)
    assert list(subject.shapes((1, 3, 2), (1, 3, 8), (1, 3))) == [(1, 3, 2)] * 2
    ctx = context(3)
    c_next, h = subject.forward(ctx, c, gates, cont)
    for n in range(3):
        for k in range(2):
            i, f, o, g = (gates[0, n, part * 2 + k] for part in range(4))
            expected = cont[0, n] * sigmoid(f) * c[0, n, k] + sigmoid(i) * math.tanh(g)
            assert c_next[0, n, k] == pytest.approx(expected)
            assert h[0, n, k] == pytest.approx(sigmoid(o) * math.tanh(expected))
    dc_next, dh = arrays((1, 3, 2), (1, 3, 2), seed=8)
    dc, dgates, none = subject.backward(ctx, dc_next, dh)

    def value():
        first, second = subject.forward(context(3), c, gates, cont)
        return (first * dc_next + second * dh).sum()

    np.testing.assert_allclose(dc, central(value, c), atol=1e-8)
    np.testing.assert_allclose(dgates, central(value, gates), atol=1e-8)
    assert none is None


def test_params_are_those_of_the_unrolled_net():
    for kind, names in (
        ("LSTM", ["W_xc", "b_c", "W_xc_static", "W_hc"]),
        ("RNN", ["W_xh", "b_h", "W_xh_static", "W_hh", "W_ho", "b_o"]),
    ):
        subject = recurrent(kind, "weight_filler { type: 'xavier' } bias_filler { value: 3 }", 3)
        params = subject.params((4, 3, 5, 2), (4, 3), (3, 7))
        assert [p.name for p in params] == names
        net = subject.unrolled((4, 3, 5, 2), (4, 3), (3, 7))
        assert names == list(dict.fromkeys(spec.name for proto in net.layer for spec in proto.param))
        assert [p.filler.type for p in params] == ["constant" if p.name.startswith("b") else "xavier" for p in params]
        assert [p.shape for p in params[:3]] == ([(8, 10), (8,), (8, 7)] if kind == "LSTM" else [(2, 10), (2,), (2, 7)])


def test_costs_count_the_inner_products():
    shapes = [(4, 3, 5), (4, 3), (3, 7)]
    lstm = recurrent("LSTM", bottoms=3).costs(shapes, [(4, 3, H)])
    assert lstm.mac == 4 * 3 * 8 * 5 + 4 * 3 * 8 * H + 3 * 8 * 7
    rnn = recurrent("RNN", bottoms=3).costs(shapes, [(4, 3, H)])
    assert rnn.mac == 4 * 3 * H * 5 + 4 * 3 * H * H + 3 * H * 7 + 4 * 3 * H * H
    assert lstm.bias == 4 * 3 * 8 and rnn.bias == 2 * 4 * 3 * H


def test_arity_depends_on_exposed_states():
    assert recurrent("LSTM").bottoms == (2, 3) and recurrent("LSTM").tops == 1
    assert recurrent("LSTM", "expose_hidden: true").bottoms == (4, 5) and recurrent("LSTM", "expose_hidden: true").tops == 3
    assert recurrent("RNN", "expose_hidden: true").bottoms == (3, 4)
    assert [recurrent("RNN").can_force_backward(i) for i in range(3)] == [True, False, True]
    assert [named("LSTMUnit", 3, tops=2).can_force_backward(i) for i in range(3)] == [True, True, False]


# ---- what Caffe refuses, and in which words

OUTPUT, EXPOSED = "num_output: 2", "num_output: 2 expose_hidden: true"
FATAL = [
    (
        "recurrent-x-axes",
        "LSTM",
        OUTPUT,
        [(4,), (4, 3)],
        "16] Check failed: bottom[0]->num_axes() >= 2 (1 vs. 2) bottom[0] must have",
    ),
    (
        "recurrent-cont-axes",
        "RNN",
        OUTPUT,
        [(4, 3, 5), (4, 3, 1)],
        "bottom[1]->num_axes() == 2 (3 vs. 2) bottom[1] must have exactly",
    ),
    ("recurrent-timesteps", "LSTM", OUTPUT, [(4, 3, 5), (5, 3)], "T_ == bottom[1]->shape(0) (4 vs. 5)"),
    ("recurrent-streams", "LSTM", OUTPUT, [(4, 3, 5), (4, 2)], "N_ == bottom[1]->shape(1) (3 vs. 2)"),
    ("recurrent-static-axes", "LSTM", OUTPUT, [(4, 3, 5), (4, 3), ()], "bottom[2]->num_axes() >= 1 (0 vs. 1)"),
    ("recurrent-static-streams", "RNN", OUTPUT, [(4, 3, 5), (4, 3), (2, 7)], "N_ == bottom[2]->shape(0) (3 vs. 2)"),
    (
        "lstm-num-output",
        "LSTM",
        "",
        [(4, 3, 5), (4, 3)],
        "lstm_layer.cpp:49] Check failed: num_output > 0 (0 vs. 0) num_output must be",
    ),
    (
        "rnn-num-output",
        "RNN",
        "",
        [(4, 3, 5), (4, 3)],
        "rnn_layer.cpp:44] Check failed: num_output > 0 (0 vs. 0) num_output must be",
    ),
    (
        "recurrent-hidden-shape",
        "LSTM",
        EXPOSED,
        [(4, 3, 5), (4, 3), (3, 7), (1, 3, 2), (1, 3, 4)],
        "shape mismatch - recur_input_blobs_[1]: 1 3 2 (6) vs. bottom[4]: 1 3 4 (12)",
    ),
    ("lstm-unit-cont-axes", "LSTMUnit", None, [(1, 3, 2), (1, 3, 8), (1, 3, 1)], "2 == bottom[i]->num_axes() (2 vs. 3)"),
    ("lstm-unit-axes", "LSTMUnit", None, [(1, 3), (1, 3, 8), (1, 3)], "3 == bottom[i]->num_axes() (3 vs. 2)"),
    ("lstm-unit-steps", "LSTMUnit", None, [(1, 3, 2), (4, 3, 8), (1, 3)], "1 == bottom[i]->shape(0) (1 vs. 4)"),
    ("lstm-unit-streams", "LSTMUnit", None, [(1, 3, 2), (1, 3, 8), (1, 4)], "num_instances == bottom[i]->shape(1) (3 vs. 4)"),
    ("lstm-unit-gates", "LSTMUnit", None, [(1, 3, 2), (1, 3, 6), (1, 3)], "4 * hidden_dim_ == bottom[1]->shape(2) (8 vs. 6)"),
]


@pytest.mark.parametrize(("code", "kind", "settings", "shapes", "words"), FATAL, ids=[row[0] for row in FATAL])
def test_refusals_say_what_caffe_says(code, kind, settings, shapes, words):
    text = "" if settings is None else f"recurrent_param {{ {settings} }}"
    with pytest.raises(Refusal) as caught:
        named(kind, len(shapes), text).shapes(*shapes)
    assert caught.value.code == code
    assert words in oneshot.caffe_words(caught.value)


def test_inputs_too_flat_for_the_inner_products_inside():
    for shapes in ([(4, 3), (4, 3)], [(4, 3, 5), (4, 3), (3,)]):
        with pytest.raises(Refusal) as caught:
            recurrent("LSTM", bottoms=len(shapes)).shapes(*shapes)
        assert caught.value.code == "axis-out-of-range"


def test_no_timesteps_leave_a_slice_without_tops():
    with pytest.raises(Refusal) as caught:
        recurrent("LSTM").shapes((0, 3, 5), (0, 3))
    assert "(1 vs. 0) Slice Layer produces at least 1 top blob(s)" in oneshot.caffe_words(caught.value)
