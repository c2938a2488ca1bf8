"""`Study`: a question about recurrent cells, and the tables and charts that answer it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.report.labels import Record
from bench.report.table import Table

Records = Sequence[Record]
Tables = Callable[[Records], list[Table]]


@dataclass(frozen=True)
class Chart:
    """A chart of a study.

    Attributes:
        name: of its files, `charts/NAME.png`.
        question: what it answers: its heading on the report's page.
        draw: records -> matplotlib's figure, or None where they have nothing for it.
        tables: records -> the same figures as tables; none where they have nothing for it.
    """

    name: str
    question: str
    draw: Callable[[Records], Any]
    tables: Tables


@dataclass(frozen=True)
class Study:
    """A question, and what answers it.

    Attributes:
        sweeps: the names of the sweeps that it reads; none: all sweeps that no study names.
        reads_all: whether it reads every sweep's records instead.
        charts: its charts.
        blocks: the tables that a README may hold of it, by the name that a marker has.
        without: what a block says where the records have nothing for it.
    """

    without: str
    sweeps: tuple[str, ...] = ()
    reads_all: bool = False
    charts: tuple[Chart, ...] = ()
    blocks: Mapping[str, Tables] = field(default_factory=dict)
