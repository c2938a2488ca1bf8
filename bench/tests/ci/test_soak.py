"""`ci/soak.sh`: what it counts, and that what is lost is found out."""

import importlib.util
import os
import random
import signal
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "ci" / "soak.py"


@pytest.fixture
def soak(monkeypatch):
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("soak", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "soak", module)
    spec.loader.exec_module(module)
    return module


def test_it_counts_what_is_tried_and_lost(soak, monkeypatch, tmp_path, capsys):
    def loses(draw, folder):
        assert folder.is_dir()
        raise soak.Lost("a row")

    kinds = {"good": ("a good thing", lambda draw, folder: "well"), "bad": ("a bad thing", loses)}
    monkeypatch.setattr(soak, "KINDS", kinds)
    page = tmp_path / "soak.md"
    monkeypatch.setattr(sys, "argv", ["soak", "--minutes=0", f"--write={page}"])
    assert soak.main() == 1
    out = capsys.readouterr().out
    assert "good 0: survived: well" in out and "bad 0: LOST: Lost: a row" in out
    assert "| a good thing | 1 | 1 | 0 |" in page.read_text()
    assert "| a bad thing | 1 | 0 | 1 |" in page.read_text()
    monkeypatch.setattr(sys, "argv", ["soak", "--minutes=0", "--only=good"])
    assert soak.main() == 0


@pytest.mark.parametrize(
    ("code", "errors", "lost"),
    [
        (0, "", ""),
        (1, "", "exit code 1"),
        (-signal.SIGBUS, "", "exit code -7"),
        (0, "Traceback (most recent call last)", "a traceback"),
        (0, "x" * 1000, "a long line"),
    ],
)
def test_an_end_that_is_not_clear_is_lost(soak, code, errors, lost):
    ended = soak.Ended(code, "", errors)
    if not lost:
        return ended.expect_clear((0,))
    with pytest.raises(soak.Lost, match=lost):
        ended.expect_clear((0,))


def test_what_hangs_is_lost_and_killed(soak, monkeypatch, tmp_path):
    monkeypatch.setattr(soak, "LONGEST_S", 0.5)
    with pytest.raises(soak.Lost, match="hung"):
        soak.run("-c", "import time; time.sleep(100)", folder=tmp_path)


def test_what_is_drawn_follows_from_the_seed(soak, monkeypatch):
    drawn = []
    monkeypatch.setitem(soak.KINDS, "cell", ("?", lambda draw, folder: drawn.append(draw.random()) or "x"))
    for seed in ("1 0", "1 0", "1 1"):
        soak.attempt("cell", seed)
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.skipif(os.getuid() != 0, reason="mounts a disk")
def test_a_full_disk_is_full(soak, tmp_path):
    with soak.full_disk(tmp_path, 16384) as (disk, limit):
        if limit is not None:
            pytest.skip("no disk can be mounted here")
        with pytest.raises(OSError, match="No space"):
            (disk / "file").write_bytes(random.Random(1).randbytes(10**6))
    assert not list((tmp_path / "disk").iterdir())
