"""Update rules against their formulas, number by number in float64; policies, decay, clipping, refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from caffe_proto import caffe_pb2
from inspector import solver
from inspector.errors import InspectorError


def settings(**fields: Any) -> Any:
    return caffe_pb2.SolverParameter(**{"lr_policy": "fixed", "base_lr": 0.1, **fields})


# each rule for one number: gradient, rate, what it remembers, settings, times that it was called -> what is subtracted


def sgd(g, rate, memory, s, times):
    memory[0] = rate * g + s["momentum"] * memory[0]
    return memory[0]


def nesterov(g, rate, memory, s, times):
    before = memory[0]
    memory[0] = rate * g + s["momentum"] * before
    return (1 + s["momentum"]) * memory[0] - s["momentum"] * before


def adagrad(g, rate, memory, s, times):
    memory[0] += g * g
    return rate * g / (math.sqrt(memory[0]) + s["delta"])


def rmsprop(g, rate, memory, s, times):
    memory[0] = s["rms_decay"] * memory[0] + (1 - s["rms_decay"]) * g * g
    return rate * g / (math.sqrt(memory[0]) + s["delta"])


def adadelta(g, rate, memory, s, times):
    m = s["momentum"]
    memory[0] = m * memory[0] + (1 - m) * g * g
    update = g * math.sqrt((memory[1] + s["delta"]) / (memory[0] + s["delta"]))
    memory[1] = m * memory[1] + (1 - m) * update * update
    return rate * update


def adam(g, rate, memory, s, times):
    a, b = s["momentum"], s["momentum2"]
    memory[0] = a * memory[0] + (1 - a) * g
    memory[1] = b * memory[1] + (1 - b) * g * g
    mean, square = memory[0], memory[1]
    return rate * math.sqrt(1 - b**times) / (1 - a**times) * mean / (math.sqrt(square) + s["delta"])


RULES = {
    "SGD": (sgd, {"momentum": 0.9}),
    "Nesterov": (nesterov, {"momentum": 0.8}),
    "AdaGrad": (adagrad, {"delta": 1e-3}),
    "RMSProp": (rmsprop, {"rms_decay": 0.97, "delta": 1e-4}),
    "AdaDelta": (adadelta, {"momentum": 0.95, "delta": 1e-5}),
    "Adam": (adam, {"momentum": 0.9, "momentum2": 0.99, "delta": 1e-6}),
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_its_formula(name: str) -> None:
    rule, own = RULES[name]
    rng = np.random.default_rng(3)
    shapes, mults = [(2, 3), (5,)], [1.0, 2.0]
    made = solver.create(settings(type=name, base_lr=0.05, **own), shapes)
    data = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    expected = [array.astype(np.float64) for array in data]
    memory = [[[0.0, 0.0] for _ in range(array.size)] for array in data]
    for times in range(1, 5):
        diffs = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
        for array, diff, mult, remembered in zip(expected, diffs, mults, memory, strict=True):
            flat = array.reshape(-1)
            for i, gradient in enumerate(diff.reshape(-1).astype(np.float64)):
                flat[i] -= rule(gradient, 0.05 * mult, remembered[i], own, times)
        made.apply([solver.Learned(array, diff, mult, 1) for array, diff, mult in zip(data, diffs, mults, strict=True)])
        made.iteration += 1
        for ours, theirs in zip(data, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6)
    assert len(made.history) == len(shapes) * made.histories
    assert all(array.dtype == np.float32 for array in made.history)


@pytest.mark.parametrize(
    ("fields", "iteration", "rate"),
    [
        ({"lr_policy": "fixed"}, 7, 0.1),
        ({"lr_policy": "step", "gamma": 0.5, "stepsize": 3}, 7, 0.1 * 0.5**2),
        ({"lr_policy": "exp", "gamma": 0.9}, 7, 0.1 * 0.9**7),
        ({"lr_policy": "inv", "gamma": 0.01, "power": 0.75}, 7, 0.1 * (1 + 0.07) ** -0.75),
        ({"lr_policy": "poly", "power": 2, "max_iter": 10}, 7, 0.1 * 0.3**2),
        ({"lr_policy": "sigmoid", "gamma": -0.5, "stepsize": 6, "base_lr": 0.2}, 7, None),
        ({"lr_policy": "sigmoid", "gamma": 0.5, "stepsize": 6}, 7, 0.1 / (1 + math.exp(-0.5))),
    ],
    ids=lambda value: value.get("lr_policy") if isinstance(value, dict) else None,
)
def test_a_policy_is_its_formula(fields: dict[str, Any], iteration: int, rate: float | None) -> None:
    if rate is None:
        with pytest.raises(InspectorError) as caught:
            solver.create(settings(**fields), [])
        assert caught.value.code == "solver-gamma"
        return
    made = solver.create(settings(**fields), [])
    made.iteration = iteration
    assert made.rate()[0] == pytest.approx(rate, rel=1e-6)


def test_multistep_takes_one_step_at_a_time() -> None:
    made = solver.create(settings(lr_policy="multistep", gamma=0.1, stepvalue=[2, 2, 5]), [])
    rates, said = [], []
    for made.iteration in range(7):
        rate, events = made.rate()
        rates.append(float(rate))
        said += [(event.values["iteration"], event.values["step"]) for event in events]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.001, 0.001, 0.0001, 0.0001], rel=1e-5)
    assert said == [(2, 1), (3, 2), (5, 3)]


def test_a_rate_may_leave_all_bounds() -> None:
    made = solver.create(settings(lr_policy="exp", gamma=10), [])
    made.iteration = 500
    assert made.rate()[0] == np.inf


@pytest.mark.parametrize(("kind", "pull"), [("L2", [-2.0, 0.0, 3.0]), ("L1", [-1.0, 0.0, 1.0])])
def test_decay_pulls_towards_zero(kind: str, pull: list[float]) -> None:
    made = solver.create(settings(weight_decay=0.5, regularization_type=kind, base_lr=1), [(3,), (3,)])
    arrays = [np.array([-2, 0, 3], np.float32) for _ in range(2)]
    made.apply([solver.Learned(array, np.zeros(3, np.float32), 1, mult) for array, mult in zip(arrays, (1, 0), strict=True)])
    np.testing.assert_allclose(arrays[0], np.array([-2, 0, 3]) - 0.5 * np.array(pull), rtol=1e-6)
    np.testing.assert_array_equal(arrays[1], [-2, 0, 3])


def test_gradients_are_clipped_together_before_they_are_divided_by_iter_size() -> None:
    made = solver.create(settings(clip_gradients=1, iter_size=2, base_lr=1), [(2,), (1,)])
    arrays = [np.zeros(2, np.float32), np.zeros(1, np.float32)]
    diffs = [np.array([2, 3], np.float32), np.array([6], np.float32)]  # a norm of 7
    (event,) = made.apply([solver.Learned(array, diff) for array, diff in zip(arrays, diffs, strict=True)])
    assert event.kind == "train-clip"
    assert event.values == pytest.approx({"norm": 7, "limit": 1, "scale": 1 / 7})
    np.testing.assert_allclose(np.concatenate(arrays), -np.array([2, 3, 6]) / 14, rtol=1e-6)


def test_a_small_gradient_is_not_clipped() -> None:
    made = solver.create(settings(clip_gradients=1, base_lr=1), [(2,)])
    array = np.zeros(2, np.float32)
    assert made.apply([solver.Learned(array, np.array([0.6, 0.8], np.float32))]) == []
    np.testing.assert_allclose(array, [-0.6, -0.8])


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"type": "AdamW"}, "solver-type"),
        ({"type": "AdaGrad", "momentum": 0.9}, "solver-momentum"),
        ({"type": "RMSProp", "momentum": 0.9}, "solver-momentum"),
        ({"type": "RMSProp", "rms_decay": 1}, "solver-rms-decay"),
        ({"lr_policy": "cosine"}, "solver-policy"),
        ({"lr_policy": "step", "gamma": 0.1}, "solver-stepsize"),
        ({"lr_policy": "exp", "gamma": -1}, "solver-gamma"),
        ({"regularization_type": "L3"}, "solver-regularization"),
        ({"iter_size": 0}, "solver-iter-size"),
    ],
    ids=str,
)
def test_settings_that_caffe_refuses(fields: dict[str, Any], code: str) -> None:
    with pytest.raises(InspectorError) as caught:
        solver.create(settings(**fields), [(2,)])
    assert caught.value.code == code
    assert str(caught.value).startswith("solver: ")
