"""Measure two revisions in processes that take turns, BASE HEAD HEAD BASE, and keep what is finished.

A session lives in a work folder: a folder of runs for each side, `session.tsv` (whose turn it was, a line a
process), the settings, and what each process printed. Called again, it goes on where it was stopped.
"""

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.gate.repository import CannotMeasure, Repository
from bench.gate.revisions import SESSION_FILE
from bench.gate.side_environment import check_origin, make_environment, search_path
from bench.gate.verdicts import PROCESSES
from bench.records.csv_file import RECORDS_FILE
from bench.records.files import read_json, read_text, write_whole
from bench.records.schema import RecordError
from bench.report.progress import duration

SIDES = ("base", "head")
SECONDS = 2.5  # of timing a case
_TURNS = ("base", "head", "head", "base")
_SETTINGS_FILE = "settings.json"
_FAILED_CASE = 1  # pytest's exit code; the failure is in the records
_USAGE = 4


@dataclass(frozen=True)
class Session:
    """Two revisions to measure, and how.

    Attributes:
        repository: whose revisions.
        place: where in it the processes run, relative to its root.
        commits: the full id of each side's commit.
        requirements: of each side, what pip installs for it over this environment.
        options: those of `python -m bench run`.
        targets: the FILE:NAME or MODULE:NAME that the options name.
        processes: of each side.
        work: the work folder; None for one of its own under `build/gate`.
    """

    repository: Repository
    place: Path
    commits: Mapping[str, str]
    requirements: Mapping[str, tuple[str, ...]]
    options: tuple[str, ...]
    targets: tuple[str, ...] = ()
    processes: int = PROCESSES
    work: Path | None = None

    @property
    def settings(self) -> dict[str, object]:
        """What must be the same for a stopped session to go on."""
        return {
            "place": str(self.place),
            **{side: self.commits[side] for side in SIDES},
            **{f"{side}_with": list(self.requirements[side]) for side in SIDES},
            "options": list(self.options),
            "python": sys.executable,
        }

    @property
    def folder(self) -> Path:
        """The work folder."""
        if self.work is not None:
            return self.work
        key = zlib.crc32(json.dumps(self.settings).encode())
        return (
            self.repository.root
            / "build"
            / "gate"
            / "-".join([*(self.commits[side][:10] for side in SIDES), f"{key:08x}"])
        )

    @property
    def turns(self) -> list[str]:
        """The side of each process, in their order."""
        return [_TURNS[number % len(_TURNS)] for number in range(2 * self.processes)]

    def runs(self, side: str) -> Path:
        """The folder of a side's finished runs."""
        return self.folder / side

    def tree(self, side: str) -> Path:
        return self.folder / f"tree-{side}"

    def finished(self) -> list[tuple[str, str]]:
        """Side and run of each finished process, in their order.

        One that was put in its place, but not written down when the session was stopped, is the last.
        """
        with contextlib.suppress(RecordError):
            lines = [line.split("\t") for line in read_text(self.folder / SESSION_FILE).splitlines()]
            listed = [(line[0], line[1]) for line in lines if len(line) == 2 and self._has_run(*line)]
            return [*listed, *(each for each in self._stored() if each not in listed)]
        return list(self._stored())

    def _stored(self) -> Iterator[tuple[str, str]]:
        for side in SIDES:
            for file in sorted(self.runs(side).glob(f"*/{RECORDS_FILE}")):
                yield side, file.parent.name

    def _has_run(self, side: str, run: str) -> bool:
        return side in SIDES and (self.runs(side) / run / RECORDS_FILE).is_file()


def plan_lines(session: Session) -> Iterator[str]:
    """What would be done: the sides, the options, the turns, how many processes are finished."""
    for side in SIDES:
        yield f"{side}: {' '.join([session.commits[side], *session.requirements[side]])}"
    yield f"each: python -m bench run {shlex.join(session.options)}"
    yield f"turns: {' '.join(session.turns)}"
    yield f"finished: {len(session.finished())} of {2 * session.processes}"
    yield f"work: {session.folder}"


def measure(session: Session, say: Callable[[str], None]) -> None:
    """Measures what is not finished yet; the runs lie in `session.runs(side)`.

    The work trees are removed whatever happens, and a finished process is never run again.

    Raises:
        CannotMeasure: a process has no run, or the work folder is another session's.
    """
    with _held(session.folder), _stoppable():
        _claim(session)
        finished = session.finished()
        _write_down(session, finished)
        missing = session.turns[len(finished) :]
        if not missing:
            return
        with contextlib.ExitStack() as trees:
            for side in dict.fromkeys(missing):
                say(f"{side}: work tree of {session.commits[side][:12]}")
                trees.enter_context(session.repository.work_tree(session.commits[side], session.tree(side)))
            _measure_turns(session, finished, missing, _pythons(session, missing, say), say)


def _pythons(session: Session, missing: Sequence[str], say: Callable[[str], None]) -> dict[str, Path]:
    """The Python of each side, which imports the side's code."""
    found = {}
    for side in dict.fromkeys(missing):
        found[side] = Path(sys.executable)
        if session.requirements[side]:
            say(f"{side}: an environment with {' '.join(session.requirements[side])}")
            found[side] = make_environment(session.folder / f"environment-{side}", session.requirements[side])
        check_origin(
            found[side], session.tree(side), session.place, _environment(session, side), session.targets
        )
    return found


def _measure_turns(
    session: Session,
    finished: list[tuple[str, str]],
    missing: Sequence[str],
    pythons: Mapping[str, Path],
    say: Callable[[str], None],
) -> None:
    started = time.monotonic()
    for number, side in enumerate(missing):
        left = (time.monotonic() - started) / number * (len(missing) - number) if number else None
        rest = f", about {duration(left)} left" if left is not None else ""
        say(f"process {len(finished) + 1} of {2 * session.processes}: {side}{rest}")
        finished.append((side, _measure(session, side, pythons[side], len(finished))))
        _write_down(session, finished)


def _measure(session: Session, side: str, python: Path, turn: int) -> str:
    """Runs one process and puts its run in its place; returns the run's name."""
    running, log = session.folder / "running", session.folder / "logs" / f"{turn:02d}-{side}.txt"
    command = [str(python), "-m", "bench", "run", f"--results={running}", *session.options]
    place = session.tree(side) / session.place
    return measure_once(side, command, place, _environment(session, side), running, session.runs(side), log)


def measure_once(
    name: str,
    command: Sequence[str],
    place: Path,
    environment: Mapping[str, str],
    running: Path,
    runs: Path,
    log: Path,
) -> str:
    """Runs one process in `place` that makes a run in `running`, and puts that into `runs` when it is whole.

    Args:
        name: what the process is called where it has no run.
        log: where what it prints goes.

    Returns:
        the run's name.

    Raises:
        CannotMeasure: it has no run.
    """
    shutil.rmtree(running, ignore_errors=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    code = run_process(command, place, environment, log)
    found = sorted(running.glob(f"*/{RECORDS_FILE}"))
    if code not in (0, _FAILED_CASE) or len(found) != 1:
        raise CannotMeasure(_why(name, code, log))
    (folder,) = (file.parent for file in found)
    runs.mkdir(exist_ok=True)
    folder.rename(runs / folder.name)
    shutil.rmtree(running)
    return folder.name


def run_process(command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> int:
    """Runs a command, which ends with us if we are stopped; what it prints goes to `log`."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait()
        except BaseException:
            _end(process)
            raise


def _end(process: subprocess.Popen, patience_s: float = 10) -> None:
    """Ends a process and its children."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)


def _why(name: str, code: int, log: Path) -> str:
    """Says why a process has no run: its usage error, or where all that it said is."""
    lines = log.read_text(errors="replace").splitlines()
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    if code == _USAGE and errors:
        return f"{name}: {errors[0]}"
    last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
    return f"{name}: no run, exit code {code}: {last.strip()} (all that it said: {log})"


def _environment(session: Session, side: str) -> dict[str, str]:
    path = search_path(session.repository.root, session.tree(side), session.folder)
    return {**os.environ, "PYTHONPATH": path}


# --- the work folder ---


def _claim(session: Session) -> None:
    """Makes the work folder the session's; raises CannotMeasure where it is another's."""
    file = session.folder / _SETTINGS_FILE
    if not file.exists():
        _write(file, json.dumps(session.settings, indent=1) + "\n")
        return
    try:
        before = read_json(file)
    except RecordError as error:
        raise CannotMeasure(str(error)) from None
    if before != session.settings:
        known = before if isinstance(before, dict) else {}
        other = [name for name, value in session.settings.items() if known.get(name) != value]
        raise CannotMeasure(
            f"{session.folder}: holds a session with other settings ({', '.join(other)}); remove it, or name "
            "another folder with --work"
        )


def _write_down(session: Session, finished: Sequence[tuple[str, str]]) -> None:
    _write(session.folder / SESSION_FILE, "".join(f"{side}\t{run}\n" for side, run in finished))


def _write(file: Path, text: str) -> None:
    try:
        write_whole(file, text)
    except OSError as error:
        raise CannotMeasure(f"cannot write: {error}") from None


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keeps other sessions out of the work folder, which is made and hidden from git."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n")
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise CannotMeasure(f"{folder}: cannot be made: {error.strerror or error}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CannotMeasure(f"{folder}: another session is at work there") from None
        yield


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Makes a request to end (a job is cancelled) end as Ctrl-C does, so that all is tidied up."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
