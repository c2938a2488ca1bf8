from hypothesis import given
from hypothesis import strategies as st

from bench.records.text import counted


def test_one_is_no_plural():
    assert [counted(1, thing) for thing in ("case", "process", "earlier run")] == [
        "1 case",
        "1 process",
        "1 earlier run",
    ]
    assert counted(0, "case") == "0 cases" and counted(5, "process") == "5 processes"
    assert counted(1000, "timestep") == "1000 timesteps" and counted(12345, "row") == "12,345 rows"


@given(st.integers(min_value=2))
def test_whatever_is_not_one_is_a_plural(number):
    assert counted(number, "row").replace(",", "") == f"{number} rows"
