"""What comes out of training with it? The training tasks of the chosen sweeps, after the proof."""


def test_task(task, perform):
    perform(task)
