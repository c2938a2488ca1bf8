"""`may_have_gpu`: decides without TensorFlow, in microseconds, whether there is a GPU to ask it for."""

import os
import sys
from pathlib import Path

# how Linux shows a GPU that TensorFlow may use: NVIDIA's driver, Windows' (from inside of it), AMD's
_GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
_HIDDEN = ("", "-1")  # of CUDA_VISIBLE_DEVICES: no GPU is to be seen


def may_have_gpu() -> bool:
    """False where TensorFlow cannot see a GPU: Linux shows none, or CUDA_VISIBLE_DEVICES hides all."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in _HIDDEN:
        return False
    return sys.platform != "linux" or any(Path(file).exists() for file in _GPU_FILES)
