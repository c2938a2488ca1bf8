"""Starts the benchmarks from anywhere: what `python -m bench run` does."""

import os
from pathlib import Path


def run(arguments: list[str]) -> int:
    """The same session as `pytest --benchmark-only` in a checkout, in the current folder, into ./results."""
    import pytest

    benchmarks = Path(__file__).parent.parent / "benchmarks"
    here = Path.cwd()
    return pytest.main(
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
        ]
    )
