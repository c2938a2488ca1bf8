"""`python -m bench COMMAND`: the commands that are not pytest's own."""

import os
import sys

if __name__ == "__main__" and sys.path[0] not in ("", os.path.dirname(os.path.dirname(__file__))):
    # the folder one is in comes last: a `statistics.py` there is somebody's, and not Python's
    sys.path.append(sys.path.pop(0))

import argparse
import traceback
from collections.abc import Callable
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path

UNEXPECTED = 2  # 0 and 1 are answers
INTERRUPTED = 130  # as a shell says it


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    _print_anything()
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    if other := _other_cells():
        print(f"error: {other} hides this project's package `cells`: rename it", file=sys.stderr)
        return UNEXPECTED
    if arguments[:1] == ["run"]:  # everything after it is pytest's
        return _in_one_line(lambda: _run(arguments[1:]), debug)
    return _in_one_line(lambda: _command([each for each in arguments if each != "--debug"]), debug)


def _print_anything() -> None:
    """Lets a terminal or file of few letters have the others as escapes, where it would refuse the line; what
    is closed (`>&-`) takes all and keeps nothing."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open as long as the process lives
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _run(arguments: list[str]) -> int:
    from bench.commands.run import run

    return run(arguments)


def _command(arguments: list[str]) -> int:
    from bench.commands.parser import CommandParser

    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog="--debug, anywhere: show the traceback of an error that nobody foresaw",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=CommandParser)
    commands.add_parser("run", help="measure: pytest --benchmark-only on the installed benchmarks")
    for name, (explanation, add_arguments, command) in _commands().items():
        subparser = commands.add_parser(name, help=explanation, description=explanation)
        add_arguments(subparser)
        subparser.set_defaults(command=command)
    chosen = parser.parse_args(arguments)
    return chosen.command(chosen)


def _other_cells() -> str | None:
    """The file of another module `cells` that Python would import in place of ours; None where it is ours."""
    spec, house = find_spec("cells"), Path(__file__).resolve().parent.parent
    if spec is None or spec.origin is None:
        return None
    return None if Path(spec.origin).resolve().parent.parent == house else spec.origin


def _in_one_line(command: Callable[[], int], debug: bool) -> int:
    """The command's exit code; whatever goes wrong unforeseen is one line and the code 2."""
    try:
        from bench.session.interrupts import kept_interrupts

        with kept_interrupts():
            code = command()
        sys.stdout.flush()
    except BrokenPipeError:  # `… | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        from bench.records.text import one_line

        if debug:
            traceback.print_exc()
        more = "" if debug else " (--debug shows where)"
        print(f"error: {type(error).__name__}: {one_line(error)}{more}", file=sys.stderr)
        return UNEXPECTED
    return code


def _commands() -> dict[str, tuple[str, Callable, Callable]]:
    from bench.commands import advise, check, compare, doctor, gate, history, readme, report, selftest

    return {
        "advise": ("the fastest verified ways at a shape", advise.add_arguments, advise.main),
        "check": ("is my cell right? the cell contract", check.add_arguments, check.main),
        "compare": ("times cells against each other, at my shape", compare.add_arguments, compare.main),
        "doctor": ("what disturbs measuring here?", doctor.add_arguments, doctor.main),
        "gate": ("did a change make it slower? one verdict a case", gate.add_arguments, gate.main),
        "history": ("join the runs: draw charts, say what changed", history.add_arguments, history.main),
        "readme": ("write README.md's tables from a run", readme.add_arguments, readme.main),
        "report": ("write runs as one HTML file", report.add_arguments, report.main),
        "selftest": (
            "how often the timing itself is wrong, or the gate",
            selftest.add_arguments,
            selftest.main,
        ),
    }


if __name__ == "__main__":
    sys.exit(main())
