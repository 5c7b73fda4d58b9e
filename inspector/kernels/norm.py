"""Normalisations: arrays in, arrays out."""

from __future__ import annotations

import numpy as np

from ..window import Window


def channel_sums(x: np.ndarray, size: int) -> np.ndarray:
    """N x C x ...: each element plus its neighbours in the `size` channels centred on it; channels that do not exist count as 0."""
    channels = x.shape[1]
    total = np.zeros_like(x)
    for _, served, read in Window((size,), (1,), ((size - 1) // 2,), (1,)).reach(0, channels, channels):
        total[:, served] += x[:, read]
    return total


def lrn(x: np.ndarray, size: int, alpha: float, beta: float, k: float) -> tuple[np.ndarray, np.ndarray]:
    """Local response normalisation across channels, x / scale^beta; and the scale k + alpha/size * sum of squares, N x C x ..."""
    scale = k + alpha / size * channel_sums(x * x, size)
    with np.errstate(divide="ignore", invalid="ignore"):  # alpha and k may be anything; powers of what they give are as in C
        return x * scale**-beta, scale


def lrn_gradient(
    dy: np.ndarray, x: np.ndarray, y: np.ndarray, scale: np.ndarray, size: int, alpha: float, beta: float
) -> np.ndarray:
    """Gradient of `lrn` by x."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return dy * scale**-beta - 2 * alpha * beta / size * x * channel_sums(dy * y / scale, size)


def moments(x: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and (biased) variance over `axes`, which stay as axes of size 1."""
    mean = x.mean(axis=axes, keepdims=True)
    return mean, np.square(x - mean).mean(axis=axes, keepdims=True)


def standardised_gradient(dy: np.ndarray, y: np.ndarray, deviation: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Gradient of y = (x - mean) / deviation by x, mean and deviation being those of x over `axes`.

    Exact where the deviation is sqrt(variance + eps); for sqrt(variance) + eps it is what Caffe's MVN computes.
    """
    return (dy - dy.mean(axis=axes, keepdims=True) - y * (dy * y).mean(axis=axes, keepdims=True)) / deviation
