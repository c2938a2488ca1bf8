"""Study of the training tasks: what comes out of training with a cell, and at what speed?"""

from collections.abc import Callable, Mapping

from bench.report import formatting, labels, table
from bench.report.labels import Record
from bench.report.studies.study import Records, Study
from bench.report.table import Cell, Table

SWEEPS = ("partial_sum", "char_model", "generate")
_FIGURES: Mapping[str, Callable[[Record], Cell]] = {
    "an epoch": table.exact("epoch_s", formatting.seconds),
    "characters/s": table.exact("characters_per_s", formatting.count),
    "loss": table.exact("loss", formatting.number),
}


def tasks(records: Records) -> list[Table]:
    """Each training task: its time, its rate, its loss."""
    rows = [
        [
            Cell(record["sweep"]),
            Cell(labels.label(record)),
            Cell(_how(record)),
            *(figure(record) for figure in _FIGURES.values()),
        ]
        for record in records
    ]
    return [Table("", ("task", "subject", "how", *_FIGURES), rows, names=3)] if rows else []


def _how(record: Record) -> str:
    if record["sweep"] == "partial_sum":
        return f"activation {record['activation']}"
    calls = [f"{record['timesteps']} a call"] if record["mode"] == "generate" else []
    return ", ".join((*calls, "stateful" if record["stateful"] else "stateless"))


STUDY = Study(without="The run has no tasks.", sweeps=SWEEPS, blocks={"tasks": tasks})
