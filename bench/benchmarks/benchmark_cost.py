"""What does a cell cost? Each case of the chosen sweeps, proven, then timed against its baseline."""


def test_cost(comparison, measure):
    measure(comparison)
