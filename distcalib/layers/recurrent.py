"""LSTM and RNN of BVLC, which Intel Caffe has, too: step by step, as its unrolled nets are.

In Caffe the state at the end of an iteration is that at the beginning of the next one.  Here each iteration begins with
zeros, so that iterations can be measured in any order: that is the same wherever a sequence begins at the first step of
each iteration, as `cont` 0 there says; `inspect` tells of it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import openvino.opset13 as ops
from openvino import Output

from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import constant, integers, reshape, shape_of

MAX_STEPS = 10_000
"""In one iteration; speech has some thousand."""


@converts("LSTM", bottoms=(2, 5), tops=(1, 3))
def lstm(layer: Layer, *inputs: Output) -> Sequence[Output]:
    """x (T, N, ...), cont (T, N) and, if given, static (N, ...) -> h (T, N, M).

    Gates i, f, o, g (4M,) are W_x·x + b + W_s·static + W_h·(cont·h); c = cont·σ(f)·c + σ(i)·tanh(g) and h =
    σ(o)·tanh(c).  Blobs: W_x (4M, D), b (4M,), W_s (4M, S) if there is a static input, W_h (4M, M).  With expose_hidden
    two more bottoms are h and c (1, N, M) before the first step, and two more tops those after the last one.
    (lstm_layer.cpp, lstm_unit_layer.cpp, recurrent_layer.cpp)
    """
    size = _size(layer)
    sums, conts, states, n_blobs = _prepared(layer, inputs, 4 * size, 2)
    w_h = constant(layer.blob(n_blobs, (4 * size, size)))
    layer.expect_blobs(n_blobs + 1)
    h, c = states
    made = []
    for of_inputs, cont in zip(sums, conts, strict=True):
        from_state = ops.matmul(ops.multiply(h, cont), w_h, False, True)
        c, h = _unit(c, ops.add(of_inputs, from_state).output(0), cont)
        made.append(h)
    return _tops(layer, made, [h, c])


@converts("LSTMUnit", bottoms=(3, 3), tops=(2, 2))
def lstm_unit(layer: Layer, c: Output, gates: Output, cont: Output) -> Sequence[Output]:
    """One step of an LSTM: c (1, N, M), gates (1, N, 4M), cont (1, N) -> c and h (1, N, M)."""
    shape = shape_of(c)
    fits = len(shape) == 3 and shape[0] == 1 and shape_of(gates) == (*shape[:2], 4 * shape[2])
    layer.require(
        fits and shape_of(cont) == shape[:2],
        f"its bottoms have shapes {shape}, {shape_of(gates)} and {shape_of(cont)}; (1, N, M), (1, N, 4M) and (1, N) "
        "are needed",
    )
    made = _unit(reshape(c, shape[1:]), reshape(gates, (shape[1], 4 * shape[2])), reshape(cont, (shape[1], 1)))
    return [reshape(y, shape) for y in made]


@converts("RNN", bottoms=(2, 4), tops=(1, 2))
def rnn(layer: Layer, *inputs: Output) -> Sequence[Output]:
    """x (T, N, ...), cont (T, N) and, if given, static (N, ...) -> o (T, N, M).

    h = tanh(W_x·x + b + W_s·static + W_h·(cont·h)), o = tanh(W_o·h + b_o).  Blobs: W_x, b, W_s if there is a static
    input, W_h, W_o, b_o.  expose_hidden is as for an LSTM, with h alone.  (rnn_layer.cpp)
    """
    size = _size(layer)
    sums, conts, [h], n_blobs = _prepared(layer, inputs, size, 1)
    w_h, w_o = (constant(layer.blob(n_blobs + i, (size, size))) for i in (0, 1))
    b_o = constant(layer.blob(n_blobs + 2, (size,)))
    layer.expect_blobs(n_blobs + 3)
    made = []
    for of_inputs, cont in zip(sums, conts, strict=True):
        from_state = ops.matmul(ops.multiply(h, cont), w_h, False, True)
        h = ops.tanh(ops.add(of_inputs, from_state)).output(0)
        made.append(ops.tanh(ops.add(ops.matmul(h, w_o, False, True), b_o)).output(0))
    return _tops(layer, made, [h])


def _size(layer: Layer) -> int:
    size = int(layer.param("recurrent_param").num_output)
    layer.require(size > 0, "num_output is missing; a recurrent layer needs it")
    return size


def _prepared(
    layer: Layer, inputs: Sequence[Output], n_sums: int, n_states: int
) -> tuple[list[Output], list[Output], list[Output], int]:
    """By step what the inputs bring (N, n_sums), and cont (N, 1); the first states (N, M); how many blobs are read."""
    exposed = n_states if layer.param("recurrent_param").expose_hidden else 0
    layer.require(
        len(inputs) - exposed in (2, 3) and len(layer.tops) == 1 + exposed,
        f"{len(inputs)} bottoms and {len(layer.tops)} tops are given; {2 + exposed}, or one more with a static input, "
        f"and {1 + exposed} are needed",
    )
    shape = shape_of(inputs[0])
    layer.require(
        len(shape) >= 2 and shape_of(inputs[1]) == shape[:2],
        f"its bottoms have shapes {shape} and {shape_of(inputs[1])}; (T, N, ...) and (T, N), steps and sequences, are "
        "needed",
    )
    n_steps, n_rows = _few_enough(layer, shape[0]), shape[1]
    width = prod(shape[2:])
    w_x, bias = layer.blob(0, (n_sums, width)), layer.blob(1, (n_sums,))
    flat = reshape(inputs[0], (n_steps * n_rows, width))
    total = ops.add(ops.matmul(flat, constant(w_x), False, True), constant(bias)).output(0)
    by_step = reshape(total, (n_steps, n_rows, n_sums))
    n_blobs = 2
    if len(inputs) - exposed == 3:
        given = shape_of(inputs[2])
        layer.require(given[:1] == (n_rows,), f"its static input has shape {given}; ({n_rows}, ...) is needed")
        w_s = constant(layer.blob(2, (n_sums, prod(given[1:]))))
        static = ops.matmul(reshape(inputs[2], (n_rows, prod(given[1:]))), w_s, False, True)
        by_step = ops.add(by_step, ops.unsqueeze(static, integers([0]))).output(0)
        n_blobs = 3
    size = _size(layer)
    states = [constant(np.zeros((n_rows, size), np.float32)) for _ in range(n_states)]
    if exposed:
        first = inputs[len(inputs) - exposed :]
        wrong = [shape_of(x) for x in first if shape_of(x) != (1, n_rows, size)]
        layer.require(not wrong, f"a state has shape {wrong[:1]}; (1, {n_rows}, {size}) is needed")
        states = [reshape(x, (n_rows, size)) for x in first]
    conts = [reshape(x, (n_rows, 1)) for x in _steps(inputs[1], n_steps)]
    return [reshape(x, (n_rows, n_sums)) for x in _steps(by_step, n_steps)], conts, states, n_blobs


def _few_enough(layer: Layer, n_steps: int) -> int:
    """The number of steps; each becomes some ten operators, and a hundred thousand take gigabytes."""
    layer.require(n_steps <= MAX_STEPS, f"its input has {n_steps:,} steps, and {MAX_STEPS:,} are converted at the most")
    return n_steps


def _steps(x: Output, n_steps: int) -> list[Output]:
    return list(ops.split(x, ops.constant(np.int64(0)), n_steps).outputs())


def _unit(c: Output, gates: Output, cont: Output) -> tuple[Output, Output]:
    """c and h (N, M) after a step."""
    i, f, o, g = ops.split(gates, ops.constant(np.int64(1)), 4).outputs()
    kept = ops.multiply(ops.multiply(ops.sigmoid(f), cont), c)
    c = ops.add(kept, ops.multiply(ops.sigmoid(i), ops.tanh(g))).output(0)
    return c, ops.multiply(ops.sigmoid(o), ops.tanh(c)).output(0)


def _tops(layer: Layer, made: Sequence[Output], states: Sequence[Output]) -> list[Output]:
    rows = [ops.unsqueeze(y, integers([0])) for y in made]
    tops = [ops.concat(rows, 0).output(0)]
    if layer.param("recurrent_param").expose_hidden:
        tops += [ops.unsqueeze(state, integers([0])).output(0) for state in states]
    return tops


@converts("Lstm", bottoms=(1, 2))
def lstm_of_forks(layer: Layer, x: Output, clip: Output | None = None) -> Output:
    """x (T·N, ...) -> h (T·N, M), N being batch_size; or x (T, N, D) -> h (T, N, M) where it is not given.

    Gates are as in an LSTM.  The state goes on from the second step on, or where `clip` (T·N,) is not 0.  Blobs: W_x
    (4M, D), W_h (4M, M), b (4M,).  (junhyukoh/caffe-lstm, lstm_layer.cpp, whose CPU form has an error for N above 1:
    there all sequences add what the first one's state brings; tianzhi0549/CTPN has the second form)
    """
    p, shape = layer.param("lstm_param"), shape_of(x)
    size = int(p.num_output)
    layer.require(size > 0, "num_output is missing; a recurrent layer needs it")
    by_axis = len(shape) == 3 and not p.HasField("batch_size")
    n_rows = shape[1] if by_axis else p.batch_size
    layer.require(
        len(shape) >= 2 and n_rows > 0 and (by_axis or shape[0] % n_rows == 0),
        f"its input has shape {shape} for batch_size={n_rows}",
    )
    n_steps = _few_enough(layer, shape[0] if by_axis else shape[0] // n_rows)
    width = prod(shape) // (n_steps * n_rows)
    layer.expect_blobs(3)
    w_x, w_h, bias = layer.blob(0, (4 * size, width)), layer.blob(1, (4 * size, size)), layer.blob(2, (4 * size,))
    flat = reshape(x, (n_steps * n_rows, width))
    total = ops.add(ops.matmul(flat, constant(w_x), False, True), constant(bias)).output(0)
    sums = [reshape(y, (n_rows, 4 * size)) for y in _steps(reshape(total, (n_steps, n_rows, 4 * size)), n_steps)]
    conts: list[Output]
    if clip is None:
        conts = [constant(np.full((n_rows, 1), float(step > 0), np.float32)) for step in range(n_steps)]
    else:
        layer.require(
            prod(shape_of(clip)) == n_steps * n_rows, f"its clip has shape {shape_of(clip)}; one a row is needed"
        )
        flags = ops.convert(ops.not_equal(reshape(clip, (n_steps, n_rows, 1)), constant(0.0)), "f32").output(0)
        conts = [reshape(y, (n_rows, 1)) for y in _steps(flags, n_steps)]
    h = c = constant(np.zeros((n_rows, size), np.float32))
    made = []
    for of_inputs, cont in zip(sums, conts, strict=True):
        from_state = ops.matmul(ops.multiply(h, cont), constant(w_h), False, True)
        c, h = _unit(c, ops.add(of_inputs, from_state).output(0), cont)
        made.append(h)
    joined = ops.concat([ops.unsqueeze(y, integers([0])) for y in made], 0).output(0)
    return joined if by_axis else reshape(joined, (n_steps * n_rows, size))
