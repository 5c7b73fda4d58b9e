"""Arithmetic of the losses. Scores are (outer, classes, inner), labels (outer, inner) whole numbers; no input is written to."""

from __future__ import annotations

import numpy as np

from . import softmax

FLOAT_MIN = float(np.finfo(np.float32).tiny)  # what Caffe keeps a probability above before it takes the logarithm
LOG_THRESHOLD = 1e-20  # the same, in the losses that read probabilities or an information gain matrix


def log_softmax_floor(scores: np.ndarray, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """Softmax over axis 1, and the logarithm of it after it was kept above `floor`; both (outer, classes, inner)."""
    prob = softmax.forward(scores, 1)
    return prob, np.log(np.maximum(prob, floor))


def infogain(log_prob: np.ndarray, label: np.ndarray, valid: np.ndarray, matrix: np.ndarray) -> float:
    """-sum of matrix[label, c] * log_prob[c] over the valid positions; `matrix` is (classes, classes)."""
    rows = matrix[label]  # outer, inner, classes
    return float(-(rows * np.moveaxis(log_prob, 1, 2)).sum(axis=2)[valid].sum())


def infogain_gradient(prob: np.ndarray, label: np.ndarray, valid: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Gradient of `infogain` with respect to the scores under the softmax: prob * (sum of the row) - row."""
    rows = np.moveaxis(matrix[label], 2, 1)  # outer, classes, inner
    return np.where(valid[:, None], prob * rows.sum(axis=1, keepdims=True) - rows, 0).astype(prob.dtype, copy=False)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow: exp is only taken of what is not positive."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def sigmoid_cross_entropy(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """-target * log(sigmoid(x)) - (1 - target) * log(1 - sigmoid(x)), element by element, without overflow."""
    return np.log1p(np.exp(-np.abs(x))) - x * (target - (x >= 0))


def hinge(x: np.ndarray, label: np.ndarray) -> np.ndarray:
    """max(0, 1 - score) of the true class and max(0, 1 + score) of all others; x is (items, classes), label (items,)."""
    signed = x.copy()
    items = np.arange(len(x))
    signed[items, label] *= -1
    return np.maximum(0, 1 + signed)


def hinge_gradient(margin: np.ndarray, label: np.ndarray, *, squared: bool) -> np.ndarray:
    """Gradient of the sum of `margin`, or of the sum of its squares."""
    dx = 2 * margin if squared else np.sign(margin)
    dx[np.arange(len(dx)), label] *= -1
    return dx


def contrastive(diff: np.ndarray, similar: np.ndarray, margin: float, *, legacy: bool) -> np.ndarray:
    """Twice the loss of each pair, (items,): squared distance of a similar one, what misses the margin otherwise.

    `legacy` compares the squared distance with the margin, as Caffe did before May 2015.
    """
    squared = np.einsum("nc,nc->n", diff, diff)
    apart = np.maximum(0, margin - squared) if legacy else np.maximum(0, margin - np.sqrt(squared)) ** 2
    return np.where(similar, squared, apart)


def contrastive_gradient(diff: np.ndarray, similar: np.ndarray, margin: float, *, legacy: bool) -> np.ndarray:
    """Half the gradient of `contrastive` with respect to the first of the pair, (items, channels); the second's is its negative.

    Caffe adds 1e-4 to the distance by which it divides.
    """
    squared = np.einsum("nc,nc->n", diff, diff)
    if legacy:
        factor = np.where(margin - squared > 0, -1, 0)
    else:
        distance = np.sqrt(squared)
        factor = np.minimum(0, distance - margin) / (distance + 1e-4)
    return np.where(similar, 1, factor).astype(diff.dtype, copy=False)[:, None] * diff


def hits(scores: np.ndarray, label: np.ndarray, top_k: int) -> np.ndarray:
    """Whether fewer than `top_k` other classes score at least as much as the true one; (outer, inner) booleans."""
    true = np.take_along_axis(scores, label[:, None], axis=1)  # outer, 1, inner
    return (scores >= true).sum(axis=1) - 1 < top_k
