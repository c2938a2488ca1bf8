"""Study of the base shape: what does each cell cost, compared with the built-in layer it stands for?"""

from collections.abc import Callable, Mapping

from bench.report import formatting, labels, quantities, select, table
from bench.report.charts import bar_chart, ratio_chart
from bench.report.labels import Record
from bench.report.markdown import NOTHING
from bench.report.studies.study import Chart, Records, Study
from bench.report.table import Cell, Table


def costs(records: Records) -> list[Table]:
    """Each subject and mode at the base shape: its time and its ratio to the baseline, plain and XLA."""
    base = select.sorted_by(select.at_base(records), "mode_order")
    if not base:
        return []
    caption = (
        f"At {labels.in_words(base[0])}; ratio: time / baseline's time, with its 95% interval; time: that "
        "ratio × the baseline's time of the run."
    )
    under_xla = [record for record in base if record["jit_compile"]]
    both = "" if not under_xla else "; of the columns XLA, both under XLA"
    if not all(map(labels.is_baseline_under_xla, under_xla)):  # as `fit` runs them on a GPU
        both = "; of the columns XLA, the baseline as it is called"
    caption = f"{caption.removesuffix('.')}{both}."
    columns = ("time", "ratio", "time, XLA", "ratio, XLA")
    return [table.crossed(caption, base, _NAMES, _time_and_ratio, columns)]


_NAMES: Mapping[str, Callable[[Record], str]] = {
    "subject": labels.label,
    "mode": lambda record: record["mode"],
    "baseline": lambda record: labels.plain_baseline_name(record) if record["baseline"] else NOTHING,
}


def _time_and_ratio(record: Record) -> dict[str, Cell]:
    xla = ", XLA" if record["jit_compile"] else ""
    return {f"time{xla}": table.time(record), f"ratio{xla}": _ratio(record)}


def _ratio(record: Record) -> Cell:
    """The ratio to the baseline; nothing where there is none, as the time beside it says why."""
    ratio = quantities.compared(record)
    return table.interval(ratio) if ratio else Cell(NOTHING)


def _by_kind(cell: Callable[[Record], Cell]) -> Callable[[Records], list[Table]]:
    """Tables of a quantity of each subject at the base shape, a column a mode, plain and XLA."""

    def tables(records: Records) -> list[Table]:
        base = select.at_base(records)
        if not base:
            return []
        columns = dict.fromkeys(map(_kind, select.sorted_by(base, "mode_order")))
        names = {"subject": labels.label}
        caption = f"At {labels.in_words(base[0])}."
        return [table.crossed(caption, base, names, lambda each: {_kind(each): cell(each)}, columns)]

    return tables


def _kind(record: Record) -> str:
    return f"{record['mode']}{', XLA' if record['jit_compile'] else ''}"


def _throughput(record: Record) -> Cell:
    return table.figure(record, quantities.throughput_of, formatting.count)


def _ratios(records: Records):
    return ratio_chart.draw("Time relative to the baseline, by subject", select.at_base(records))


TIME = bar_chart.Quantity(
    "Wall time of a call", "time of a call (shorter is faster)", quantities.time_of, formatting.seconds
)
THROUGHPUT = bar_chart.Quantity(
    "Throughput", "sequences / s (longer is faster)", quantities.throughput_of, formatting.count
)

STUDY = Study(
    without="The run has no cases.",
    charts=(
        Chart(
            "ratio",
            "What does each cell cost, compared with the built-in layer it stands for?",
            _ratios,
            _by_kind(_ratio),
        ),
        Chart(
            "time",
            "How long does a call take?",
            lambda records: bar_chart.draw(TIME, records),
            _by_kind(table.time),
        ),
        Chart(
            "throughput",
            "How many sequences a second?",
            lambda records: bar_chart.draw(THROUGHPUT, records),
            _by_kind(_throughput),
        ),
    ),
    blocks={"summary": costs},
)
