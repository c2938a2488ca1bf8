"""Measure how often the timing itself is wrong, or the gate. May import every room."""
