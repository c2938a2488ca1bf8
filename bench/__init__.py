"""Measure recurrent cells: cases, proofs, timing, records, charts.

A room (folder) imports only rooms to its left, and a test keeps it so:

    measuring:  timing, records, contract  <  cases  <  backend  <  proof  <  processes  <  runner
    reading:    timing, records, cases     <  report <  history, gate           (never TensorFlow)
    on top:     selftest, commands, plugin, __main__

All that knows TensorFlow's run time stands in `backend`. Each room's docstring says what lives there.
"""
