"""`tf.compat.v1.nn.static_rnn`; see `compat_v1`."""

from functools import partial

from bench.processes.peers import compat_v1
from bench.processes.peers.compat_v1 import environment

__all__ = ["environment", "load"]

load = partial(compat_v1.load, compat_v1.static_rnn)
