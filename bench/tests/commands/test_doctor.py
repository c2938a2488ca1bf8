"""The doctor: what it prints of a timing, and from which difference on it says that a run sees."""

import math
import random

import pytest

from bench.__main__ import main
from bench.commands import doctor
from bench.timing.blocks import Blocks, summarise


def timing(*ratios: float):
    return summarise([Blocks([ratio] * 6, [1.0] * 6) for ratio in ratios], "train")


def test_the_page_says_what_disturbs_and_what_is_seen(monkeypatch, capsys):
    blocks = [Blocks([ratio] * 6, [1.0] * 6) for ratio in (0.98, 1.0, 1.0, 1.02)]
    monkeypatch.setattr(doctor, "_against_itself", lambda case: blocks)
    monkeypatch.setattr(doctor, "_threads", lambda: "many")
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for name in (
        "load",
        "steal time",
        "cgroup quota",
        "turbo",
        "swap",
        "TensorFlow's threads",
        "the processor itself",
    ):
        assert name in said
    assert "4 instances of 12 blocks: 1.000x [" in said
    assert "turns scatter by 0.0%" in said
    assert "A run sees differences from ±2.3% on" in said


def test_what_the_gate_sees_is_its_threshold_and_the_noise_of_its_processes():
    assert doctor.gate_sees(timing(1.0, 1.0, 1.0)) == pytest.approx(0.05)
    narrow, wide = (doctor.gate_sees(timing(1 / math.exp(s), 1.0, math.exp(s))) for s in (0.01, 0.05))
    assert 0.05 < narrow < wide
    # deviation of a process' figure 0.05 / sqrt(3), of a difference sqrt(2 / 5) of it, t of 8 degrees 2.306
    assert wide == pytest.approx(1.05 * math.exp(2.306 * 0.05 / math.sqrt(3) * math.sqrt(0.4)) - 1, rel=1e-3)


def test_a_processor_that_changes_its_speed_is_told_from_a_steady_one(monkeypatch):
    """By turns of a fixed loop, whose clock runs 8% faster or slower from call to call: a ratio of two calls
    then scatters by 8% times the square root of 2."""
    pace = random.Random(0)
    monkeypatch.setattr(doctor, "time_call", lambda run: math.exp(pace.gauss(0, 0.08)))
    found = doctor._own_speed(doctor.block_scatter(doctor._fixed_loop()))
    assert "scatter by 11" in found.found or "scatter by 12" in found.found
    assert "no setting here ends that" in found.advice
    monkeypatch.setattr(doctor, "time_call", lambda run: math.exp(pace.gauss(0, 0.005)))
    assert doctor._own_speed(doctor.block_scatter(doctor._fixed_loop())).advice == ""
