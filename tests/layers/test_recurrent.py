"""LSTM and RNN against their formulas, a step and a sequence at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tests.layers.harness import random, refused, run

Array = npt.NDArray[np.float32]
T, N, M = 5, 3, 4
X = random(T, N, 2, 3)
STATIC = random(N, 5, seed=9)
CONT = np.array([[0, 0, 1], [1, 1, 1], [1, 0, 1], [1, 1, 0.5], [0, 1, 1]], np.float32)
STATES = [random(1, N, M, seed=seed) for seed in (20, 21)]


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def of_inputs(blobs: list[Array], step: int, item: int, static: bool) -> Array:
    total = blobs[0] @ X[step, item].ravel() + blobs[1]
    return np.asarray(total + blobs[2] @ STATIC[item] if static else total)


def lstm(blobs: list[Array], static: bool, states: list[Array]) -> list[Array]:
    made, last_h, last_c = (np.zeros((n, N, M), np.float32) for n in (T, 1, 1))
    for item in range(N):
        h, c = states[0][0, item], states[1][0, item]
        for step in range(T):
            gates = of_inputs(blobs, step, item, static) + blobs[-1] @ (CONT[step, item] * h)
            i, f, o, g = gates.reshape(4, M)
            c = CONT[step, item] * sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = made[step, item] = sigmoid(o) * np.tanh(c)
        last_h[0, item], last_c[0, item] = h, c
    return [made, last_h, last_c]


def rnn(blobs: list[Array], static: bool, states: list[Array]) -> list[Array]:
    made, last = (np.zeros((n, N, M), np.float32) for n in (T, 1))
    w_h, w_o, b_o = blobs[-3:]
    for item in range(N):
        h = states[0][0, item]
        for step in range(T):
            h = np.tanh(of_inputs(blobs, step, item, static) + w_h @ (CONT[step, item] * h))
            made[step, item] = np.tanh(w_o @ h + b_o)
        last[0, item] = h
    return [made, last]


def blobs_of(n_sums: int, static: bool, *more: tuple[int, ...]) -> list[Array]:
    shapes = [(n_sums, 6), (n_sums,), *([(n_sums, 5)] if static else []), (n_sums, M), *more]
    return [random(*shape, seed=30 + i) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("exposed", [False, True], ids=["hidden", "exposed"])
@pytest.mark.parametrize("static", [False, True], ids=["", "static"])
@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_recurrent(kind: str, static: bool, exposed: bool) -> None:
    n_states = 2 if kind == "LSTM" else 1
    blobs = blobs_of(4 * M, static) if kind == "LSTM" else blobs_of(M, static, (M, M), (M,))
    tops = " ".join(f'top: "{i}"' for i in range(1 + exposed * n_states))
    text = f'type: "{kind}" {tops} recurrent_param {{ num_output: {M} expose_hidden: {str(exposed).lower()} }}'
    inputs = [X, CONT, *([STATIC] if static else []), *(STATES[:n_states] if exposed else [])]
    made = run(text, *inputs, blobs=blobs)
    zeros = [np.zeros((1, N, M), np.float32)] * 2
    wanted = (lstm if kind == "LSTM" else rnn)(blobs, static, STATES if exposed else zeros)
    assert len(made) == 1 + exposed * n_states
    for found, expected in zip(made, wanted, strict=False):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_lstm_unit() -> None:
    c, gates, cont = STATES[0], random(1, N, 4 * M, seed=3), np.array([[0, 1, 0.5]], np.float32)
    made = run('type: "LSTMUnit" top: "c" top: "h"', c, gates, cont)
    i, f, o, g = np.split(gates[0], 4, axis=1)
    new = cont.T * sigmoid(f) * c[0] + sigmoid(i) * np.tanh(g)
    np.testing.assert_allclose(made[0][0], new, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made[1][0], sigmoid(o) * np.tanh(new), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "shapes", "said"),
    [
        ('type: "LSTM"', [(5, 3, 6), (5, 3)], "num_output is missing"),
        ('type: "LSTM" recurrent_param { num_output: 4 }', [(5, 3, 6), (5, 2)], "(T, N, ...) and (T, N)"),
        ('type: "RNN" recurrent_param { num_output: 4 }', [(5, 3, 6), (5, 3), (2, 4)], "static input has shape (2, 4)"),
        ('type: "RNN" recurrent_param { num_output: 4 expose_hidden: true }', [(5, 3, 6), (5, 3)], "3, or one more"),
        ('type: "LSTM" recurrent_param { num_output: 4 }', [(10_001, 1, 6), (10_001, 1)], "10,001 steps, and 10,000"),
    ],
    ids=["size", "cont", "static", "states", "steps"],
)
def test_refusals(text: str, shapes: list[tuple[int, ...]], said: str) -> None:
    blobs = [random(16, 6), random(16), random(16, 4)] if "LSTM" in text else [random(4, 6), random(4)]
    assert said in refused(text, *shapes, blobs=blobs)


@pytest.mark.parametrize("clipped", [False, True], ids=["", "clip"])
@pytest.mark.parametrize("by_axis", [False, True], ids=["batch_size", "axis"])
def test_lstm_of_forks(by_axis: bool, clipped: bool) -> None:
    blobs = [random(4 * M, 6, seed=1), random(4 * M, M, seed=2), random(4 * M, seed=3)]
    x = X.reshape(T, N, 6) if by_axis else X.reshape(T * N, 6)
    flags = np.where(CONT > 0, CONT, 0).reshape(-1)
    given = "" if by_axis else f"batch_size: {N}"
    inputs = [x, flags] if clipped else [x]
    [made] = run(f'type: "Lstm" lstm_param {{ num_output: {M} {given} }}', *inputs, blobs=blobs)
    wanted = np.zeros((T, N, M))
    for item in range(N):
        h, c = np.zeros(M), np.zeros(M)
        for step in range(T):
            goes_on = CONT[step, item] != 0 if clipped else step > 0
            gates = blobs[0] @ X[step, item].ravel() + blobs[2] + (blobs[1] @ h if goes_on else 0)
            i, f, o, g = gates.reshape(4, M)
            c = (sigmoid(f) * c if goes_on else 0) + sigmoid(i) * np.tanh(g)
            h = wanted[step, item] = sigmoid(o) * np.tanh(c)
    assert made.shape == ((T, N, M) if by_axis else (T * N, M))
    np.testing.assert_allclose(made.reshape(T, N, M), wanted, rtol=1e-4, atol=1e-5)
