"""`python -m bench COMMAND`: the commands that are not pytest's own."""

import argparse
import sys
from collections.abc import Callable

from bench.commands.run import run


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["run"]:  # everything after it is pytest's
        return run(arguments[1:])
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("run", help="measure: pytest --benchmark-only on the installed benchmarks")
    for name, (explanation, add_arguments, command) in _commands().items():
        subparser = commands.add_parser(name, help=explanation, description=explanation)
        add_arguments(subparser)
        subparser.set_defaults(command=command)
    chosen = parser.parse_args(arguments)
    return chosen.command(chosen)


def _commands() -> dict[str, tuple[str, Callable, Callable]]:
    from bench.commands import advise, check, gate, history, readme, report, selftest

    return {
        "advise": ("the fastest verified ways at a shape", advise.add_arguments, advise.main),
        "check": ("is my cell right? the cell contract", check.add_arguments, check.main),
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
