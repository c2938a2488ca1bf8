"""The pictures of a machine's history: an overview of all cases, and those that changed in detail.

A picture is drawn again only where its data changed: the digest of what is in it stands in its file.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from bench.history.detail_chart import MOST_CARDS, Card, Details
from bench.history.labels import baseline_name, changed_versions, clean, note, percent, slug
from bench.history.overview_chart import MOST_RUNS, Overview, Row, most_changed
from bench.history.step_detection import FEWEST_RUNS
from bench.history.timeline import History, Machine, Run, Timeline
from bench.records.files import open_regular
from bench.records.schema import RecordError
from bench.records.text import counted
from bench.report import labels
from bench.report.charts import run_charts
from bench.report.charts.files import SUFFIX, save_figure
from bench.report.charts.run_charts import CHARTS_FOLDER
from bench.report.labels import Record

if TYPE_CHECKING:
    import numpy as np

Chart = Overview | Details
_OLD_SUFFIXES = (".png", ".svg")
_MARK = "bench history "  # before the digest in a file's metadata
_DRAWING = 2  # counts up with each change of the code that changes a picture
_DPI = 140


def charts_of(history: History) -> list[Chart]:
    """The pictures of a machine: its overview, and the details of what changed where something did.

    A case that was measured once has no history yet; it is drawn where nothing has one.
    """
    if not history.timelines:
        return []
    drawn = [timeline for timeline in history.timelines if len(timeline.runs) > 1] or history.timelines
    longest: dict[object, int] = {}
    for timeline in drawn:
        sweep = timeline.names["sweep"]
        longest[sweep] = max(longest.get(sweep, 0), len(timeline.runs))
    ordered = sorted(drawn, key=lambda timeline: (-longest[timeline.names["sweep"]], _place(timeline)))
    changed = [timeline for timeline in ordered if timeline.ratio_shifts]
    detailed = _chosen(changed)
    charts: list[Chart] = [_overview(history, ordered, detailed)]
    if detailed:
        charts.append(_details(history, detailed, len(changed)))
    return charts


def _place(timeline: Timeline) -> tuple:
    """Sorts cases: by sweep, subject, mode, options, shape."""
    names = timeline.names
    options = labels.options(names)
    return (
        *(str(names["sweep"]), labels.order(names), str(names["mode"]), len(options), options),
        *(labels.shape(names), str(names["case"]), str(names["baseline"])),
    )


def _chosen(changed: Sequence[Timeline]) -> list[Timeline]:
    """The cases that are drawn in detail: of each subject and mode the one that changed most comes first."""
    ranked = sorted(changed, key=_size, reverse=True)
    seen = Counter[tuple]()
    ranks = {}
    for timeline in ranked:
        names = timeline.names
        story = (labels.label(names), names["mode"], baseline_name(names))
        ranks[timeline] = seen[story]
        seen[story] += 1
    return sorted(ranked, key=ranks.__getitem__)[:MOST_CARDS]


def _size(timeline: Timeline) -> float:
    return max(abs(shift.change) for shift in timeline.ratio_shifts)


# --- the overview ---


def _overview(history: History, drawn: Sequence[Timeline], detailed: Sequence[Timeline]) -> Overview:
    in_use = {run for timeline in drawn for run in timeline.runs}
    runs = [run for run in history.runs if run in in_use]
    shown = runs[-MOST_RUNS:]
    cases, changes = _changes(drawn, shown)
    kept = _fitting(cases, changes, detailed)
    usual = _usual_shape(cases)
    return Overview(
        stem=machine_folder(history.machine) / "overview",
        title=f"{counted(len(drawn), 'case')} over {counted(len(runs), 'run')}: "
        "the change of the ratio to the baseline",
        subtitle="a row: a case · a column: a run · the ratio's change since the first level (of fewer than "
        f"{FEWEST_RUNS} runs: since the first); blue: faster, red: slower",
        runs=tuple(run.time for run in shown),
        versions=tuple(
            (number, clean(changed_versions(before, after), 40))
            for number, (before, after) in enumerate(pairwise(shown), 1)
            if before.versions != after.versions
        ),
        rows=tuple(_row(cases[place], changes[place], usual, detailed) for place in kept),
        footnotes=tuple(_footnotes(history, drawn, len(runs), len(shown), len(cases), len(kept))),
    )


def _changes(drawn: Sequence[Timeline], runs: Sequence[Run]) -> tuple[list[Timeline], "np.ndarray"]:
    """The cases that the runs measured, and their ratios' changes, cases x runs; nan: not measured."""
    import numpy as np

    columns = {run: column for column, run in enumerate(runs)}
    changes = np.full((len(drawn), len(runs) + 1), np.nan)  # the last column: earlier runs
    for place, timeline in enumerate(drawn):
        at = [columns.get(run, len(runs)) for run in timeline.runs]
        changes[place, at] = timeline.of("ratio") / timeline.first_level - 1
    changes = changes[:, : len(runs)].round(4)
    measured = ~np.isnan(changes).all(axis=1)
    return [timeline for timeline, is_there in zip(drawn, measured, strict=True) if is_there], changes[
        measured
    ]


def _fitting(cases: Sequence[Timeline], changes: "np.ndarray", detailed: Sequence[Timeline]) -> list[int]:
    """The places of the cases that have a row: all, or of each few neighbours the one that changed most."""
    import numpy as np

    sizes = np.nanmax(np.abs(changes), axis=1)
    for place, timeline in enumerate(cases):
        if timeline in detailed:
            sizes[place] = np.inf
    return most_changed([_block(timeline) for timeline in cases], sizes)


def _block(timeline: Timeline) -> tuple[str, str]:
    """The sweep and the cell, under which the case stands."""
    return clean(str(timeline.names["sweep"]), 24), clean(labels.family(timeline.names), 16)


def _usual_shape(timelines: Sequence[Timeline]) -> Record:
    """The names of a case of the shape that most of the cases have."""
    shape = Counter(labels.shape(timeline.names) for timeline in timelines).most_common(1)[0][0]
    return next(timeline.names for timeline in timelines if labels.shape(timeline.names) == shape)


def _row(timeline: Timeline, changes: "np.ndarray", usual: Record, detailed: Sequence[Timeline]) -> Row:
    names = timeline.names
    number = detailed.index(timeline) + 1 if timeline in detailed else None
    last = timeline.ratio_shifts[-1].change if number else 0.0
    return Row(
        *_block(timeline),
        name=clean(f"{labels.label(names)}, {names['mode']} · {note(names, usual)}"),
        changes=tuple(changes.tolist()),
        mark=f"{number} {'▲' if last > 0 else '▼'} {percent(last)}" if number else "",
        slower=last > 0,
    )


def _footnotes(
    history: History, drawn: Sequence[Timeline], runs: int, shown: int, cases: int, rows: int
) -> Iterator[str]:
    if rows < cases:
        count = f"{counted(cases, 'case')} in {counted(rows, 'row')}"
        yield f"{count}: of neighbours the one that changed most is drawn."
    if shown < runs:
        yield f"Not drawn: {counted(runs - shown, 'earlier run')}."
    short = sum(not timeline.is_long_enough for timeline in drawn)
    if short:
        yield (
            f"{short:,} of {counted(len(drawn), 'case')} in too few runs to tell a change of level: "
            f"it takes {FEWEST_RUNS}."
        )
    once = len(history.timelines) - len(drawn)
    if once:
        yield f"Not drawn: {counted(once, 'case')} measured once."
    yield clean(str(history.machine), 140)


# --- the details ---


def _details(history: History, detailed: Sequence[Timeline], changed: int) -> Details:
    usual = _usual_shape(detailed)
    more = f": {len(detailed)} of {changed:,}" if changed > len(detailed) else ""
    return Details(
        stem=machine_folder(history.machine) / "changes",
        title=f"The cases whose ratio changed its level{more}",
        subtitle=f"{labels.in_words(usual)}, where a card names no other · "
        "thin lines: the ratio's 95% interval, the time's interquartile range",
        cards=tuple(
            Card(
                clean(f"{number}  {labels.label(timeline.names)}, {timeline.names['mode']}", 44),
                clean(note(timeline.names, usual)),
                run_charts.style(timeline.names),
                timeline.points,
                timeline.ratio_shifts,
                timeline.time_shifts,
            )
            for number, timeline in enumerate(detailed, 1)
        ),
        footnotes=(clean(str(history.machine), 140),),
    )


# --- files ---


def machine_folder(machine: Machine) -> Path:
    """The folder of a machine's pictures, under the results."""
    return Path(CHARTS_FOLDER) / slug(str(machine))


def draw(results: Path, wanted: Iterable[Chart]) -> list[Path]:
    """Draws the pictures whose files do not hold their data yet; returns the files written."""
    import matplotlib

    written = []
    for chart in wanted:
        file, mark = results / f"{chart.stem}{SUFFIX}", _mark(chart)
        if _mark_in(file) != mark:
            with matplotlib.rc_context(run_charts.SETTINGS):
                _save(chart.figure(), file, mark)
            written.append(file)
    return written


def remove_old(results: Path, machines: Iterable[Machine], wanted: Iterable[Chart]) -> list[Path]:
    """Removes the machines' pictures that are not wanted any more, of those that `draw` has written."""
    kept = {results / f"{chart.stem}{SUFFIX}" for chart in wanted}
    found = (file for machine in machines for file in sorted((results / machine_folder(machine)).glob("*.*")))
    old = [file for file in found if file not in kept and file.suffix in _OLD_SUFFIXES and _mark_in(file)]
    for file in old:
        file.unlink()
    return old


def _mark(chart: Chart) -> str:
    content = repr((_DRAWING, chart, run_charts.SETTINGS, _DPI)).encode()
    return _MARK + hashlib.sha256(content).hexdigest()


def _mark_in(file: Path) -> str | None:
    """The mark in a picture's file; it stands at the beginning."""
    try:
        with open_regular(file) as opened:
            found = re.search(rb"%s[0-9a-f]{64}" % _MARK.encode(), opened.read(4096))
    except (RecordError, OSError):
        return None
    return found[0].decode() if found else None


def _save(figure, file: Path, mark: str) -> None:
    """Writes the figure, with the mark in its file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, file, dpi=_DPI, Description=mark)
