"""Declare what is measured: cases, subjects, sweeps, user cells, an estimate of their cost.

Imports timing, records and contract. Nothing here imports TensorFlow before a layer is made.
"""
