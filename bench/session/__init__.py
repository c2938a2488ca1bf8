"""What the hooks of `bench.plugin` do in a session of pytest: options, choice of cases, start, telling.

Imports every room but those on top. TensorFlow is not imported before a case is about to run.
"""
