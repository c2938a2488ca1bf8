"""The XLA engine's loops as a GPU gets them: the same answers, and of the HLO what a step launches."""

import re
from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

import cells
from cells import FusedRNN, GRUCell, LSTMCell, PeepholeLSTMCell
from cells.engines import native, xla
from cells.tests import test_fused_rnn as ordinary
from cells.tests.test_engines import PlainCell
from cells.tests.test_fused_rnn import DROPOUT, EveryKindCell

ANSWERS = [
    (LSTMCell, {}, {"go_backwards": True, "mask": True}),
    (GRUCell, DROPOUT, {"mask": True, "zero_output_for_mask": True}),
    (PeepholeLSTMCell, {}, {}),
    (cells.IndRNNCell, {}, {"return_sequences": False}),
    (EveryKindCell, {}, {"mask": True}),
]


@pytest.fixture
def on_gpu(monkeypatch):
    monkeypatch.setattr(xla, "on_gpu", lambda: True)
    monkeypatch.setattr(native, "in_place", lambda: False)


@pytest.mark.parametrize(("cell_class", "arguments", "options"), ANSWERS)
def test_a_gpus_layout_computes_what_keras_does(on_gpu, cell_class, arguments, options):
    ordinary.test_computes_what_keras_does(cell_class, arguments, options)


def test_the_layout_is_a_gpus_where_tensorflow_computes_on_one(monkeypatch):
    gpus = {"GPU": ["GPU:0"]}
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: gpus.get(kind, []))
    assert xla.on_gpu()
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [])
    assert not xla.on_gpu()


# --- HLO ---


def hlo(cell, timesteps, stage, batch=2, train=True):
    """The HLO of a layer and its gradient, in one program."""
    layer = FusedRNN(cell, return_sequences=True, engine="xla")
    inputs = tf.constant(np.zeros((batch, timesteps, 3), "float32"))
    layer.build(inputs.shape)

    def forward(inputs):
        return layer(inputs)

    def backward(inputs):
        weights = [each.value for each in layer.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=True)
        return outputs, tape.gradient(outputs, [inputs, *weights])

    program = tf.function(backward if train else forward, jit_compile=True, autograph=False)
    return program.experimental_get_compiler_ir(inputs)(stage=stage)


def loops(text):
    """Of each loop of an HLO text what its body holds, as counts of operations, called computations too."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if begun := re.match(r"(?:ENTRY )?%?([\w.-]+) .*\{$", line):
            body = found.setdefault(begun[1], [])
        elif " = " in line:
            body.append(line)

    def count(name):
        total = Counter()
        for line in found[name]:
            operation = re.search(r" = (?:\(.*?\)|\S+) ([\w-]+)\(", line)
            total[operation[1]] += 1
            for called in re.findall(r"(?:calls|to_apply|body)=%?([\w.-]+)", line):
                if operation[1] in ("call", "fusion"):
                    total += count(called)
        return total

    bodies = re.findall(r" while\(.*body=%?([\w.-]+)", text)
    return [count(name) for name in bodies]


@pytest.mark.parametrize(
    ("make", "timesteps"),
    [(LSTMCell, 200), (PlainCell, 200), (LSTMCell, 100)],
    ids=["gates", "traced", "few"],
)
def test_xla_knows_how_often_the_loops_turn(on_gpu, make, timesteps):
    """Down from the last step it did so to 128 steps only."""
    text = hlo(make(4), timesteps, "optimized_hlo")
    known = re.findall(r'known_trip_count":\{"n":"(\d+)"', text)
    assert known.count(str(timesteps)) == 2  # forth and back


@pytest.mark.parametrize(
    ("make", "products", "batch"),
    [
        (LSTMCell, 1, 2),
        (LSTMCell, 1, 64),
        (GRUCell, 1, 2),
        (lambda units: GRUCell(units, reset_after=False), 2, 2),
    ],
    ids=["lstm", "large batch", "gru", "gru with a late gate"],
)
def test_a_step_on_a_gpu_is_one_product_and_writes_whole_rows(on_gpu, make, products, batch):
    cell = make(4)
    states = len(keras.tree.flatten(cell.state_size))
    forth, back = loops(hlo(cell, 5, "hlo", batch))
    assert forth["dot"] == products and forth["dynamic-update-slice"] == states
    assert back["dot"] == products and back["dynamic-update-slice"] == 1
    (infers,) = loops(hlo(make(4), 5, "hlo", batch, train=False))
    assert infers["dot"] == products and infers["dynamic-update-slice"] == 1


def test_on_a_cpu_gates_are_written_one_by_one(monkeypatch):
    monkeypatch.setattr(native, "in_place", lambda: False)
    forth, back = loops(hlo(LSTMCell(4), 5, "hlo"))
    assert forth["dynamic-update-slice"] == 2 + 4 and back["dynamic-update-slice"] == 4


@pytest.mark.parametrize(
    ("make", "batch", "products", "ahead"),
    [
        (LSTMCell, 4, 1, 0),
        (LSTMCell, 64, 1, 0),
        (LSTMCell, 1, 1, 1),
        (GRUCell, 4, 2, 0),
        (PlainCell, 4, 1, 0),
    ],
    ids=["lstm", "large batch", "one sequence", "gru", "traced"],
)
def test_on_a_cpu_an_inference_multiplies_in_the_loop_and_turns_nothing(
    make, batch, products, ahead, monkeypatch
):
    """A product of all steps and a sequence with its axes exchanged are written to memory and read again."""
    monkeypatch.setattr(native, "in_place", lambda: False)
    text = hlo(make(4), 5, "hlo", batch, train=False)
    (infers,) = loops(text)
    assert infers["dot"] == products and infers["dynamic-update-slice"] == 1
    assert text.count(" dot(") == products + ahead
    turned = re.findall(r" transpose\(\w+\[(\d+,\d+,\d+)\]", text)
    assert not turned
