"""Converters of models to other formats, which trace a model and take no operation of XLA or of our own."""

import sys
from types import FrameType

import tensorflow as tf

# The modules that call a converter's tracing: TFLite (LiteRT), ONNX, OpenVINO.
_MODULES = (
    "tensorflow.lite.python.lite",
    "tf2onnx.",
    *(f"keras.src.export.{name}" for name in ("litert", "onnx", "openvino")),
)


def converting():
    """Whether a converter traces the model: none says so itself, but a function of theirs is running."""
    if tf.executing_eagerly():
        return False
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(_MODULES):
            return True
        frame = frame.f_back
    return False
