"""Run a cell's recurrence faster than Keras' loop; `cells.FusedRNN` chooses.

`recurrence` reads the equation of a cell made of gates, `tracing` the step of any other cell. `native`
compiles a recurrence as C++, `xla` as one program of XLA, whose loops write `stacks` row by row. `direct`
makes eager calls short, `scratch` frees graphs that are only read. `converters` knows when a model is being
exported. Nothing here imports `cells.fused_rnn`.
"""
