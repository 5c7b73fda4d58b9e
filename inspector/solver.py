"""How parameters learn: learning-rate policies, weight decay, clipping, and the six update rules, each with Caffe's arithmetic.

Everything is float32 and in Caffe's order: clip the gradients, divide them by iter_size, add the decay, apply the rule, subtract.
(SGDSolver in sgd_solver.cpp; nesterov_, adagrad_, rmsprop_, adadelta_ and adam_solver.cpp)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import numpy as np

from .draft import Event
from .errors import InspectorError
from .layers import Shape

f32 = np.float32


@dataclass(slots=True)
class Learned:
    """One parameter at the moment of an update: its values, its gradient, and its multipliers. Both arrays are changed in place."""

    data: np.ndarray
    diff: np.ndarray
    lr_mult: float = 1.0
    decay_mult: float = 1.0


class Solver:
    """The state of one training: `iteration`, `step` (of the policies that count them), and `history`, the rule's own arrays.

    A subclass is a rule: `update` turns a gradient into what is subtracted. `history` holds the arrays of all parameters in their
    order, then, where the rule keeps two, the second ones likewise, as a solverstate has them.
    """

    name: ClassVar[str] = ""
    histories: ClassVar[int] = 1  # arrays per parameter
    momentum: ClassVar[bool] = True  # whether the rule takes one

    def __init__(self, proto: Any, shapes: Sequence[Shape]) -> None:
        self.proto = proto
        self.iteration = 0
        self.step = 0
        self.shapes = list(shapes)
        self.history = [np.zeros(shape, f32) for _ in range(self.histories) for shape in shapes]
        self._check()

    def _check(self) -> None:
        proto = self.proto
        if proto.momentum and not self.momentum:
            refuse(f"{self.name} takes no momentum, and {proto.momentum:g} is given", "solver-momentum", "remove momentum")
        if proto.regularization_type not in DECAYS:
            known = ", ".join(DECAYS)
            refuse(f"regularization_type is '{proto.regularization_type}'", "solver-regularization", f"known are {known}")
        if proto.lr_policy not in POLICIES:
            refuse(f"lr_policy is '{proto.lr_policy}'", "solver-policy", f"known are {', '.join(POLICIES)}")
        if proto.lr_policy in ("step", "sigmoid") and proto.stepsize <= 0:
            message = f"lr_policy '{proto.lr_policy}' needs a stepsize above 0, and has {proto.stepsize}"
            refuse(message, "solver-stepsize", "set stepsize")
        if proto.lr_policy not in ("fixed", "poly") and proto.gamma < 0:
            refuse(f"gamma is {proto.gamma:g}, and lr_policy '{proto.lr_policy}' needs at least 0", "solver-gamma", "set gamma")
        if proto.iter_size < 1:
            refuse(f"iter_size is {proto.iter_size}, and an update needs a batch", "solver-iter-size", "use at least 1")

    def rate(self) -> tuple[np.float32, list[Event]]:
        """The learning rate of this iteration, and what Caffe says of it; `multistep` goes at most one step further each time."""
        proto, said = self.proto, []
        if proto.lr_policy == "multistep":
            if self.step < len(proto.stepvalue) and self.iteration >= proto.stepvalue[self.step]:
                self.step += 1
                said.append(Event("train-multistep", {"iteration": self.iteration, "step": self.step}))
        elif proto.lr_policy == "step":
            self.step = self.iteration // proto.stepsize
        with np.errstate(all="ignore"):  # a rate may grow out of bounds, as Caffe's does
            return f32(POLICIES[proto.lr_policy](proto, self.iteration, self.step)), said

    def apply(self, params: Sequence[Learned]) -> list[Event]:
        """One update of all parameters (SGDSolver::ApplyUpdate); what Caffe says on the way. The caller counts the iteration.

        With `snapshot_diff` the gradients are then what was subtracted, which is what a snapshot keeps of them.
        """
        rate, said = self.rate()
        if self.proto.display and self.iteration % self.proto.display == 0:
            said.append(Event("train-rate", {"iteration": self.iteration, "rate": float(rate)}))
        said += self._clip(params)
        decay = DECAYS[self.proto.regularization_type]
        for i, param in enumerate(params):
            if self.proto.iter_size != 1:
                param.diff *= f32(1) / f32(self.proto.iter_size)
            local = f32(self.proto.weight_decay) * f32(param.decay_mult)
            if local:
                param.diff += local * decay(param.data)
            update = self.update(i, param.diff, rate * f32(param.lr_mult))
            param.data -= update
            if self.proto.snapshot_diff:
                param.diff[...] = update
        return said

    def _clip(self, params: Sequence[Learned]) -> list[Event]:
        """Scale all gradients down together where their common norm is above clip_gradients."""
        limit = f32(self.proto.clip_gradients)
        if limit < 0:
            return []
        norm = np.sqrt(sum((np.vdot(param.diff, param.diff) for param in params), f32(0)))
        if norm <= limit:
            return []
        scale = limit / norm
        for param in params:
            param.diff *= scale
        return [Event("train-clip", {"norm": float(norm), "limit": float(limit), "scale": float(scale)})]

    def update(self, index: int, diff: np.ndarray, rate: np.float32) -> np.ndarray:
        """What is subtracted from parameter `index`, by its gradient and its own learning rate."""
        raise NotImplementedError


class SGD(Solver):
    """Momentum: h = rate * g + momentum * h."""

    name = "SGD"

    def update(self, index: int, diff: np.ndarray, rate: np.float32) -> np.ndarray:
        history = self.history[index]
        history *= f32(self.proto.momentum)
        history += rate * diff
        return history


class Nesterov(SGD):
    """Momentum that looks ahead: (1 + m) * h - m * h before."""

    name = "Nesterov"

    def update(self, index: int, diff: np.ndarray, rate: np.float32) -> np.ndarray:
        momentum = f32(self.proto.momentum)
        before = self.history[index].copy()
        return (1 + momentum) * super().update(index, diff, rate) - momentum * before


class AdaGrad(Solver):
    """Each value's gradients are divided by the root of the sum of their squares."""

    name = "AdaGrad"
    momentum = False

    def update(self, index: int, diff: np.ndarray, rate: np.float32) -> np.ndarray:
        history = self.history[index]
        history += diff * diff
        return rate * (diff / (np.sqrt(history) + f32(self.proto.delta)))


class RMSProp(Solver):
    """As AdaGrad, by a moving average of the squares."""

    name = "RMSProp"
    momentum = False

    def _check(self) -> None:
        super()._check()
        if not 0 <= self.proto.rms_decay < 1:
            refuse(f"rms_decay is {self.proto.rms_decay:g}", "solver-rms-decay", "use a value from 0 to below 1")

    def update(self, index: int, diff: np.ndarray, rate: np.float32) -> np.ndarray:
        keep = f32(self.proto.rms_decay)
        history = self.history[index]
        history *= keep
        history += (1 - keep) * (diff * diff)
        return rate * (diff / (np.sqrt(history) + f32(self.proto.delta)))


class AdaDelta(Solver):
    """Gradients in units of the updates before: both squares are moving averages."""

    name = "AdaDelta"
    histories = 2

    def update(self, index: int, diff: np.ndarray, rate: np.float32) -> np.ndarray:
        keep, delta = f32(self.proto.momentum), f32(self.proto.delta)
        squares, updates = self.history[index], self.history[len(self.shapes) + index]
        squares *= keep
        squares += (1 - keep) * (diff * diff)
        update = diff * np.sqrt((updates + delta) / (squares + delta))
        updates *= keep
        updates += (1 - keep) * (update * update)
        return rate * update


class Adam(Solver):
    """Moving averages of gradient and square, both corrected for their start from zero."""

    name = "Adam"
    histories = 2

    def update(self, index: int, diff: np.ndarray, rate: np.float32) -> np.ndarray:
        keep, keep_squares = f32(self.proto.momentum), f32(self.proto.momentum2)
        mean, squares = self.history[index], self.history[len(self.shapes) + index]
        mean *= keep
        mean += (1 - keep) * diff
        squares *= keep_squares
        squares += (1 - keep_squares) * (diff * diff)
        times = self.iteration + 1
        correction = f32(math.sqrt(1 - float(keep_squares) ** times) / (1 - float(keep) ** times))
        return rate * correction * (mean / (np.sqrt(squares) + f32(self.proto.delta)))


def refuse(message: str, code: str, remedy: str = "") -> NoReturn:
    """Raise what Caffe would stop at when it reads the solver."""
    raise InspectorError(f"solver: {message}", code=code, remedy=remedy)


def _decayed(rate: float, factor: float, times: float) -> np.float64:
    return rate * np.float64(factor) ** times


POLICIES: dict[str, Callable[[Any, int, int], Any]] = {  # settings, iteration, step -> rate (SGDSolver::GetLearningRate)
    "fixed": lambda s, iteration, step: s.base_lr,
    "step": lambda s, iteration, step: _decayed(s.base_lr, s.gamma, step),
    "exp": lambda s, iteration, step: _decayed(s.base_lr, s.gamma, iteration),
    "inv": lambda s, iteration, step: _decayed(s.base_lr, 1 + s.gamma * iteration, -s.power),
    "multistep": lambda s, iteration, step: _decayed(s.base_lr, s.gamma, step),
    "poly": lambda s, iteration, step: _decayed(s.base_lr, 1 - iteration / s.max_iter, s.power),
    "sigmoid": lambda s, iteration, step: s.base_lr / (1 + np.exp(np.float64(-s.gamma * (iteration - s.stepsize)))),
}

DECAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"L2": lambda data: data, "L1": np.sign}

RULES: dict[str, type[Solver]] = {rule.name: rule for rule in (SGD, Nesterov, AdaGrad, RMSProp, AdaDelta, Adam)}


def create(proto: Any, shapes: Sequence[Shape]) -> Solver:
    """The solver that a SolverParameter (of today's form) asks for. Raises InspectorError for settings that Caffe refuses."""
    if proto.type not in RULES:
        refuse(f"type is '{proto.type}'", "solver-type", f"known are {', '.join(RULES)}")
    return RULES[proto.type](proto, shapes)
