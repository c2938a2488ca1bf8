"""Select: which of a run's records answer a question. Charts and tables show the same ones.

A selection works on the frame that `framed` makes of records; tables and charts take the records of its rows.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from bench.cases.case import MODES, TASK_MODES, shape_id
from bench.records.schema import SHAPE, Value
from bench.report import labels
from bench.report.labels import Record

if TYPE_CHECKING:
    import pandas as pd


def framed(records: Iterable[Record], *more: str) -> "pd.DataFrame":
    """The records as a frame, one a row.

    Returns:
        the columns of `_COLUMNS`, NaN where a figure is missing, and `more` columns as they are. Beside them
        `record`, the record itself, and what is said of it: `label`, `family`, `options` (the words of its
        id), `order` (of subjects), `mode_order`, `at` (its shape) and `series`.
    """
    import pandas as pd

    rows = list(records)
    columns: dict[str, pd.Series] = {
        name: pd.Series([row[name] for row in rows], dtype=kind)
        for name, kind in (dict.fromkeys(more, object) | _COLUMNS).items()
    }
    said = {name: pd.Series(list(map(say, rows)), dtype=object) for name, say in _SAID.items()}
    return pd.DataFrame(columns | said)


_COLUMNS: dict[str, type] = {
    **dict.fromkeys(("sweep", "case", "baseline", "subject", "layer", "mode", "dtype", "status"), object),
    **dict.fromkeys(SHAPE, int),
    "jit_compile": object,
    **dict.fromkeys(("median_s", "ratio", "gflops_per_s", "roofline_fraction"), float),
}
_MODES = (*MODES, *TASK_MODES)


def series(record: Record) -> tuple[Value, ...]:
    """Names what the points of one line share: all but the shape."""
    return (record["subject"], record["mode"], *labels.options(record))


_SAID: dict[str, Callable[[Record], Any]] = {
    "label": labels.label,
    "family": labels.family,
    "options": labels.options,
    "order": labels.order,
    "mode_order": lambda record: _MODES.index(record["mode"]),
    "at": labels.shape,
    "series": series,
    "record": lambda record: record,
}


def sorted_by(records: Iterable[Record], *columns: str) -> list[Record]:
    """The records, sorted by columns of `framed`; left out: by mode, subject, options and shape."""
    columns = columns or ("mode_order", "order", "options", "at")
    return framed(records).sort_values(list(columns), kind="stable")["record"].tolist()


def grouped(records: Iterable[Record], key: Callable[[Record], Any]) -> list[list[Record]]:
    """The records of the same key together, in the order in which they come."""
    import pandas as pd

    rows = pd.Series(list(records), dtype=object)
    return rows.groupby(rows.map(key), sort=False).agg(list).tolist()


def counted_reasons(records: Iterable[Record]) -> list[str]:
    """Counts the records that are not there, by reason: `2 failed (killed)`, `1 skipped (unsupported)`."""
    reasons = Counter(
        "without the figure" if record["status"] == "ok" else f"{record['status']} ({record['reason']})"
        for record in records
    )
    return [f"{count} {reason}" for reason, count in sorted(reasons.items())]


def by_shape(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The rows with those of a shape together, shapes in the order in which they come first."""
    return frame.iloc[frame["at"].factorize()[0].argsort(kind="stable")]


def modes_of(records: Iterable[Record]) -> list[str]:
    """The modes of the records, forward first."""
    return sorted({record["mode"] for record in records}, key=_MODES.index)


def default_id(record: Record) -> str:
    """The id of the same subject at the same shape, every option at its default."""
    return f"{record['mode']}-{record['subject']}-{shape_id(record)}"


def base_shape(frame: "pd.DataFrame") -> tuple[Value, ...] | None:
    """The shape that most subjects have; None where there is no row."""
    return None if frame.empty else frame.groupby("at", sort=False)["subject"].nunique().idxmax()


def one_a_case(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The first row of each case, or the first that is ok: sweeps may share cases."""
    first_ok = frame.iloc[(frame["status"] != "ok").argsort(kind="stable")]
    return first_ok.drop_duplicates("case").sort_index()


def one_ok_a_case(records: Iterable[Record]) -> list[Record]:
    """The first record of each case that is ok: sweeps with several baselines have more."""
    frame = framed(records)
    return frame[frame["status"] == "ok"].drop_duplicates("case")["record"].tolist()


def at_base(records: Iterable[Record]) -> list[Record]:
    """The plain records at the shape that most subjects of the run share, one a case."""
    plain = _plain(framed(records))
    at_base = plain[plain["at"].isin([base_shape(plain)])]
    return one_a_case(at_base).sort_values("order", kind="stable")["record"].tolist()


def along(records: Sequence[Record], axis: str) -> list[Record]:
    """The plain records of the line through the base shape on which only `axis` varies.

    Only subjects that have two points or more on it are there.
    """
    base = at_base(records)
    if not base:
        return []
    plain = one_a_case(_plain(framed(records)))
    fixed = [name for name in SHAPE if name != axis]
    line = plain[(plain[fixed] == [base[0][name] for name in fixed]).all(axis=1)]
    line = line[line.groupby("series")["case"].transform("size") > 1]
    return line.sort_values(["order", axis], kind="stable")["record"].tolist()


def _plain(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The rows whose options, but for XLA, are at their default."""
    return frame[frame["options"].map(lambda words: set(words) <= {"xla"}).astype(bool)]
