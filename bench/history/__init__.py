"""Join the runs of a machine: time lines, steps in them, charts, words. May import report."""
