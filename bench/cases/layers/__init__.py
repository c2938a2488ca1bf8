"""Layers that exist for measuring alone: stacks, unrolled functions, TensorFlow's block kernels."""
