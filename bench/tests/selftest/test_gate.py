"""`python -m bench selftest --gate`: its rates, and the block that it writes."""

import numpy as np

from bench.__main__ import main as bench_main
from bench.gate.verdicts import SLOWER, compare
from bench.selftest import gate as gate_selftest
from bench.tests.gate.test_gate import session


def test_the_selftest_writes_its_figures_between_the_markers(tmp_path, capsys):
    session(tmp_path / "a_a", processes=3)
    file = tmp_path / "README.md"
    file.write_text("before\n<!-- selftest:gate -->\nold\n<!-- /selftest:gate -->\nafter\n")
    arguments = ["selftest", "--gate", "--pairs", "4", "--runs", str(tmp_path / "a_a"), "--write", str(file)]
    assert bench_main(arguments) == 2  # the two sides are of two commits: no A/A
    assert "several revisions" in capsys.readouterr().err
    session(tmp_path / "equal", processes=3, facts={"commit": "same"}, before={"facts": {"commit": "same"}})
    arguments[arguments.index("--runs") + 1] = str(tmp_path / "equal")
    assert bench_main(arguments) == 0
    lines = file.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after") and "old" not in lines
    observed = [line for line in lines if line.startswith("| observed, equal")]
    resampled = [line for line in lines if line.startswith("| resampled, equal: 6 processes")]
    assert len(observed) == 3 and all(line.endswith("of 1 |") for line in observed)
    assert resampled and all(line.endswith("of 8 |") for line in resampled)
    assert any(line.startswith("| simulated") for line in lines)


def test_simulated_alarms_are_rare_and_slowdowns_found():
    """At ±2%: 0 of 400 equal pairs alarmed, a 15% slowdown was found in 400 of 400."""
    generator = np.random.default_rng(1)
    noise = gate_selftest.NOISES["simulated, ratios ±2%"]
    pairs = [gate_selftest.simulated_pair(noise, generator) for _ in range(30)]
    assert not any(compare(*pair, in_session=True).of_word(SLOWER) for pair in pairs)
    slowed = [compare(*gate_selftest.slow_down(pair, 1.15), in_session=True) for pair in pairs]
    assert all(any("gru-rnn" in v.key[1] for v in found.of_word(SLOWER)) for found in slowed)
    assert not any(v.word != SLOWER for found in slowed for v in found.verdicts[:1])


def test_an_interval_of_dependent_pairs_is_that_of_the_independent_ones():
    assert gate_selftest.Rate("resampled", "alarm", 0, 64, 1).in_words == ("0.0%", "[0.0%, 97.5%]")
    assert gate_selftest.Rate("simulated", "alarm", 0, 400, 400).in_words == ("0.0%", "[0.0%, 0.9%]")
