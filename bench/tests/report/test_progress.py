"""What is left of a session, by the estimate and by how long the cases so far took."""

import pytest

from bench.report.progress import Progress, duration


def test_the_rest_takes_as_much_longer_as_the_cases_so_far_did():
    now = iter([0.0, 2.0, 6.0, 9.0])
    progress = Progress([1.0, 1.0, 3.0], clock=lambda: next(now))
    assert progress.line("a") == "[1/3 · 8 s left] a"  # 4 s by the estimate, twice as slow
    assert progress.line("b") == "[2/3 · 9 s left] b"
    assert progress.line("c") == "[3/3] c"


def test_what_nobody_can_estimate_has_no_time():
    now = iter([0.0, 2.0, 3.0])
    progress = Progress([None, 1.0], clock=lambda: next(now))
    assert [progress.line("a"), progress.line("b")] == ["[1/2] a", "[2/2] b"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (99, "99 s"), (150, "2 min"), (5000, "83 min"), (9000, "2.5 h")]
)
def test_a_duration_is_as_exact_as_one_needs_it(seconds, text):
    assert duration(seconds) == text
