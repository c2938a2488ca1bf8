"""Performs the training tasks of the chosen sweeps, after the proof: what does a cell learn?"""


def test_task(task, perform):
    perform(task)
