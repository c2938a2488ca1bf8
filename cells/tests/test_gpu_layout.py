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
from cells.tests.test_engines import NormalisedCell, PlainCell
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


def bodies(text):
    """Of each loop of an HLO text the lines of its body, and of the computations that it calls."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if begun := re.match(r"(?:ENTRY )?%?([\w.-]+) .*\{$", line):
            body = found.setdefault(begun[1], [])
        elif " = " in line:
            body.append(line)

    def lines(name):
        for line in found[name]:
            yield line
            if operation(line) in ("call", "fusion"):
                for called in re.findall(r"(?:calls|to_apply|body)=%?([\w.-]+)", line):
                    yield from lines(called)

    return [list(lines(name)) for name in re.findall(r" while\(.*body=%?([\w.-]+)", text)]


def operation(line):
    """The operation of a line of HLO."""
    return re.search(r" = (?:\(.*?\)|\S+) ([\w-]+)\(", line)[1]


def loops(text):
    """Of each loop of an HLO text how many operations of each kind it has."""
    return [Counter(map(operation, body)) for body in bodies(text)]


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
        (PlainCell, 1, 1, 1),
        (NormalisedCell, 4, 2, 0),
    ],
    ids=["lstm", "large batch", "one sequence", "gru", "traced", "one sequence, traced", "normalised"],
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
    assert not turned or (make, batch) == (PlainCell, 1)  # of one sequence they lie the same


KINDS = {"lstm": LSTMCell, "gru": GRUCell, "traced": PlainCell}


@pytest.mark.parametrize(
    ("kind", "batch", "products"),
    [("lstm", 1, 1), ("lstm", 64, 1), ("gru", 1, 1), ("gru", 64, 2), ("traced", 1, 1), ("traced", 64, 1)],
)
def test_on_a_cpu_no_gradient_of_a_weight_is_made_in_a_loop(kind, batch, products, monkeypatch):
    """Each is one product of all steps, after the loop."""
    monkeypatch.setattr(native, "in_place", lambda: False)
    forth, back = loops(hlo(KINDS[kind](4), 5, "hlo", batch))
    assert (forth["dot"], back["dot"]) == (products, 1)


@pytest.mark.parametrize("train", [False, True], ids=["infers", "trains"])
@pytest.mark.parametrize("batch", [4, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_no_loop_copies_a_stack(kind, batch, train, monkeypatch):
    """What a step reads and writes of a stack stays where it is; a copy of it takes longer than the step."""
    monkeypatch.setattr(native, "in_place", lambda: False)
    steps = 13
    text = hlo(KINDS[kind](4), steps, "optimized_hlo", batch, train)
    copies = [line for body in bodies(text) for line in body if operation(line) == "copy"]
    stacks = [line for line in copies if re.search(rf" = \w+\[[\d,]*\b({steps}|{steps + 1})\b", line)]
    assert len(bodies(text)) == 1 + train and not stacks
