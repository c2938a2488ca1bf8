"""`python -m bench history`: joins the runs of each machine, draws them and says what changed lately.

The pictures go to `charts/` in the results' folder, a folder a machine, and the words into its README.md.
"""

import argparse
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.cases.read_options import path
from bench.history.charts import Chart, charts_of, draw, remove_old
from bench.history.timeline import History, Machine, Skipped, read_histories
from bench.history.words import words
from bench.records.schema import RecordError
from bench.records.text import counted, one_line
from bench.report.readme import ReadmeError, write_block


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "--results",
        type=path,
        default=Path("results"),
        metavar="FOLDER",
        help="the folder that holds the runs' folders (default: results)",
    )
    parser.add_argument(
        "--machine",
        metavar="TEXT",
        help="draw only the machines with this in their name; the others' charts stay as they are",
    )


def main(args: argparse.Namespace) -> int:
    """Joins, draws and writes.

    Returns:
        0; 2 where nothing could be read, no machine is called so, or a file cannot be written.
    """
    try:
        histories, skipped = read_histories(args.results)
        _tell_skipped(skipped)
        chosen = [history for history in histories if _is_called(history, args.machine)]
        if not chosen and (histories or skipped):
            return _refuse(args.results, histories)
        charts = {history.machine: charts_of(history) for history in chosen}
        print(_draw(args.results, chosen, charts))
        readme = args.results / "README.md"
        if write_block(readme, "history", words(histories, skipped, charts), heading="History"):
            print(f"{readme}: written")
    except (ReadmeError, RecordError) as error:
        print(one_line(error), file=sys.stderr)
        return 2
    except OSError as error:
        print(one_line(f"cannot be written: {error}"), file=sys.stderr)
        return 2
    return 0


def _tell_skipped(skipped: Sequence[Skipped]) -> None:
    for skip in skipped:
        print(one_line(skip.why), file=sys.stderr)
    if skipped:
        folders = len({skip.folder for skip in skipped})
        print(f"{counted(folders, 'folder')} left out, wholly or in part", file=sys.stderr)


def _is_called(history: History, text: str | None) -> bool:
    return text is None or text.casefold() in str(history.machine).casefold()


def _refuse(results: Path, histories: Sequence[History]) -> int:
    known = "; ".join(one_line(history.machine) for history in histories)
    print(
        f"{results}: no such machine; there are: {known}" if known else f"{results}: no run can be read",
        file=sys.stderr,
    )
    return 2


def _draw(results: Path, histories: Sequence[History], charts: Mapping[Machine, Sequence[Chart]]) -> str:
    """Draws what changed; returns what was done, in words."""
    wanted = [chart for drawn in charts.values() for chart in drawn]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        written = draw(results, wanted)
    removed = remove_old(results, charts, wanted)
    runs = sum(len(history.runs) for history in histories)
    return (
        f"{counted(runs, 'run')} on {counted(len(histories), 'machine')}: "
        f"{counted(len(wanted), 'chart')}, {len(written)} of them drawn"
        + (f"; {counted(len(removed), 'old file')} removed" if removed else "")
    )
