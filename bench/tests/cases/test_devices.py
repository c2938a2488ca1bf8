"""Whether there is a GPU, who is to see it, and what is said where TensorFlow does not; before TensorFlow."""

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

import bench
from bench.cases import devices

PROJECT = tomllib.loads((Path(bench.__file__).parents[1] / "pyproject.toml").read_text())["project"]


@pytest.fixture
def linux(monkeypatch, tmp_path):
    """linux(shown, hidden): a Linux that shows a GPU or none, which CUDA_VISIBLE_DEVICES hides or not."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def play(shown=True, hidden=False):
        file = tmp_path / "nvidiactl"
        monkeypatch.setattr(devices, "_GPU_FILES", (str(file),))
        if shown:
            file.touch()
        if hidden:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")

    return play


@pytest.mark.parametrize(
    ("shown", "hidden", "may_have", "said"),
    [
        (False, False, False, "TensorFlow sees no GPU on this machine"),
        (True, False, True, r"needs CUDA's packages: pip install -e '.\[gpu\]'"),
        (True, True, False, "CUDA_VISIBLE_DEVICES hides the GPU"),
    ],
)
def test_why_there_is_no_gpu_is_said(linux, shown, hidden, may_have, said):
    linux(shown, hidden)
    assert devices.may_have_gpu() is may_have
    assert re.search(said, devices.missing_gpu())


def test_a_gpu_is_hidden_where_there_may_be_one(linux):
    linux(shown=False)
    environment = {}
    devices.hide_gpus(environment)
    devices.let_memory_grow(environment)
    assert environment == {}  # of a machine without one nothing changes
    linux(shown=True)
    devices.hide_gpus(environment)
    assert environment == {"CUDA_VISIBLE_DEVICES": "-1", "HIP_VISIBLE_DEVICES": "-1"}


def test_memory_grows_unless_somebody_said_otherwise(linux):
    linux()
    for before, after in (({}, "true"), ({"TF_FORCE_GPU_ALLOW_GROWTH": "false"}, "false")):
        devices.let_memory_grow(before)
        assert before["TF_FORCE_GPU_ALLOW_GROWTH"] == after


def test_the_extra_brings_cuda():
    extra = PROJECT["optional-dependencies"]["gpu"]
    assert any(text.startswith("tensorflow[and-cuda]") for text in extra)
    assert any(text.startswith("nvidia-ml-py") for text in extra)


@pytest.mark.parametrize(
    ("requires", "installed", "beside", "clashes"),
    [
        (["nvidia-cudnn-cu12==9.10; platform_system == 'Linux'", "sympy"], ["nvidia-cudnn-cu12"], True, True),
        (["nvidia-cudnn-cu13==9.13"], ["nvidia-cudnn-cu13", "tensorflow"], True, True),
        (["nvidia-cudnn-cu13==9.13"], ["nvidia-cudnn-cu13"], False, False),  # each in a folder of its own
        (["sympy"], ["nvidia-cudnn-cu12"], True, False),  # torch for the CPU
        (["nvidia-cudnn-cu12==9.10"], ["tensorflow"], True, False),
        (None, ["nvidia-cudnn-cu12"], True, False),
    ],
)
def test_pytorchs_cudnn_clashes_with_tensorflows(monkeypatch, requires, installed, beside, clashes):
    torch = SimpleNamespace(version="2.9.0", requires=requires)
    folder = devices._folder_of_tensorflow() if beside else Path("/elsewhere")
    monkeypatch.setattr(devices, "distribution", lambda name: torch)
    monkeypatch.setattr(
        devices,
        "distributions",
        lambda: [SimpleNamespace(name=name, locate_file=lambda _: folder) for name in installed],
    )
    said = devices.clash_of_cudnn()
    assert bool(said) is clashes
    if said:
        assert said.startswith("torch 2.9.0 has") and "`gpu` and `peers`" in said and "separate" in said


def test_without_pytorch_nothing_clashes(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(devices, "distribution", absent)
    assert devices.clash_of_cudnn() is None
