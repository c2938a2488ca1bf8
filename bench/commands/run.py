"""Starts the benchmarks from anywhere: what `python -m bench run` does."""

import argparse
import os
from pathlib import Path

_PROGRAM = "python -m bench run"
_HELP = {"-h", "--help"}


def run(arguments: list[str]) -> int:
    """The same session as `pytest --benchmark-only` in a checkout, in the current folder, into ./results.

    Returns:
        pytest's exit code.

    Raises:
        KeyboardInterrupt: it was interrupted; what was measured stands.
    """
    import pytest

    if _HELP & {*arguments}:
        _print_own_options()
    benchmarks = Path(__file__).parent.parent / "benchmarks"
    here = Path.cwd()
    watch = _Watch()
    code = pytest.main(
        [
            str(benchmarks),
            "--override-ini=python_files=benchmark_*.py",
            "-p",
            "bench.plugin",
            "-p",
            "no:cacheprovider",
            f"--rootdir={here}",
            f"--config-file={os.devnull}",
            "--benchmark-only",
            *arguments,
        ],
        plugins=[watch],
    )
    if watch.interrupted:
        raise KeyboardInterrupt
    return code


class _Watch:
    """A plugin: errors and the help call the program by what was typed; and it notes Ctrl-C, for which pytest
    has the exit code of other ends too."""

    interrupted = False

    def pytest_addoption(self, parser):
        parser.prog = _PROGRAM

    def pytest_keyboard_interrupt(self, excinfo):
        self.interrupted |= issubclass(excinfo.type, KeyboardInterrupt)

    def pytest_configure(self, config):
        """Refuses what is no option: as a folder of benchmarks it would have none, and all would be run."""
        import pytest

        others = config.args[1:]
        if others:
            raise pytest.UsageError(
                f"{' '.join(others)}: {_PROGRAM} takes options alone; a cell of yours is --cell=FILE:CELL"
            )


def _print_own_options() -> None:
    """Prints the options of this project: in pytest's own help they come after a hundred others."""
    from bench.session.options import add_options

    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Measures cells and layers. First the options of this project, then pytest's own and "
        "pytest-benchmark's.",
        usage="%(prog)s [OPTIONS]",
        add_help=False,
    )
    add_options(_Options(parser))
    print(f"{parser.format_help()}\n")


class _Options:
    """What `add_options` needs of pytest's parser, on one of argparse's."""

    def __init__(self, parser: argparse.ArgumentParser):
        self._parser = parser

    def getgroup(self, name: str) -> "_Options":
        self.addoption = self._parser.add_argument_group(name).add_argument
        return self
