"""`python -m bench report`: writes runs as one HTML file."""

import argparse
import sys
from pathlib import Path

from bench.records.run_folder import run_folders
from bench.records.schema import RecordError
from bench.records.text import one_line
from bench.report.html import REPORT_FILE, default_target, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "runs",
        nargs="*",
        type=Path,
        metavar="RUN",
        help="runs' folders or CSVs, a section each (default: the newest run of --results)",
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="where runs are (default: results)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=f"what to write (default: {REPORT_FILE} in the run's folder; of several, next to their folders)",
    )


def main(args: argparse.Namespace) -> int:
    """Writes the report and prints its path.

    Returns:
        0; 2 where a run cannot be read or the report not be written.
    """
    try:
        runs = args.runs or run_folders(args.results)[-1:]
        print(write_report(runs, args.output or default_target(runs)))
    except (RecordError, OSError) as error:
        print(one_line(error), file=sys.stderr)
        return 2
    return 0
