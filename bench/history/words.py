"""Write the history as Markdown: what changed lately on each machine, its pictures, its cases."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING
from urllib.parse import quote

from bench.history.charts import Chart, charts_of
from bench.history.labels import baseline_name, changed_versions, clean, percent
from bench.history.step_detection import FEWEST_RUNS, SMALLEST_SHIFT, Shift
from bench.history.timeline import LIBRARIES, History, Machine, Run, Skipped, Timeline
from bench.records.text import counted
from bench.report import labels
from bench.report.charts.files import SUFFIX
from bench.report.markdown import NOTHING, plain, table
from bench.report.quantities import coverage_in_words

if TYPE_CHECKING:
    import numpy as np

LATELY = 10  # runs
_MOST_LINES = 12
_SAME_SHIFT = 2  # runs between a shift of the ratio and one of the time that are one event


@dataclass(frozen=True)
class _Event:
    """A shift of a timeline, of its ratio or its time, with what it comes to in the times of both sides."""

    timeline: Timeline
    shift: Shift
    own: float
    baselines: float

    @property
    def run(self) -> Run:
        return self.timeline.runs[self.shift.at]

    @property
    def before(self) -> Run:
        return self.timeline.runs[self.shift.at - 1]


def words(
    histories: Sequence[History],
    skipped: Sequence[Skipped],
    drawn: Mapping[Machine, Sequence[Chart]] | None = None,
) -> str:
    """The whole text.

    Args:
        drawn: pictures of machines that are known already.
    """
    drawn = drawn or {}
    parts = [
        part
        for history in histories
        for part in _machine(history, drawn.get(history.machine) or charts_of(history))
    ]
    return "\n\n".join([*(parts or ["No runs yet."]), *_skipped(skipped)])


def _skipped(skipped: Sequence[Skipped]) -> Iterator[str]:
    folders = list(dict.fromkeys(skip.folder for skip in skipped))
    if folders:
        named = ", ".join(_text(folder) for folder in folders)
        yield f"Left out, wholly or in part, for `python -m bench history` cannot read it: {named}."


def _machine(history: History, charts: Sequence[Chart]) -> Iterator[str]:
    yield f"### {plain(clean(str(history.machine), 200))}"
    yield _overview(history)
    lines = list(_lately(history))
    yield "\n".join(lines[:_MOST_LINES])
    if len(lines) > _MOST_LINES:
        yield f"And {counted(len(lines) - _MOST_LINES, 'line')} more, which the pictures show."
    for chart in charts:
        yield f"![{plain(chart.title)}]({_address(f'{chart.stem.as_posix()}{SUFFIX}')})"
    if repeated := [timeline for timeline in history.timelines if len(timeline.runs) > 1]:
        title = f"{counted(len(repeated), 'case')} in several runs, by subject and mode"
        yield _folded(title, _subjects(repeated))


def _overview(history: History) -> str:
    first, last = history.runs[0], history.runs[-1]
    versions = ", ".join(
        f"{name} {_text(v)}" for name, v in zip(LIBRARIES.values(), last.versions, strict=True)
    )
    sentences = [
        f"{counted(len(history.runs), 'run')}, {_day(first)} to {_day(last)}.",
        f"The last, {_link(last)}, was with {versions}.",
        f"{counted(len(history.timelines), 'case')} compared.",
    ]
    short = sum(not timeline.is_long_enough for timeline in history.timelines)
    if short:
        which = "All" if short == len(history.timelines) else f"{short} of them"
        sentences.append(f"{which} in fewer than {FEWEST_RUNS} runs: too few to tell a level shift.")
    if said := _against_itself(history):
        sentences.append(said)
    if history.left_out:
        reasons = ", ".join(f"{count} {plain(reason)}" for reason, count in sorted(history.left_out.items()))
        sentences.append(f"Rows left out: {reasons}.")
    return " ".join(sentences)


def _against_itself(history: History) -> str:
    """Says how often the intervals of all its runs, and those of the last with such rows, held the truth that
    is known: the ratio of a layer to itself."""
    points = [
        point
        for timeline in history.timelines
        if timeline.names["case"] == timeline.names["baseline"]
        for point in timeline.points
    ]
    if not points:
        return ""
    last = max((point.run for point in points), key=history.runs.index)
    of_last = [point.ratio for point in points if point.run == last]
    return (
        f"Of layers against themselves {coverage_in_words([point.ratio for point in points])}; in "
        f"{_link(last)}, {coverage_in_words(of_last)}."
    )


def _lately(history: History) -> Iterator[str]:
    """A line for each thing that changed in the last runs, the latest first."""
    recent = {run.id: place for place, run in enumerate(history.runs[-LATELY:])}
    ratio_events = [event for event in _events(history, "ratio") if event.run.id in recent]
    of_case: dict[Timeline, list[_Event]] = {}
    for event in ratio_events:
        of_case.setdefault(event.timeline, []).append(event)
    time_events = [
        event
        for event in _events(history, "time")
        if event.run.id in recent and not _is_told(event, of_case.get(event.timeline, []))
    ]
    cases = Counter(map(_subject, history.timelines)) if ratio_events else Counter[tuple]()
    dated = [
        *_version_lines(history.runs[-LATELY - 1 :]),
        *((events[0].run, _ratio_line(events, cases)) for events in _grouped(ratio_events, _ratio_group)),
        *((events[0].run, _time_line(events, history)) for events in _grouped(time_events, _time_group)),
    ]
    since = f"In the last {counted(len(recent), 'run')}" if len(history.runs) > LATELY else "In these runs"
    if dated:
        yield f"{since}, the latest first:\n"
        dated.sort(key=lambda each: -recent[each[0].id])
        yield from (f"- {line}" for _, line in dated)
    elif any(timeline.is_long_enough for timeline in history.timelines):
        yield f"{since} no case changed its level by {SMALLEST_SHIFT:.0%} or more, no library its version."
    else:
        yield f"{since} no library changed its version."


def _events(history: History, figure: str) -> Iterator[_Event]:
    for timeline in history.timelines:
        for shift in timeline.ratio_shifts if figure == "ratio" else timeline.time_shifts:
            yield _Event(
                timeline,
                shift,
                own=_change(timeline.of("time"), shift),
                baselines=_change(timeline.of("baseline_s"), shift),
            )


def _change(figures: "np.ndarray", shift: Shift) -> float:
    """The relative change of a figure's median from the level before a shift to the one after it."""
    return float(median(figures[shift.at : shift.end]) / median(figures[shift.start : shift.at])) - 1


def _is_told(event: _Event, ratio_events: Iterable[_Event]) -> bool:
    """Says whether a shift of the time is one of the same case's ratio too."""
    return any(
        abs(other.shift.at - event.shift.at) <= _SAME_SHIFT
        and (other.shift.change > 0) == (event.shift.change > 0)
        for other in ratio_events
    )


def _grouped(events: Iterable[_Event], key) -> list[list[_Event]]:
    groups: dict[tuple, list[_Event]] = {}
    for event in events:
        groups.setdefault(key(event), []).append(event)
    return sorted(groups.values(), key=lambda group: -max(abs(event.shift.change) for event in group))


def _ratio_group(event: _Event) -> tuple:
    names = event.timeline.names
    return event.run.id, labels.label(names), names["mode"], baseline_name(names), event.shift.change > 0


def _time_group(event: _Event) -> tuple:
    return event.run.id, event.shift.change > 0


def _version_lines(runs: Sequence[Run]) -> Iterator[tuple[Run, str]]:
    for before, after in pairwise(runs):
        if before.versions != after.versions:
            yield after, f"{_text(changed_versions(before, after))} from {_link(after)}, {_day(after)}, on."


def _ratio_line(events: Sequence[_Event], cases: Mapping[tuple, int]) -> str:
    names = events[0].timeline.names
    of_all = counted(cases[_subject(events[0].timeline)], "case")
    own, baselines = median(event.own for event in events), median(event.baselines for event in events)
    return (
        f"{_verdict(events, own, baselines)}: {_text(labels.label(names))}, {_text(names['mode'])}, "
        f"in {len(events)} of {of_all}: ratio to {_text(baseline_name(names))} "
        f"{_changes(events)}; its own time {percent(own)}, its baseline's {percent(baselines)}; "
        f"{_since(events[0])}."
    )


def _subject(timeline: Timeline) -> tuple:
    return labels.label(timeline.names), timeline.names["mode"], baseline_name(timeline.names)


def _verdict(events: Sequence[_Event], own: float, baselines: float) -> str:
    """Slower or faster; said to be the baseline's doing where its own time did not change that way."""
    slower = events[0].shift.change > 0
    if (own if slower else -own) < SMALLEST_SHIFT <= (-baselines if slower else baselines):
        return (
            "not slower, its baseline is **faster**" if slower else "not faster, its baseline is **slower**"
        )
    return "**slower**" if slower else "**faster**"


def _time_line(events: Sequence[_Event], history: History) -> str:
    subjects = Counter(labels.label(event.timeline.names) for event in events)
    named = ", ".join(f"{_text(name)} {count}" for name, count in subjects.most_common(6))
    more = f" and {len(subjects) - 6} more" if len(subjects) > 6 else ""
    way = "longer" if events[0].shift.change > 0 else "shorter"
    return (
        f"wall times **{way}** in {len(events)} of {counted(len(history.timelines), 'case')}, "
        f"{_changes(events)}: {named}{more}; {_since(events[0])}."
    )


def _changes(events: Sequence[_Event]) -> str:
    changes = sorted(event.shift.change for event in events)
    middle, low, high = (percent(change) for change in (median(changes), changes[0], changes[-1]))
    return middle if low == high else f"{middle} ({low} to {high})"


def _since(event: _Event) -> str:
    """The run from which on, and what else was another in it."""
    before, after = event.before, event.run
    parts = [f"from {_link(after)}, {_day(after)}, on"]
    if before.versions != after.versions:
        parts.append(f"with {_text(changed_versions(before, after))}")
    if before.commit and after.commit:
        same = before.commit == after.commit
        parts.append(
            "same commit" if same else f"commits {_text(before.commit, 20)} to {_text(after.commit, 20)}"
        )
    return ", ".join(parts)


def _folded(title: str, text: str) -> str:
    """A text that a reader unfolds."""
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def _subjects(timelines: Iterable[Timeline]) -> str:
    """A table of the cases, a row a subject and mode."""
    groups: dict[tuple[str, str], list[Timeline]] = {}
    for timeline in sorted(timelines, key=lambda each: labels.order(each.names)):
        groups.setdefault((labels.label(timeline.names), str(timeline.names["mode"])), []).append(timeline)
    header = ("subject", "mode", "cases", "runs of a case", "scatter from run to run", "changes of level")
    rows = [[_text(label), _text(mode), *_group(members)] for (label, mode), members in groups.items()]
    return table(header, rows, right=2)


def _group(timelines: Sequence[Timeline]) -> Iterator[str]:
    """The cells of a row: cases, runs, the median scatter of their ratios, and their changes of level."""
    yield f"{len(timelines):,}"
    counts = sorted({len(timeline.runs) for timeline in timelines})
    yield f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    scatters = [timeline.scatter for timeline in timelines if timeline.is_long_enough]
    yield f"±{median(scatters):.1%}" if scatters else NOTHING
    changes = [shift.change for timeline in timelines for shift in timeline.ratio_shifts]
    slower = sum(change > 0 for change in changes)
    parts = [f"{n} {word}" for n, word in ((slower, "slower"), (len(changes) - slower, "faster")) if n]
    yield ", ".join(parts) or NOTHING


def _link(run: Run) -> str:
    return f"[{_text(run.id)}]({_address(run.folder)}/)"


def _address(path: str) -> str:
    return quote(path, safe="/")


def _day(run: Run) -> str:
    return f"{run.time:%Y-%m-%d}"


def _text(value: object, longest: int = 60) -> str:
    """A text from a record, for Markdown."""
    return plain(clean(str(value), longest))
