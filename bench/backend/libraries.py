"""Imports TensorFlow and Keras, in silence; whoever computes takes `keras` and `tf` from here."""

import os

from bench.backend.quiet import no_chatter

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
with no_chatter():
    import keras
    import tensorflow as tf

    tf.config.list_physical_devices()

__all__ = ["keras", "tf"]
