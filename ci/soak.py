"""Tries at random to break a run, a command or an engine, again and again, and counts what was lost.

    ci/soak.sh --minutes 10 --write results/soak.md

Each attempt is a process of its own in a folder of its own. What an attempt draws follows from the seed and
its number: `--seed` and `--only` repeat one.

Exit codes: 0 nothing was lost; 1 something was; 2 a wrong option.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.records import environment
from bench.records.csv_file import read_records
from bench.records.files import write_whole
from bench.records.schema import RecordError
from bench.records.text import one_line

HOUSE = Path(__file__).resolve().parents[1]
LONGEST_S = 150.0  # of an attempt: what takes longer hangs
LONGEST_LINE = 500  # characters of a line of error


class Lost(AssertionError):
    """A promise that was not kept; says which."""


def expect(holds: object, promise: str) -> None:
    """Raises Lost where a promise does not hold."""
    if not holds:
        raise Lost(promise)


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, negative for a signal, and what it printed."""

    code: int
    output: str
    errors: str

    def expect_clear(self, codes: tuple[int, ...]) -> None:
        """Raises Lost unless it ended with one of the codes, and its errors are short lines."""
        last = one_line(self.errors[-300:])
        expect(self.code in codes, f"exit code {self.code}, not one of {codes}: {last}")
        expect("Traceback" not in self.errors, f"a traceback: {last}")
        expect(all(len(line) <= LONGEST_LINE for line in self.errors.splitlines()), f"a long line: {last}")


def run(*command: object, folder: Path, limit: Callable[[], None] | None = None, **variables: str) -> Ended:
    """Runs Python with these arguments; raises Lost where it does not end."""
    process = start(*command, folder=folder, limit=limit, **variables)
    try:
        output, errors = process.communicate(timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        raise Lost(f"it hung for {LONGEST_S:g} s") from None
    finally:
        kill(process)
    return Ended(process.returncode, output, errors)


def start(
    *command: object, folder: Path, limit: Callable[[], None] | None = None, **variables: str
) -> subprocess.Popen:
    """Starts Python with these arguments in a group of its own."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(HOUSE), "TF_CPP_MIN_LOG_LEVEL": "3", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=limit,
    )


def kill(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# --- kills -----------------------------------------------------------------------------------------------


def killed_run(draw: random.Random, folder: Path) -> str:
    """A run is killed at a random moment: its rows stay, and the next command works."""
    how = draw.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
    options = ("--sweep=smoke", "--benchmark-max-time=0.05", "--results=results", "-k", "infer")
    process = start("-m", "bench", "run", *options, folder=folder)
    moment = draw.uniform(0, 25)
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=moment)
    os.kill(process.pid, how) if process.poll() is None else None
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=20)
    kill(process)
    what = f"{signal.Signals(how).name} after {moment:.1f} s"
    for file in folder.glob("results/*/records.csv"):
        try:
            records = read_records(file)
        except RecordError as error:
            raise Lost(f"{what}: {error}") from None
        expect(sum(record["reason"] == "killed" for record in records) <= 1, f"{what}: rows are lost")
        run("-m", "bench", "report", file.parent, folder=folder).expect_clear((0,))
    return what


# --- full disks ------------------------------------------------------------------------------------------


@contextmanager
def full_disk(folder: Path, size: int) -> Iterator[tuple[Path, Callable[[], None] | None]]:
    """A folder on a disk of so many bytes, and a limit of files' sizes instead, where none can be mounted."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    mounted = (
        shutil.which("mount") and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    )
    try:
        yield disk, None if mounted else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(disk)], capture_output=True, check=False)


WRITE_ROWS = """
import sys
from pathlib import Path
from bench.records.csv_file import RecordWriter, read_records
from bench.records.schema import TIMINGS
folder, source = map(Path, sys.argv[1:])
written = 0
try:
    writer = RecordWriter(folder)
    for number in range(10):
        for record in read_records(source):
            record["run_id"] = f"run-{number}"
            writer.begin({**record, **dict.fromkeys(TIMINGS)})
            writer.finish(record)
            written += 1
except OSError as error:
    print(error, file=sys.stderr)
print(written)
"""


def full(draw: random.Random, folder: Path) -> str:
    """What is written on a full disk is there whole or not at all, and the error is a line."""
    run_folder = draw.choice(sorted((HOUSE / "results").glob("*/records.csv"))).parent
    size = draw.choice((4, 16, 64)) * 1024
    what = draw.choice(("report", "history", "rows"))
    with full_disk(folder, size) as (disk, limit):
        page = disk / "report.html"
        page.write_text("the old page")
        if what == "report":
            ended = run("-m", "bench", "report", run_folder, "--output", page, folder=folder, limit=limit)
            ended.expect_clear((0, 2))
            expect(ended.code == 0 or page.read_text() == "the old page", "report: the old page is lost")
        elif what == "history":
            (disk / "run").mkdir()
            with suppress(OSError):
                shutil.copy(run_folder / "records.csv", disk / "run")
            run("-m", "bench", "history", "--results", disk, folder=folder, limit=limit).expect_clear((0, 2))
        else:
            ended = run("-c", WRITE_ROWS, disk / "rows", run_folder, folder=folder, limit=limit)
            ended.expect_clear((0,))
            if (disk / "rows" / "records.csv").exists():
                kept = [each for each in read_records(disk / "rows") if each["reason"] != "killed"]
                expect(len(kept) >= int(ended.output), "rows: a finished row is lost")
        left = [path.name for path in disk.rglob("*") if path.name.endswith(".new")]
        expect(not left, f"{what}: {', '.join(left)} is left behind")
    return f"{what} on {size // 1024} KiB"


# --- compilers and caches --------------------------------------------------------------------------------

USE_ENGINE = """
import sys
import numpy as np, tensorflow as tf, keras
from cells import FusedRNN, LSTMCell
from cells.engines.native import library
library.COMPILE_S = float(sys.argv[1])
keras.utils.set_random_seed(1)
layer = FusedRNN(LSTMCell(3), return_sequences=True)
inputs = tf.ones([2, 4, 3])
plain = keras.layers.RNN(layer.cell, return_sequences=True)
np.testing.assert_allclose(layer(inputs), plain(inputs), rtol=1e-4, atol=1e-5)
print(layer.chosen_engine(), layer.why_no_faster())
"""
LIBRARIES = "recurrent-cell-benchmark"  # the name of their folder in the cache
VERSION = 'test "$1" = --version && { echo 1.0; exit; }'
MADE = 'for made; do case "$made" in *.so) break; esac; done'
# what a compiler does instead of compiling, by name
COMPILERS = {
    "fails": "exit 1",
    "is killed": "kill -9 $$",
    "hangs": "sleep 1000",
    "hangs with children": "sleep 1000 & sleep 1000",
    "prints for ever": "yes",
    "prints bytes": "head -c 100000 /dev/urandom; exit 1",
    "makes nothing": "exit 0",
    "makes garbage": f"{MADE}; head -c 5000 /dev/urandom >$made",
    "makes an empty file": f"{MADE}; : >$made",
    "makes a folder": f"{MADE}; mkdir $made",
    "makes half a library": f'{MADE}; c++ "$@" && truncate -s $(($(stat -c %s $made) / 3)) $made',
    "makes another library": f"{MADE}; echo 'int i;' | c++ -shared -x c++ - -o $made",
}


def compiler(draw: random.Random, folder: Path) -> str:
    """A strange compiler: another engine does the work, right, and says why."""
    name = draw.choice([*COMPILERS, "is not there"])
    variables = {"CXX": str(folder / "compiler"), "XDG_CACHE_HOME": str(folder / "cache")}
    if name == "is not there":
        variables = {**variables, "PATH": "", "CXX": ""}
    else:
        Path(variables["CXX"]).write_text(f"#!/bin/bash\n{VERSION}\n{COMPILERS[name]}\n")
        Path(variables["CXX"]).chmod(0o700)
    ended = run("-c", USE_ENGINE, draw.choice((1, 3)), folder=folder, **variables)
    expect(ended.code == 0, f"{name}: exit code {ended.code}: {one_line(ended.errors[-300:])}")
    expect(ended.output.startswith("xla the native engine cannot"), f"{name}: {one_line(ended.output)}")
    left = [path.name for path in (folder / "cache" / LIBRARIES).glob("*")]
    expect(not left, f"{name}: {', '.join(left)} is left behind")
    return name


def _cut(draw: random.Random, path: Path) -> None:
    os.truncate(path, draw.randrange(path.stat().st_size))


def _flip(draw: random.Random, path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def _link(_: random.Random, path: Path) -> None:
    path.rename(path.with_name("aside"))
    path.symlink_to("aside")


def _pipe(_: random.Random, path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _give_away(_: random.Random, path: Path) -> None:
    os.chown(path, 12345, -1)


# what becomes of a library in the cache, or of the cache's folder, by name
DAMAGES: dict[str, Callable[[random.Random, Path], None]] = {
    "cut": _cut,
    "a bit flipped": _flip,
    "a link": _link,
    "a pipe": _pipe,
    "written by all": lambda _, path: path.chmod(0o777),
    "gone": lambda _, path: path.unlink(),
    **({"of another user": _give_away} if os.getuid() == 0 else {}),
}
OF_FOLDERS = ("written by all", "of another user")


def cache(draw: random.Random, folder: Path) -> str:
    """A damaged cache: nothing of it is loaded, and what is made anew is right."""
    variables = {"XDG_CACHE_HOME": str(folder / "cache")}
    run("-c", USE_ENGINE, 60, folder=folder, **variables)
    name = draw.choice([*DAMAGES])
    own = folder / "cache" / LIBRARIES
    libraries = sorted(own.glob("*.so"))
    expect(libraries, "no library was kept")
    of_folder = name in OF_FOLDERS and draw.random() < 0.5
    for path in [own] if of_folder else draw.sample(libraries, draw.randint(1, len(libraries))):
        DAMAGES[name](draw, path)
    what = f"{'folder' if of_folder else 'library'}: {name}"
    ended = run("-c", USE_ENGINE, 60, folder=folder, **variables)
    expect(ended.code == 0, f"{what}: exit code {ended.code}: {one_line(ended.errors[-300:])}")
    expect(ended.output.startswith("native"), f"{what}: {one_line(ended.output)}")
    return what


# --- odd cells -------------------------------------------------------------------------------------------

CELL = """
import ctypes, os, sys, threading, time
import keras
class Cell(keras.layers.SimpleRNNCell):
    def {where}(self, *args, **kwargs):
        {what}
        return super().{where}(*args, **kwargs)
"""
DEEDS = (
    *("os._exit(0)", "sys.exit(0)", "raise KeyboardInterrupt", "ctypes.string_at(0)", "os.abort()"),
    *("os.kill(os.getpid(), 9)", "time.sleep(1000)", "[None for _ in iter(int, 1)]", "bytearray(2**40)"),
    *(
        "self.kept = [bytes(2**20) + os.urandom(1) for _ in range(10**6)]",
        "raise ValueError('\\x1b[31m' * 999)",
    ),
    *("print('x' * 10**6)", "os.close(1); os.close(2)", "sys.setrecursionlimit(10**9); f = lambda: f(); f()"),
    *("keras.backend.set_floatx('float64')", "os.chdir('/')", "threading.Thread(target=time.sleep).start()"),
)


def odd_cell(draw: random.Random, folder: Path) -> str:
    """A cell that does harm: `check` says so and ends."""
    what, where = draw.choice(DEEDS), draw.choice(("__init__", "build", "call", "get_config"))
    (folder / "odd.py").write_text(CELL.format(what=what, where=where))
    ended = run("-m", "bench", "check", "odd.py:Cell", "--time-limit=3", folder=folder)
    name = f"{what[:40]} in {where}"
    expect(ended.code in (0, 1, 2), f"{name}: exit code {ended.code}: {one_line(ended.errors[-300:])}")
    expect("worker.py" not in ended.errors, f"{name}: a traceback of ours: {one_line(ended.errors[-300:])}")
    expect(ended.output.strip() or ended.errors.strip(), f"{name}: not a word")
    return name


# --- the whole -------------------------------------------------------------------------------------------

KINDS: dict[str, tuple[str, Callable[[random.Random, Path], str]]] = {
    "kill": ("a run killed at a random moment", killed_run),
    "disk": ("a full disk", full),
    "compiler": ("a strange compiler, or none", compiler),
    "cache": ("a damaged cache of libraries", cache),
    "cell": ("a cell that does harm, under `check`", odd_cell),
}


@dataclass
class Tally:
    """What was tried and what was lost, by kind."""

    tried: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)

    def table(self) -> list[str]:
        """As Markdown."""
        rows = [
            f"| {words} | {self.tried[kind]} | {self.tried[kind] - self.lost[kind]} | {self.lost[kind]} |"
            for kind, (words, _) in KINDS.items()
            if self.tried[kind]
        ]
        return ["| what | tried | survived | lost |", "| --- | ---: | ---: | ---: |", *rows]


def attempt(kind: str, seed: str) -> str:
    """Tries once, in a folder of its own; says what was tried, raises Lost where something was lost."""
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        return KINDS[kind][1](random.Random(f"{seed} {kind}"), Path(folder))


def soak(minutes: float, seed: int, kinds: list[str]) -> Tally:
    """Tries each kind in turn until the time is over, once each at least."""
    tally, end, number = Tally(), time.monotonic() + 60 * minutes, 0
    while number == 0 or time.monotonic() < end:
        for kind in kinds:
            if number and time.monotonic() >= end:
                break
            tally.tried[kind] += 1
            try:
                found = f"survived: {attempt(kind, f'{seed} {number}')}"
            except Exception as error:  # a `Lost`, or what this script has not foreseen
                tally.lost[kind] += 1
                found = f"LOST: {one_line(f'{type(error).__name__}: {error}')}"
            print(f"{kind} {number}: {found}", flush=True)
        number += 1
    return tally


PAGE = """# What was tried to break it

Written by `ci/soak.sh --minutes {minutes:g} --seed {seed} --write results/soak.md`, {day}, on {machine}.
Each attempt is a process of its own, at random. Lost is what broke a promise: a finished row or an old file
that is gone, a traceback, a hang, a wrong answer, something left behind.

{table}
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="ci/soak.sh", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to try (10)")
    parser.add_argument("--seed", type=int, default=1, help="what is drawn follows from it (1)")
    parser.add_argument("--only", choices=KINDS, action="append", help="this kind; may repeat (all)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write a page with the table")
    args = parser.parse_args()
    tally = soak(args.minutes, args.seed, args.only or [*KINDS])
    table = "\n".join(tally.table())
    print(f"\n{table}")
    if args.write:
        facts = {"day": environment.timestamp()[:10], "machine": environment.machine_key(), "table": table}
        write_whole(args.write, PAGE.format(minutes=args.minutes, seed=args.seed, **facts))
    return 1 if tally.lost.total() else 0


if __name__ == "__main__":
    sys.exit(main())
