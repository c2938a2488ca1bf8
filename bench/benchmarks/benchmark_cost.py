"""Times each case of the chosen sweeps against its baseline, after the proof: what does a cell cost?"""


def test_cost(comparison, measure):
    measure(comparison)
