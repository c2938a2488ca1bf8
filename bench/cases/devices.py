"""Decides without TensorFlow, in microseconds, whether there is a GPU to ask it for, and whether Keras runs
on it at all."""

import os
import sys
from pathlib import Path

# how Linux shows a GPU that TensorFlow may use: NVIDIA's driver, Windows' (from inside of it), AMD's
_GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
_HIDDEN = ("", "-1")  # of CUDA_VISIBLE_DEVICES: no GPU is to be seen


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
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in _HIDDEN:
        return False
    return sys.platform != "linux" or any(Path(file).exists() for file in _GPU_FILES)
