"""Compare two runs: how the ratio of each case differs between them, and what they ran on.

Only ratios are compared, each of a case and its baseline that were timed in turns; times of two runs are not,
as the machine may have been slower for one of them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.cases.case import MODES
from bench.records.environment import flat
from bench.records.run_folder import StoredRun
from bench.records.text import counted
from bench.report import labels, quantities, table
from bench.report.labels import Record
from bench.report.markdown import NOTHING
from bench.report.page.sentences import is_with_itself
from bench.report.table import Cell, Table
from bench.timing.intervals import Interval

Key = tuple[Any, ...]
_FACTS = ("machine", "device", "backend", "tensorflow", "keras", "commit")  # of a record
_FAR = 0.05  # from which a change that is not by chance counts as one
_HARDWARE = ("machine", "device")


@dataclass(frozen=True)
class Moved:
    """A case of both runs, and its second ratio / its first."""

    before: Record
    after: Record
    change: Interval

    @property
    def has_moved(self) -> bool:
        """True where the interval of the change does not hold 1."""
        return self.change.low > 1 or self.change.high < 1


@dataclass(frozen=True)
class TwoRuns:
    """What the page shows of two runs.

    Attributes:
        moved, others: the cases whose ratio has changed, by how much, and those of which that is not known.
        environment: what they ran on, beside each other: first what differs.
    """

    titles: tuple[str, str]
    sentences: list[str]
    moved: list[Table]
    others: list[Table]
    environment: Table

    @property
    def differing(self) -> int:
        """How many rows of the environment, which come first, differ."""
        return sum(first.text != second.text for _, first, second in self.environment.rows)


def two_runs(first: StoredRun, second: StoredRun) -> TwoRuns:
    """Compares two runs, case by case."""
    titles = first.folder.resolve().name, second.folder.resolve().name
    both = list(_common(first.records, second.records))
    moved = sorted(
        (case for case in both if case.has_moved),
        key=lambda case: max(case.change.value, 1 / case.change.value),
    )[::-1]
    others = [case for case in both if not case.has_moved]
    return TwoRuns(
        titles,
        list(_sentences(first.records, second.records, both, len(moved))),
        _as_table("What moved, the most first.", moved),
        _as_table("The others: the interval of the change holds 1.", others),
        _environment(first, second),
    )


def agreement(before: Sequence[Record], after: Sequence[Record]) -> list[Table]:
    """How many cases of two runs agree: the interval of the change of their ratio holds 1.

    No table where they have no case in common.
    """
    both = list(_common(before, after))
    if not both:
        return []
    header = ("", "cases", "agree", "beyond chance", "differ by more than 5%", "median width")
    groups = {mode: [case for case in both if case.after["mode"] == mode] for mode in MODES}
    rows = [_agreement(name, cases) for name, cases in {**groups, "all": both}.items() if cases]
    caption = " ".join(
        f"{name} run: {runs[0]['machine']}{_workers_in_words(runs)}."
        for name, runs in (("First", before), ("Second", after))
    )
    return [Table(caption, header, rows)]


def _workers_in_words(records: Sequence[Record]) -> str:
    names = {str(record["worker"]) for record in records if record["worker"] is not None}
    return f" a worker, {counted(len(names), 'worker')}" if names else ", one process"


def _agreement(name: str, cases: Sequence[Moved]) -> list[Cell]:
    moved = [case for case in cases if case.has_moved]
    chance = 0.05 * len(cases)
    far = [case for case in moved if max(case.change.value, 1 / case.change.value) > 1 + _FAR]
    width = median(math.sqrt(case.change.high / case.change.low) - 1 for case in cases)
    return [
        Cell(name),
        Cell(str(len(cases))),
        Cell(f"{len(cases) - len(moved)} ({1 - len(moved) / len(cases):.0%})"),
        Cell(f"{len(moved)} do not, {chance:.0f} expected"),
        Cell(str(len(far))),
        Cell(f"±{width:.1%}"),
    ]


def _common(before: Sequence[Record], after: Sequence[Record]) -> Iterator[Moved]:
    """The cases that both runs compare with the same baseline, and that is another than themselves."""
    known = _compared(before)
    for key, record in _compared(after).items():
        if key in known:
            change = _quotient(quantities.ratio_of(record), quantities.ratio_of(known[key]))
            yield Moved(known[key], record, change)


def _compared(records: Sequence[Record]) -> Mapping[Key, Record]:
    """The records that have a ratio to another case, by case and baseline; of several sweeps the first."""
    found: dict[Key, Record] = {}
    for record in records:
        if record["ratio"] is not None and not is_with_itself(record):
            found.setdefault((record["case"], record["baseline"]), record)
    return found


def _sentences(
    before: Sequence[Record], after: Sequence[Record], both: Sequence[Moved], moved: int
) -> Iterator[str]:
    other = [name for name in _HARDWARE if _fact(before, name) != _fact(after, name)]
    if other:
        yield f"The runs differ in {' and '.join(other)}: what moved may be the hardware's doing."
    yield (
        f"{counted(len(both), 'case')} {'has' if len(both) == 1 else 'have'} a ratio to the same baseline in "
        f"both runs; of {moved} the interval of the change does not hold 1."
    )
    if both:
        yield (
            f"About {max(1, round(0.05 * len(both)))} would by chance alone, and more, as two processes of "
            "one program may differ by a few percent: python -m bench gate --measure decides, by several "
            "processes."
        )
    alone = [
        len(_compared(one).keys() - _compared(two).keys()) for one, two in ((before, after), (after, before))
    ]
    if any(alone):
        yield f"Not compared: {alone[0]} that the first run alone has, {alone[1]} that the second alone has."


def _as_table(caption: str, cases: Sequence[Moved]) -> list[Table]:
    """A row a case: its change, its two ratios, its baseline."""
    if not cases:
        return []
    header = ("case", "second / first", "first", "second", "compared with")
    rows = [
        [
            Cell(str(case.after["case"])),
            table.interval(case.change),
            Cell(table.ratio_text(quantities.ratio_of(case.before))),
            Cell(table.ratio_text(quantities.ratio_of(case.after))),
            Cell(labels.baseline_name(case.after)),
        ]
        for case in cases
    ]
    return [Table(caption, header, rows)]


def _environment(first: StoredRun, second: StoredRun) -> Table:
    facts = [_facts(run) for run in (first, second)]
    names = list(dict.fromkeys(name for known in facts for name in known))
    rows = [[name, *(known.get(name, NOTHING) for known in facts)] for name in names]
    rows.sort(key=lambda row: row[1] == row[2])
    differing = sum(row[1] != row[2] for row in rows)
    caption = f"What they ran on: the {differing} facts that differ."
    return Table(caption, ("", "first", "second"), [list(map(Cell, row)) for row in rows], names=3)


def _facts(run: StoredRun) -> dict[str, str]:
    known = {name: str(fact) for name in _FACTS if (fact := _fact(run.records, name)) is not None}
    return {**known, **{name: str(value) for name, value in flat(run.environment)}}


def _fact(records: Sequence[Record], name: str) -> Any:
    return records[0][name] if records else None


def _quotient(above: Interval, below: Interval) -> Interval:
    """The quotient of two independent ratios; their intervals' relative widths add in quadrature."""
    value = above.value / below.value
    down = math.hypot(math.log(above.value / above.low), math.log(below.high / below.value))
    up = math.hypot(math.log(above.high / above.value), math.log(below.value / below.low))
    return Interval(value, value * math.exp(-down), value * math.exp(up))
