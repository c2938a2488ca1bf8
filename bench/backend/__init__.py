"""Hold everything that knows TensorFlow's run time: devices, data, programs, kernels, operations counted.

Imports timing, records, contract and cases.
"""
