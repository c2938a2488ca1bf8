"""Run a case or a peer in a process of its own, with limits of time and memory.

Imports the rooms up to proof.
"""
