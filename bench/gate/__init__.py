"""Compare two revisions: read both sides, give verdicts, write them out. May import report."""
