"""`python -m bench report`: writes runs as one HTML file, and draws their charts anew."""

import argparse
import sys
from pathlib import Path

from bench.cases.read_options import path
from bench.records.run_folder import read_run, run_folders
from bench.records.schema import RecordError
from bench.records.text import one_line
from bench.report.charts.run_charts import draw
from bench.report.html import REPORT_FILE, default_target, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "runs",
        nargs="*",
        type=path,
        metavar="RUN",
        help="runs' folders or CSVs, a section each, and of two what moved between them (default: the "
        "newest run of --results)",
    )
    parser.add_argument(
        "--results",
        type=path,
        default=Path("results"),
        metavar="DIR",
        help="where runs are (default: results)",
    )
    parser.add_argument(
        "--output",
        type=path,
        metavar="FILE",
        help=f"what to write (default: {REPORT_FILE} in the run's folder; of several, next to their folders)",
    )
    parser.add_argument(
        "--charts",
        action="store_true",
        help="draw the charts in each run's folder anew too, charts/NAME.png",
    )


def main(args: argparse.Namespace) -> int:
    """Writes the report, and the runs' charts where they are asked for, and prints the files' paths.

    Returns:
        0; 2 where a run cannot be read or a file not be written.
    """
    try:
        runs = args.runs or run_folders(args.results)[-1:]
        print(write_report(runs, args.output or default_target(runs)))
        for run in map(read_run, runs if args.charts else []):
            for chart in draw(run.folder, run.records):
                print(chart)
    except RecordError as error:
        print(one_line(error), file=sys.stderr)
        return 2
    except OSError as error:
        print(one_line(f"cannot be written: {error}; --output=FILE names another file"), file=sys.stderr)
        return 2
    return 0
