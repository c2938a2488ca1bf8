"""`python -m bench advise`: prints the fastest verified ways to run a cell at a shape.

Reads what was measured; `--measure` measures the ways at the shape itself first.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.cases.case import DEVICES, MODES
from bench.cases.read_options import path
from bench.cases.sweeps import SWEEPS, Grid, Sweep
from bench.commands.run import run
from bench.records.frame import load_with_notices
from bench.records.run_folder import run_folders
from bench.records.schema import SHAPE, RecordError
from bench.records.text import one_line
from bench.report.advice import AdviceError, advice, subjects_to_measure

_UNROLLED_AT_MOST = 50  # timesteps; beyond, compiling may take minutes
_SWEEP = "advise"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    for name in SHAPE:
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=_size, required=True, metavar="N", help="of the wished shape")
    parser.add_argument("--mode", choices=MODES, required=True, help="forward, or forward and gradients")
    parser.add_argument("--cell", metavar="NAME", help="ways to run this cell alone: lstm, gru, slstm, …")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="(default: cpu)")
    parser.add_argument(
        "--results", type=path, default=Path("results"), metavar="DIR", help="(default: results)"
    )
    parser.add_argument("--measure", action="store_true", help="measure now, at this shape, into --results")


def _size(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def main(args: argparse.Namespace) -> int:
    """Prints the advice.

    Returns:
        0; 2 where there is nothing to advise from, with the reason on stderr.
    """
    shape = {name: getattr(args, name) for name in SHAPE}
    try:
        folders = _measured(args, shape) if args.measure else run_folders(args.results)
        frame, notices = load_with_notices(folders)
        for notice in notices:
            print(one_line(notice), file=sys.stderr)
        for line in advice(frame, shape, args.mode, args.cell, args.device):
            print(one_line(line, None))
    except (RecordError, AdviceError) as error:
        print(one_line(error), file=sys.stderr)
        return 2
    return 0


def _measured(args: argparse.Namespace, shape: Mapping[str, int]) -> list[Path]:
    """Measures the ways now, into a run of `args.results`, which it returns."""
    options: list[dict[str, Any]] = [{}, {"implementation": 1}, {"jit_compile": True}]
    if shape["timesteps"] <= _UNROLLED_AT_MOST:
        options.append({"unroll": True})
    sizes = (shape["batch_size"], shape["timesteps"], shape["features"], shape["units"])
    grid = Grid(subjects_to_measure(args.cell), (sizes,), tuple(options), (args.mode,))
    before = set(args.results.glob("*"))
    SWEEPS[_SWEEP] = Sweep("What is fastest at this shape?", (grid,), ("plain_builtin",))
    try:
        run(["--sweep", _SWEEP, "--results", str(args.results), "--device", args.device])
    finally:
        del SWEEPS[_SWEEP]
    made = sorted(set(args.results.glob("*")) - before)
    if not made:
        raise AdviceError("nothing was measured: see above")
    return made
