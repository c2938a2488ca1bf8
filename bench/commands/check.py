"""`python -m bench check TARGET`: asks a cell every question of `bench.contract` and prints what it found.

The cell runs in a worker with limits of time and memory. Exit code 0 if all checks hold, 1 if one fails or
does not come to an end, 2 if the target cannot be loaded or an option makes no sense.
"""

import argparse
import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from typing import Any

from bench.cases.devices import UnsupportedBackend, check_backend_chosen
from bench.cases.read_options import path
from bench.contract.load_cell import FORM, TargetError, parse_kwargs, parse_step_shape
from bench.contract.report import BROKEN, ContractReport, as_text
from bench.processes.contract_worker import (
    BACKENDS,
    CHECK_S,
    ContractLimits,
    UserCell,
    check_apart,
    contract_nursery,
)
from bench.records.files import write_whole
from bench.records.junit import ERROR, FAILURE, SKIPPED, JunitTest, junit
from bench.records.text import one_line


class BadOption(ValueError):
    """An option has a value that makes no sense; the message is one line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("target", metavar="TARGET", nargs="?", help=f"the cell: {FORM}")
    parser.add_argument(
        "--layer",
        metavar="TARGET",
        help="a whole layer or model instead, or a function that makes one: it is asked a lighter contract",
    )
    parser.add_argument("--units", type=int, default=16, help="what Name is called with (default: 16)")
    parser.add_argument(
        "--kwargs",
        default="{}",
        metavar="JSON",
        help="its other arguments, a JSON object: '{\"alpha\": 0.5}'",
    )
    step = parser.add_mutually_exclusive_group()
    step.add_argument(
        "--features",
        type=int,
        metavar="N",
        help="size of the inputs, for a cell that needs a certain one (default: 4)",
    )
    step.add_argument(
        "--step-shape",
        metavar="N,N,...",
        help="shape of one step of the inputs, for a cell whose steps are no vectors: 8,8,1",
    )
    parser.add_argument(
        "--time-limit",
        type=float,
        default=CHECK_S,
        metavar="SECONDS",
        help=f"how long a check may take (default: {CHECK_S:g})",
    )
    parser.add_argument(
        "--memory-limit",
        type=int,
        metavar="BYTES",
        help="how much memory the cell's process may take (default: 2 GiB, at most half of all)",
    )
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="tensorflow",
        help="the back end of Keras that it is asked on; on others than TensorFlow the checks of graphs, "
        "XLA and gradients are skipped, and a call of tf.* is refused (default: tensorflow)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else")
    parser.add_argument("--junit", type=path, metavar="FILE", help="write JUnit XML too, a test a check")


def main(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    try:
        cell, limits = _cell(arguments), _limits(arguments)
        if cell.backend == "tensorflow":  # another is the worker's alone, whatever this process has
            check_backend_chosen()
        started = time.monotonic()
        with _stdout_to_stderr():
            report = _check(cell, limits)
    except (BadOption, TargetError, UnsupportedBackend) as error:
        details = getattr(error, "details", "")
        print(f"{details}\n\nerror: {error}".lstrip(), file=sys.stderr)
        unasked = JunitTest(arguments.target or arguments.layer or "none", "target", str(error), ERROR)
        _write_junit(arguments, [unasked])
        return 2
    print(as_json(report) if arguments.json else as_text(report, time.monotonic() - started))
    return 2 if not _write_junit(arguments, as_tests(report)) else 0 if report.ok else 1


def _write_junit(arguments: argparse.Namespace, tests: Iterable[JunitTest]) -> bool:
    """Writes the file that is asked for, if one is; returns False where it cannot be written."""
    if arguments.junit is None:
        return True
    try:
        write_whole(arguments.junit, junit("check", tests))
    except OSError as error:
        print(f"error: --junit: cannot be written: {one_line(error)}", file=sys.stderr)
        return False
    return True


def _cell(arguments: argparse.Namespace) -> UserCell:
    _expect_positive("--units", arguments.units)
    _expect_positive("--features", arguments.features)
    features = arguments.features
    if arguments.step_shape is not None:
        features = _parsed("--step-shape", parse_step_shape, arguments.step_shape)
    kwargs = _parsed("--kwargs", parse_kwargs, arguments.kwargs)
    if (arguments.target is None) == (arguments.layer is None):
        raise BadOption(f"expected a cell, {FORM}, or --layer=TARGET, and not both")
    backend, whole = arguments.backend, arguments.layer is not None
    if backend != "tensorflow" and whole:
        raise BadOption(f"--backend={backend}: is asked of a cell, not of a whole layer")
    if backend != "tensorflow" and find_spec(backend) is None:
        raise BadOption(
            f"--backend={backend}: needs {backend}, which pip installs with this project's extra `peers`"
        )
    target = arguments.layer if whole else arguments.target
    return UserCell(target, kwargs, arguments.units, features, whole, backend=backend)


def _limits(arguments: argparse.Namespace) -> ContractLimits:
    _expect_positive("--time-limit", arguments.time_limit, "number")
    _expect_positive("--memory-limit", arguments.memory_limit)
    if arguments.memory_limit is None:
        return ContractLimits(arguments.time_limit)
    return ContractLimits(arguments.time_limit, arguments.memory_limit)


def _parsed(option: str, parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise BadOption(f"{option}: {error}") from None


def _expect_positive(option: str, number: float | None, kind: str = "integer") -> None:
    if number is not None and not 0 < number < math.inf:
        raise BadOption(f"{option}: expected a positive {kind}, got {number}")


def _check(cell: UserCell, limits: ContractLimits) -> ContractReport:
    if cell.backend == "tensorflow":
        with contract_nursery() as nursery:
            return check_apart(cell, nursery, limits)
    try:
        return check_apart(cell, None, limits)
    except ImportError as error:  # of the library: what a user's file cannot import is a TargetError
        raise BadOption(f"--backend={cell.backend}: cannot be imported: {one_line(error)}") from None


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """What the user's cell and TensorFlow print goes to stderr: stdout is for the report."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


# --- reports -----------------------------------------------------------------------------------------


def as_json(report: ContractReport) -> str:
    """`{"target": …, "ok": …, "checks": [{"name": …, "status": …, "message": …}]}`."""
    checks = [
        {"name": result.name, "status": result.status, "message": result.text} for result in report.checks
    ]
    return json.dumps(
        {"target": report.target, "ok": report.ok, "checks": checks}, indent=2, ensure_ascii=False
    )


def as_tests(report: ContractReport) -> Iterator[JunitTest]:
    """A test for each check, for JUnit; what did not come to an end is an error."""
    ended = {"failed": FAILURE, "skipped": SKIPPED, **dict.fromkeys(BROKEN[1:], ERROR)}
    for result in report.checks:
        yield JunitTest(report.target, result.name, result.text, ended.get(result.status, ""))
