"""Imports TensorFlow and Keras, in silence; whoever computes takes `keras` and `tf` from here.

A GPU's memory is taken as it is needed: that is said here, before anybody computes.
"""

import os

from bench.backend.quiet import no_chatter
from bench.cases.devices import let_memory_grow

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
let_memory_grow()
with no_chatter():
    import keras
    import tensorflow as tf

    tf.config.list_physical_devices()

__all__ = ["keras", "tf"]
