"""Keep what was measured, and read it back: rows, CSV files, run folders, the environment, one frame of all.

`schema` declares the columns, `plausible` says which rows cannot be, `frame.load` is `bench.load`. Imports no
other room, and pandas only where it reads.
"""
