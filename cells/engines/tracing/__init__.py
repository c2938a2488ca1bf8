"""Runs any Keras cell: what the loop need not do is done before and after it, for all steps at once.

    recurrence = TracedCell(cell).recurrence(sequences, states, training, masked)  # or `Refused`
    outputs, last_output, states = recurrence.run(recurrence.native, sequences, states, mask, ...)

`trace` traces a cell's `call` once, as a graph of nodes with levels (`nodes`). `rewrite` changes the graph so
that as little as can be depends on the states, and `plan` says what is computed where. `program` runs a plan:
what is known before the loop (`hoist`), and the loop, which the native engine runs as one of gates
(`native_loop`) or as stages (`staged_loop`, written by `stages`), or XLA compiles (`xla_loop`).
`traced_cell` keeps the plans of a cell.

What has an effect, a branch, a loop or a convolution inside of a step is refused: Keras' loop runs it.
"""
