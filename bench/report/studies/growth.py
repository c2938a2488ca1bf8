"""Study of the lines through the base shape: how does time grow with timesteps, batch size and units?"""

from functools import partial

from bench.report import labels, select, table
from bench.report.charts import line_chart
from bench.report.labels import Record
from bench.report.studies.study import Chart, Records, Study
from bench.report.table import Cell, Table


def along(axis: str, records: Records) -> list[Table]:
    """The times of each subject along one dimension of the shape."""
    line = select.by_mode(select.along(records, axis))
    if not line:
        return []
    caption = f"Time against {labels.AXES[axis]}, at {labels.in_words(line[0], without=(axis,))}:"
    points = sorted({record[axis] for record in line})
    names = {"subject": labels.series_name, "mode": lambda record: record["mode"]}

    def time(record: Record) -> dict[str, Cell]:
        return {str(record[axis]): table.time(record)}

    return [table.crossed(caption, line, names, time, map(str, points))]


def _grown(records: Records) -> list[Table]:
    return [made for axis in labels.AXES for made in along(axis, records)]


def _chart(axis: str) -> Chart:
    question = f"How does time grow with the {'batch' if axis == 'batch_size' else axis}?"
    return Chart(axis, question, partial(line_chart.draw, axis), partial(along, axis))


STUDY = Study(
    without="The run has one shape.",
    charts=tuple(map(_chart, labels.AXES)),
    blocks={"scaling": _grown},
)
