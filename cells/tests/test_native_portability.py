"""The native programs on ARM, without wide vectors, by Clang, and watched by sanitizers.

What a layer's programs computed here is recorded, and computed again by the same C++ for another machine;
ARM's runs in an emulator. A compiler that is not installed skips its tests. All programs, the cells in plain
Keras among them, by all compilers are half an hour:

    pytest --benchmark-skip -m thorough cells/tests/test_native_portability.py
"""

import itertools
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import cells
from cells import FusedRNN, plain_keras
from cells.engines import native
from cells.engines.native import library
from cells.tests import replay
from cells.tests.replay import Compiler
from cells.tests.support import data, drawn, in_rnn
from cells.tests.test_fused_rnn import DROPOUT, EveryKindCell, some_mask

pytestmark = pytest.mark.skipif(library.compiler() is None, reason="there is no C++ compiler")

THREADS = 2  # they wait for each other, which is slow where there are fewer cores
EMULATOR = ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")
SANITIZED = ("-O1", "-g", "-fno-sanitize-recover=all")
COMPILERS = {
    "arm": Compiler(("aarch64-linux-gnu-g++",), EMULATOR),
    "arm by clang": Compiler(("clang++", "--target=aarch64-linux-gnu"), EMULATOR, ("aarch64-linux-gnu-g++",)),
    "clang": Compiler(("clang++", "-march=native")),
    "no avx": Compiler(("g++", "-march=x86-64")),
    "no avx512": Compiler(("g++", "-march=x86-64-v3")),
    "address sanitizer": Compiler(("g++", "-march=native", *SANITIZED, "-fsanitize=address,undefined")),
    "thread sanitizer": Compiler(("g++", "-march=native", *SANITIZED, "-fsanitize=thread")),
}
ANYWHERE = ("arm", "arm by clang")
# of programs: the cell, its arguments, dtype, units, batch, timesteps, features and whether steps are masked
PROGRAMS: dict[str, tuple] = {
    # of one sequence, so that the threads share the units and meet at each step
    "shared by threads": (cells.LSTMCell, {}, "float32", 170, 1, 12, 6, False),
    "comparisons of doubles": (cells.GRUCell, {"activation": "soft_shrink"}, "float64", 21, 70, 6, 3, True),
    "every kind of gate": (EveryKindCell, {"implementation": 1, **DROPOUT}, "float32", 17, 70, 5, 3, True),
    "weights summed in the loop": (EveryKindCell, {}, "float32", 16, 70, 5, 37, True),
    "layer norm": (cells.LayerNormGRUCell, {}, "float32", 21, 70, 6, 5, True),
    "matrix states": (cells.DeltaNetCell, {}, "float32", 9, 66, 5, 5, False),
    "chained products of doubles": (cells.RHNCell, {}, "float64", 37, 66, 5, 3, False),
}
# what the ordinary tests run: ARM's all, and of each other compiler a program
ORDINARY = [
    *(("arm", program) for program in PROGRAMS),
    ("arm by clang", "chained products of doubles"),
    ("clang", "comparisons of doubles"),
    ("no avx", "every kind of gate"),
    ("no avx512", "layer norm"),
    ("address sanitizer", "matrix states"),
    ("address sanitizer", "weights summed in the loop"),
    ("thread sanitizer", "shared by threads"),
]
PLAIN: dict[str, tuple] = {
    f"{name}, {dtype}": (getattr(plain_keras, name), {}, dtype, 11, 37, 4, 3, True)
    for name in plain_keras.__all__
    for dtype in ("float32", "float64")
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(autouse=True)
def several_threads(monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", str(THREADS))


def recorded(monkeypatch, cell_class, arguments, dtype, units, batch, timesteps, features, is_masked):
    """The calls of the native operations in a training step of a layer, forward and back."""
    cell = drawn(cell_class(units, dtype=dtype, **arguments), features)
    cell.set_weights([weight / np.sqrt(units) for weight in cell.get_weights()])
    drawn_inputs = data(cell, batch, timesteps, features)
    inputs, states = tf.nest.map_structure(lambda array: tf.constant(array, dtype), drawn_inputs)
    mask = tf.constant(some_mask(batch, timesteps)) if is_masked else None
    layer = in_rnn(cell, FusedRNN, engine="native")

    def train():
        with tf.GradientTape() as tape:
            tape.watch([inputs, *states])
            results = layer(inputs, initial_state=states, mask=mask, training=True)
            total = sum(tf.reduce_sum(tf.sin(each)) for each in results)
        tape.gradient(total, [inputs, *states, *cell.trainable_variables])

    calls = replay.recorded(monkeypatch, train)
    assert [call.direction for call in calls] == ["Forward", "Backward"]
    return calls


def replays(calls, name, folder, *changes):
    """Of all outputs of calls (found, expected), for each change of the attributes, by one of `COMPILERS`."""
    compiler = COMPILERS[name]
    for each in (compiler.command[0], *compiler.runner[:1], *compiler.needs):
        if not shutil.which(each):
            pytest.skip(f"{each} is not installed")
    if name not in ANYWHERE and library._processor()[0] != "x86_64":
        pytest.skip("it is for x86")
    executable = replay.compiled(calls[0].program, compiler, folder)
    for changed in changes:
        results = replay.replayed(executable, compiler, calls, **changed)
        yield from zip(
            itertools.chain(*results), itertools.chain(*(call.outputs for call in calls)), strict=True
        )


def assert_replays(calls, name, folder):
    """The same numbers, by several numbers of threads, in place of what is no longer needed and not."""
    tolerance = 1e-13 if calls[0].program.bits == 64 else 1e-5
    changes = {"threads": 1, "in_place": False}, {"threads": THREADS, "in_place": True}
    for found, expected in replays(calls, name, folder, *changes):
        scale = 1 + np.max(np.abs(expected), initial=0)
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize(("compiler", "program"), ORDINARY)
def test_computes_the_same_elsewhere(compiler, program, monkeypatch, folder):
    assert_replays(recorded(monkeypatch, *PROGRAMS[program]), compiler, folder)


def test_threads_that_share_a_group_sum_the_gradients_of_weights_without_a_race(monkeypatch, folder):
    monkeypatch.setattr(native, "FEW_WEIGHTS", 10**9)
    monkeypatch.setattr(native, "MANY_SEQUENCES", 0)
    calls = recorded(monkeypatch, EveryKindCell, {}, "float32", 200, 1, 12, 6, False)
    assert_replays(calls, "thread sanitizer", folder)


@pytest.mark.thorough
@pytest.mark.parametrize("program", PROGRAMS | PLAIN)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_everything_computes_the_same_elsewhere(compiler, program, monkeypatch, folder):
    assert_replays(recorded(monkeypatch, *(PROGRAMS | PLAIN)[program]), compiler, folder)


class SmallProductCell(cells.GatedCell):
    """A product that float32 has no normalised number for, where its input is small."""

    gates = ("a",)
    recurrent = False

    def update(self, gates, states):
        h = gates[0] * keras.ops.convert_to_tensor(1e-20, gates[0].dtype)
        return h, [h]


def test_numbers_too_small_are_0_on_arm_as_in_tensorflow(monkeypatch, folder):
    cell = SmallProductCell(1, use_bias=False, kernel_initializer="ones")
    layer = in_rnn(cell, FusedRNN, engine="native")
    inputs = np.float32([1e-10, 1e-17, 1e-19, 1e-22, 1e-40, 1.0])
    calls = replay.recorded(monkeypatch, lambda: layer(inputs[:, None, None]))
    (final,) = (found for found, _ in replays(calls, "arm", folder, {}) if found.shape == (6, 1))
    assert (final[:, 0] != 0).tolist() == [True, True, False, False, False, True]
