"""Time a call: ABBA blocks, confidence intervals, GPU clocks, memory. Imports no other room."""
