"""The switches of the process: held, compared and set back, whoever flips them."""

import gc
import os
import random
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from bench.contract.load_cell import TargetError
from bench.contract.switches import SWITCHES, described, held, load_held, values

FLIPS = {
    "eager execution": "tf.compat.v1.disable_eager_execution()",
    "tf.config.run_functions_eagerly": "tf.config.run_functions_eagerly(True)",
    "numeric checks and debug dumps": "tf.debugging.enable_check_numerics()",
    "optimizer options": "tf.config.optimizer.set_experimental_options({'constant_folding': False})",
    "tf.config.optimizer.set_jit": "tf.config.optimizer.set_jit('autoclustering')",
    "determinism": "tf.config.experimental.enable_op_determinism()",
    "TF32": "tf.config.experimental.enable_tensor_float_32_execution(False)",
    "soft device placement": "tf.config.set_soft_device_placement(False)",
    "synchronous execution": "tf.config.experimental.set_synchronous_execution(False)",
    "control flow v2": "tf.compat.v1.disable_control_flow_v2()",
    "resource variables": "tf.compat.v1.disable_resource_variables()",
    "tensor equality": "tf.compat.v1.disable_tensor_equality()",
    "NumPy behaviour": "tf.experimental.numpy.experimental_enable_numpy_behavior()",
    "TensorFlow's seed": "tf.random.set_seed(987_654)",
    "dtype policy": "keras.mixed_precision.set_global_policy('mixed_float16')",
    "floatx": "keras.config.set_floatx('float64')",
    "epsilon": "keras.config.set_epsilon(1e-3)",
    "image data format": "keras.config.set_image_data_format('channels_first')",
    "Keras' seed": "keras.utils.set_random_seed(987_654)",
    "environment variables": "os.environ['TF_XLA_FLAGS'] = '--tf_xla_auto_jit=2'",
    "garbage collector": "gc.disable()",
    "current folder": "os.chdir('/')",
}


@pytest.fixture(autouse=True)
def imports_as_they_were(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("cell_"):
            del sys.modules[name]


@pytest.mark.parametrize("name", FLIPS)
def test_a_switch_that_a_file_flips_is_named_and_set_back(tmp_path, name):
    file = tmp_path / "cell.py"
    file.write_text(f"import gc, os, keras\nimport tensorflow as tf\n{FLIPS[name]}\ndef make(units): ...\n")
    before = values()
    target = load_held(f"{file}:make")
    assert any(change.startswith(f"{name} from ") for change in target.switched)
    assert values() == before


def test_each_target_of_a_file_says_what_the_file_flips(tmp_path):
    file = tmp_path / "cell.py"
    file.write_text("import gc\ngc.disable()\ndef make(units): ...\ndef other(units): ...\n")
    one, other = (load_held(f"{file}:{name}") for name in ("make", "other"))
    assert one.switched == other.switched == ("garbage collector from True to False",)
    file.write_text("def make(units): ...\n")
    assert load_held(f"{file}:make").switched == ()


def test_what_is_drawn_or_seeded_in_python_and_numpy_is_set_back_without_a_word():
    drawn = random.getstate(), np.random.get_state()[1].tolist()
    with held() as changes:
        random.seed(1)
        np.random.seed(1)
    assert changes == []
    assert (random.getstate(), np.random.get_state()[1].tolist()) == drawn


def test_a_file_that_flips_nothing_has_nothing_to_say(tmp_path):
    file = tmp_path / "cell.py"
    file.write_text("import keras\ndef make(units): return keras.layers.LSTMCell(units)\n")
    assert load_held(f"{file}:make").switched == ()


def test_a_switch_that_cannot_be_set_back_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "cell.py"
    file.write_text("import gc\ngc.disable()\ndef make(units): ...\n")

    def too_late(value):
        raise RuntimeError("too late")

    stuck = [s if s.name != "garbage collector" else type(s)(s.name, s.get, too_late) for s in SWITCHES]
    monkeypatch.setattr("bench.contract.switches.SWITCHES", stuck)
    try:
        with pytest.raises(TargetError, match="cannot be undone: garbage collector from True to False"):
            load_held(f"{file}:make")
    finally:
        gc.enable()


def test_the_environment_holds_no_folder_and_no_variable():
    told = described()
    assert told["tf.config.run_functions_eagerly"] == "False"
    assert os.getcwd() not in str(told)
    assert keras.config.floatx() in told["floatx"] and tf.executing_eagerly()
