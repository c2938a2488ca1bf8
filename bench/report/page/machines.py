"""The same cases on several machines, beside each other; the rows of one are never divided by another's."""

from collections.abc import Iterable, Sequence

from bench.report import labels, select, table
from bench.report.labels import Record
from bench.report.table import SHAPE_HEADER, Cell, Table


def beside_each_other(runs: Sequence[Iterable[Record]]) -> list[Table]:
    """The ratio of each case on each machine, a column a machine; the newest run of a machine counts.

    No table where all was measured on one machine, or no case on two.

    Args:
        runs: the records of each run, oldest first.
    """
    newest: dict[tuple[str, str, str], Record] = {}
    for record in (record for run in runs for record in run):
        newest[record["machine"], record["case"], str(record["baseline"])] = record
    machines = sorted({machine for machine, *_ in newest})
    shared = {key[1:] for key in newest if sum((machine, *key[1:]) in newest for machine in machines) > 1}
    if not shared:
        return []
    rows = select.sorted_by(record for key, record in newest.items() if key[1:] in shared)
    names = {
        "subject": labels.label,
        "mode": lambda record: record["mode"],
        "options": labels.options_in_words,
        SHAPE_HEADER: labels.shape_in_numbers,
        "baseline": labels.baseline_name,
    }

    def cells(record: Record) -> dict[str, Cell]:
        return {record["machine"]: table.ratio(record)}

    caption = (
        "Time of a call / the baseline's, each measured on one machine; the times of two do not compare."
    )
    return [table.crossed(caption, rows, names, cells, machines)]
