"""What comes out of training with it? The training tasks of the chosen sweeps, each with its layer proven first."""


def test_task(task, perform):
    perform(task)
