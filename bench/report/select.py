"""Select: which of a run's records answer a question. Charts and tables show the same ones."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from bench.cases.case import MODES, TASK_MODES, shape_id
from bench.records.schema import SHAPE, Value
from bench.report.labels import Record, options, order, shape


def is_plain(record: Record) -> bool:
    """True where all options but XLA are at their default."""
    return set(options(record)) <= {"xla"}


def counted_reasons(records: Iterable[Record]) -> list[str]:
    """Counts the records that are not there, by reason: `2 failed (killed)`, `1 skipped (unsupported)`."""
    reasons = Counter(
        "without the figure" if record["status"] == "ok" else f"{record['status']} ({record['reason']})"
        for record in records
    )
    return [f"{count} {reason}" for reason, count in sorted(reasons.items())]


def by_shape(records: Iterable[Record]) -> list[Record]:
    """The records with those of a shape together, shapes in the order in which they come first."""
    records = list(records)
    shapes = list(dict.fromkeys(map(shape, records)))
    return sorted(records, key=lambda record: shapes.index(shape(record)))


def modes_of(records: Iterable[Record]) -> list[str]:
    """The modes of the records, forward first."""
    present = dict.fromkeys(record["mode"] for record in records)
    return sorted(present, key=[*MODES, *present].index)


def default_id(record: Record) -> str:
    """The id of the same subject at the same shape, every option at its default."""
    return f"{record['mode']}-{record['subject']}-{shape_id(record)}"


def at_base(records: Sequence[Record]) -> list[Record]:
    """The plain records at the shape that most subjects of the run share, one a case."""
    plain = [record for record in records if is_plain(record)]
    base = base_shape(plain)
    return sorted(one_a_case(record for record in plain if shape(record) == base), key=order)


def along(records: Sequence[Record], axis: str) -> list[Record]:
    """The plain records of the line through the base shape on which only `axis` varies.

    Only subjects that have two points or more on it are there.
    """
    base = at_base(records)
    if not base:
        return []
    fixed = [name for name in SHAPE if name != axis]
    line = [
        record
        for record in one_a_case(filter(is_plain, records))
        if all(record[name] == base[0][name] for name in fixed)
    ]
    points = Counter(series(record) for record in line)
    kept = [record for record in line if points[series(record)] > 1]
    return sorted(kept, key=lambda record: (order(record), record[axis]))


def series(record: Record) -> tuple[Value, ...]:
    """Names what the points of one line share: all but the shape."""
    return (record["subject"], record["mode"], *options(record))


def base_shape(plain: Sequence[Record]) -> tuple[Value, ...] | None:
    """The shape that most subjects have; None where there is no record."""
    subjects: dict[tuple[Value, ...], set[Value]] = {}
    for record in plain:
        subjects.setdefault(shape(record), set()).add(record["subject"])
    return max(subjects, key=lambda key: len(subjects[key]), default=None)


def one_a_case(records: Iterable[Record]) -> Iterator[Record]:
    """The first record of each case, or the first that is ok: sweeps may share cases."""
    first: dict[Value, Record] = {}
    for record in records:
        known = first.setdefault(record["case"], record)
        if known["status"] != "ok" and record["status"] == "ok":
            first[record["case"]] = record
    yield from first.values()


def one_ok_a_case(records: Iterable[Record]) -> list[Record]:
    """The first row of each case that is ok: sweeps with several baselines have more."""
    first: dict[Value, Record] = {}
    for record in records:
        if record["status"] == "ok":
            first.setdefault(record["case"], record)
    return list(first.values())


def by_mode(records: Iterable[Record]) -> list[Record]:
    """The records, forward first, otherwise in their order."""
    known = (*MODES, *TASK_MODES)
    return sorted(records, key=lambda record: (*known, record["mode"]).index(record["mode"]))
