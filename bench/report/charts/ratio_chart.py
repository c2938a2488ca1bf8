"""Charts of ratios: a row a subject, its time relative to its baseline's, filled and hollow."""

from collections.abc import Callable, Sequence

from bench.report import labels, quantities
from bench.report.charts import dot_chart, drawing
from bench.report.charts.dot_chart import Dot
from bench.report.labels import Record


def draw(title: str, records: Sequence[Record], group: Callable[[Record], str] = labels.family):
    """The ratio of each record to its baseline; None where there is none."""
    compared = [(record, ratio) for record in records if (ratio := quantities.compared(record))]
    if not compared:
        return None
    drawn = [record for record, _ in compared]
    both = len(drawing.distinct(map(drawing.is_xla, drawn))) > 1
    shapes = len(drawing.distinct(map(labels.shape, records))) > 1
    known = [
        Dot(_row(record, shapes), group(record), record, ratio, int(both and drawing.is_xla(record)))
        for record, ratio in compared
    ]
    return dot_chart.draw(
        title,
        f"{'' if shapes else drawing.where(drawn[0]) + ' · '}line: 95% interval",
        "time / baseline's time: left of 1 is faster",
        known,
        records,
        dot_chart.Look(row_height=0.5),
    )


def _row(record: Record, with_shape: bool) -> str:
    """The name of a row that compares; a built-in is compared with itself, which shows the noise."""
    options = [labels.option_name(word) for word in labels.options(record) if word != "xla"]
    shape = [labels.short_shape(record)] if with_shape else []
    return f"{', '.join((labels.label(record), *options, *shape))}\nvs {labels.plain_baseline_name(record)}"
