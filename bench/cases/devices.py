"""Decides without TensorFlow, in microseconds, whether there is a GPU, whether TensorFlow is to see it, and
whether Keras runs on TensorFlow at all.

TensorFlow reads these environment variables once, when it looks for devices: they must be set before it is
imported. Processes that are started later inherit them.
"""

import os
import sys
from collections.abc import MutableMapping
from importlib.metadata import PackageNotFoundError, distribution, distributions
from importlib.util import find_spec
from pathlib import Path

# how Linux shows a GPU that TensorFlow may use: NVIDIA's driver, Windows' (from inside of it), AMD's
_GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
_HIDDEN = ("", "-1")  # of CUDA_VISIBLE_DEVICES: no GPU is to be seen
# Keras' `fit` asks which GPUs there are: where the CPU is measured there must be none
NO_GPU = {"CUDA_VISIBLE_DEVICES": "-1", "HIP_VISIBLE_DEVICES": "-1"}
# else the first process takes all the memory, and a worker finds none
GROWTH = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}
EXTRA = "pip install -e '.[gpu]'"


class UnsupportedBackend(RuntimeError):
    """Keras runs on a backend that this project has no run time for."""


def check_backend_chosen() -> None:
    """Raises UnsupportedBackend where KERAS_BACKEND, or Keras where it is imported, says another than
    TensorFlow: a cell would be blamed for what fails then."""
    chosen = os.environ.get("KERAS_BACKEND") or "tensorflow"
    imported = sys.modules.get("keras")
    if imported is not None and hasattr(imported, "backend"):
        chosen = imported.backend.backend()
    if chosen != "tensorflow":
        raise UnsupportedBackend(
            f"TensorFlow only: Keras runs on {chosen!r} here; set KERAS_BACKEND=tensorflow before Keras is "
            "imported"
        )


def may_have_gpu() -> bool:
    """False where TensorFlow cannot see a GPU: Linux shows none, or CUDA_VISIBLE_DEVICES hides all."""
    return not _hides_all() and (sys.platform != "linux" or _shows_gpu())


def missing_gpu() -> str:
    """Says why TensorFlow, which has been asked, sees no GPU."""
    if sys.platform == "linux" and _shows_gpu():
        if _hides_all():
            return "CUDA_VISIBLE_DEVICES hides the GPU of this machine"
        return f"this machine shows a GPU and TensorFlow sees none; it needs CUDA's packages: {EXTRA}"
    return "TensorFlow sees no GPU on this machine"


def _hides_all() -> bool:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in _HIDDEN


def _shows_gpu() -> bool:
    return any(Path(file).exists() for file in _GPU_FILES)


def hide_gpus(environment: MutableMapping[str, str] = os.environ) -> None:
    """Lets TensorFlow, which is not imported yet, see no GPU; on a machine without one nothing is set."""
    if may_have_gpu():
        environment.update(NO_GPU)


def let_memory_grow(environment: MutableMapping[str, str] = os.environ) -> None:
    """Lets TensorFlow, which has not computed yet, take a GPU's memory as it needs it, unless told not to."""
    if may_have_gpu():
        for name, value in GROWTH.items():
            environment.setdefault(name, value)


def _folder_of_tensorflow() -> Path | None:
    """The folder that TensorFlow is installed in, beside the packages it needs; None where it is not."""
    spec = find_spec("tensorflow")
    return Path(spec.origin).parents[1] if spec and spec.origin else None


def clash_of_cudnn() -> str | None:
    """Says that PyTorch's CUDA packages have replaced TensorFlow's cuDNN, in a sentence; None where not."""
    try:
        torch = distribution("torch")
    except PackageNotFoundError:
        return None
    own = [text for text in torch.requires or () if text.startswith("nvidia-cudnn")]
    installed = [each for each in distributions() if (each.name or "").startswith("nvidia-cudnn")]
    folder = _folder_of_tensorflow()
    if not own or not any(Path(str(each.locate_file(""))) == folder for each in installed):
        return None
    return (
        f"torch {torch.version} has brought a cuDNN of its own into the folder of TensorFlow's: install the "
        "extras `gpu` and `peers` into separate environments, or torch without CUDA"
    )
