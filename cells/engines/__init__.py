"""Runs any Keras cell: what the loop need not do is done before and after it, for all steps at once.

    traced = TracedCell(cell)
    recurrence = traced.recurrence(inputs, states, training, masked)   # Refused: Keras' loop must run it
    outputs, states = recurrence.run(...)

A cell's `call` is traced once (`trace`), as a graph of nodes with levels (`nodes`), which is rewritten so that
as little as can be depends on the states (`rewrite`), and planned (`plan`). Two programs run the plan
(`program`): what is known before the loop (`hoist`, `draws`), and the loop (`xla_loop`).
"""
