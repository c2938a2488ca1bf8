"""Time a call: ABBA blocks, intervals, GPU clocks, memory, the machine's state. Imports no other room."""
