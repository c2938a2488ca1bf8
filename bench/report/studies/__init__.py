"""Answer one question a file: its tables and its charts together. `STUDIES` is the one table of them.

A study with tables or charts for a sweep is a file here and an entry below; the charts that a run draws, the
headings of its page and the blocks of the READMEs follow from it. Imports `bench.report` and its charts.
"""

from collections.abc import Iterable
from dataclasses import replace

from bench.report.labels import Record
from bench.report.quantities import by_pairs
from bench.report.studies import (
    character_layer,
    cost,
    deepbench,
    fused,
    growth,
    loop_or_unroll,
    machine,
    options,
    peers,
    scaling,
    training,
)
from bench.report.studies.study import Chart, Study

# in the order of the report's page
STUDIES: tuple[Study, ...] = (
    cost.STUDY,
    options.COSTS,
    options.PRICE_LIST,
    fused.STUDY,
    loop_or_unroll.STUDY,
    character_layer.STUDY,
    peers.STUDY,
    peers.BACKENDS_STUDY,
    deepbench.STUDY,
    growth.RATIOS,
    growth.STUDY,
    scaling.STUDY,
    machine.STUDY,
    training.STUDY,
)
_NAMED = frozenset(sweep for study in STUDIES for sweep in study.sweeps)


def read_by(study: Study, records: Iterable[Record]) -> list[Record]:
    """The records that a study reads, their times as their pairs say."""
    return _chosen(study, by_pairs(records))


def _chosen(study: Study, records: Iterable[Record]) -> list[Record]:
    if study.reads_all:
        return list(records)
    if study.sweeps:
        return [record for record in records if record["sweep"] in study.sweeps]
    return [record for record in records if record["sweep"] not in _NAMED]


def _of_a_run(study: Study, chart: Chart) -> Chart:
    """The chart as one of all records of a run."""
    return replace(
        chart,
        draw=lambda records: chart.draw(read_by(study, records)),
        tables=lambda records: chart.tables(read_by(study, records)),
    )


# the charts by name; each draws from all records of a run what is for it
CHARTS: dict[str, Chart] = {
    chart.name: _of_a_run(study, chart) for study in STUDIES for chart in study.charts
}
