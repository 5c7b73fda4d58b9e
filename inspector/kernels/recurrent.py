"""Arithmetic of recurrent layers: T timesteps, N streams, H hidden units; gates in the order input, forget, output, candidate."""

from __future__ import annotations

import numpy as np

from .loss import sigmoid

Arrays = tuple[np.ndarray, ...]
Steps = list[tuple[np.ndarray, Arrays]]  # per timestep: the state before times cont, and what its unit saved


def lstm_unit(c: np.ndarray, gates: np.ndarray, cont: np.ndarray) -> tuple[np.ndarray, np.ndarray, Arrays]:
    """One timestep: cell state (N, H) and gate inputs (N, 4H) to the next cell and hidden state, and what its backward needs.

    `cont` (N,) multiplies the forget gate; 0 begins a new sequence.
    """
    i, f, o, g = np.split(gates, 4, axis=1)  # N, H each
    i, f, o, g = sigmoid(i), cont[:, None] * sigmoid(f), sigmoid(o), np.tanh(g)
    c_next = f * c + i * g
    tanh_c = np.tanh(c_next)
    return c_next, o * tanh_c, (c, i, f, o, g, tanh_c)


def lstm_unit_backward(saved: Arrays, dc_next: np.ndarray, dh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of the cell state (N, H) and of the gate inputs (N, 4H).

    The forget gate's derivative takes f * (1 - f) with the `cont` already in f, as Caffe does: exact where `cont` is 0 or 1.
    """
    c, i, f, o, g, tanh_c = saved
    dc = dc_next + dh * o * (1 - tanh_c * tanh_c)
    dgates = np.concatenate([dc * g * i * (1 - i), dc * c * f * (1 - f), dh * tanh_c * o * (1 - o), dc * i * (1 - g * g)], axis=1)
    return dc * f, dgates


def lstm(
    gates_x: np.ndarray, w_h: np.ndarray, cont: np.ndarray, h: np.ndarray, c: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Steps]:
    """Hidden states (T, N, H) and the last cell state, from the inputs' share of the gates (T, N, 4H), and the first states."""
    hidden, saved = [], []
    for gates, on in zip(gates_x, cont, strict=True):
        conted = on[:, None] * h  # N, H
        c, h, unit = lstm_unit(c, gates + conted @ w_h.T, on)
        hidden.append(h)
        saved.append((conted, unit))
    return np.stack(hidden), c, saved


def lstm_backward(dhidden: np.ndarray, w_h: np.ndarray, cont: np.ndarray, saved: Steps) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of the gates (T, N, 4H) and of the recurrent weights (4H, H). None leaves the first timestep backwards."""
    dw = np.zeros_like(w_h)
    dgates = np.empty((*dhidden.shape[:2], len(w_h)), dhidden.dtype)
    dh = dc = np.zeros_like(dhidden[0])
    for t in reversed(range(len(dhidden))):
        conted, unit = saved[t]
        dc, dgates[t] = lstm_unit_backward(unit, dc, dhidden[t] + dh)
        dw += dgates[t].T @ conted
        dh = cont[t][:, None] * (dgates[t] @ w_h)
    return dgates, dw


def rnn(inputs: np.ndarray, w_h: np.ndarray, cont: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states (T, N, H) and what each saw of the one before, from the inputs' share (T, N, H) and the first state (N, H)."""
    hidden, seen = np.empty_like(inputs), np.empty_like(inputs)
    for t, on in enumerate(cont):
        seen[t] = on[:, None] * h
        h = hidden[t] = np.tanh(inputs[t] + seen[t] @ w_h.T)
    return hidden, seen


def rnn_backward(
    dhidden: np.ndarray, w_h: np.ndarray, cont: np.ndarray, hidden: np.ndarray, seen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of the inputs' share (T, N, H) and of the recurrent weights (H, H)."""
    dw = np.zeros_like(w_h)
    dinputs = np.empty_like(dhidden)
    dh = np.zeros_like(dhidden[0])
    for t in reversed(range(len(dhidden))):
        dinputs[t] = (dhidden[t] + dh) * (1 - hidden[t] * hidden[t])
        dw += dinputs[t].T @ seen[t]
        dh = cont[t][:, None] * (dinputs[t] @ w_h)
    return dinputs, dw
