"""`python -m bench readme`: writes the tables of the READMEs from a run, or checks that they are its."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.cases.read_options import path
from bench.history.timeline import read_histories
from bench.history.words import words
from bench.records.files import write_whole
from bench.records.schema import RecordError
from bench.records.text import one_line
from bench.report.blocks import BLOCKS as RUN_BLOCKS
from bench.report.blocks import Block
from bench.report.readme import ReadmeError, differences, read, remade

BLOCKS = {
    **RUN_BLOCKS,
    "history": Block(lambda folder: words(*read_histories(folder)), "folder"),
}
FILES = ("README.md", "bench/README.md", "results/*.md")  # below the checkout


def files() -> list[Path]:
    """The files with blocks: README.md, and those of the others that are there."""
    here = Path()
    return [here / FILES[0], *(file for pattern in FILES[1:] for file in sorted(here.glob(pattern)))]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "run",
        nargs="?",
        type=path,
        metavar="RUN",
        help="a run's folder, for the blocks that show a run of its sweeps; left out: each block's own",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a block differs")
    parser.add_argument(
        "--file",
        action="append",
        type=path,
        dest="files",
        metavar="FILE",
        help=f"a file with blocks; may repeat (default: {', '.join(FILES)})",
    )


def main(args: argparse.Namespace) -> int:
    """Writes or checks the blocks.

    Returns:
        0; 1 where `--check` found a difference; 2 where a file, a marker or a run is wrong, nothing
        being written then.
    """
    try:
        texts = {file: read(file) for file in args.files or files()}
        made = {file: remade(file, text, args.run, BLOCKS) for file, text in texts.items()}
        if args.check:
            return _report([line for file in texts for line in differences(file, texts[file], made[file])])
        for file, text in made.items():
            if text != texts[file]:
                write_whole(file, text)
                print(f"{file}: written")
    except (ReadmeError, RecordError, OSError) as error:
        print(one_line(error), file=sys.stderr)
        return 2
    return 0


def _report(differences: Sequence[str]) -> int:
    for line in differences:
        print(line, file=sys.stderr)
    return 1 if differences else 0
