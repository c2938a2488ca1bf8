"""Studies of shapes: how do time, and its ratio to the baseline's, change with timesteps, batch size, units?

Times are those of the lines through the base shape. Ratios are of any line of a run, whatever its sweep, on
which one subject was compared with one baseline at three sizes or more.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from bench.records.schema import SHAPE
from bench.report import formatting, labels, select, table
from bench.report.charts import drawing, grid_chart, line_chart, ratio_chart
from bench.report.charts.grid_chart import Point
from bench.report.labels import Record
from bench.report.quantities import ratio_of
from bench.report.studies.study import Chart, Records, Study
from bench.report.table import Cell, Table

_FEWEST = 3  # sizes on a line of ratios
_MOST_PANELS = 3  # below each other


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


# --- ratios ---

Line = list[Record]


def _compared(records: Records) -> list[Record]:
    """The records that have a ratio to another case than themselves."""
    return [each for each in records if each["ratio"] is not None and each["case"] != each["baseline"]]


def _arrangement(record: Record) -> tuple[Any, ...]:
    """Names what is compared with what, whatever the shape."""
    return (*select.series(record), labels.baseline_name(record))


def _rest(axis: str, record: Record) -> str:
    return labels.short_shape(record, [name for name in SHAPE if name != axis])


def ratio_lines(axis: str, records: Records) -> list[Line]:
    """The records of each line: one subject and baseline, and a shape of which only `axis` varies."""
    lines: dict[tuple[Any, ...], dict[int, Record]] = {}
    for record in _compared(records):
        line = lines.setdefault((*_arrangement(record), _rest(axis, record)), {})
        line.setdefault(record[axis], record)
    return [[line[size] for size in sorted(line)] for line in lines.values() if len(line) >= _FEWEST]


def _by_rest(axis: str, records: Records) -> dict[str, list[Line]]:
    """The lines by the rest of their shape, that with the most lines first."""
    lines = ratio_lines(axis, records)
    counts = Counter(_rest(axis, line[0]) for line in lines)
    return {
        rest: [line for line in lines if _rest(axis, line[0]) == rest] for rest, _ in counts.most_common()
    }


def _draw_ratios(axis: str, records: Records):
    """The ratios along one dimension, a panel a mode and, from above, the rest of the shape."""
    lines = _by_rest(axis, records)
    if not lines:
        return None
    shown = [*lines][:_MOST_PANELS]
    drawn = select.by_mode(record for rest in shown for line in lines[rest] for record in line)
    others = sum(len(lines[rest]) for rest in lines if rest not in shown)
    figure, panels = grid_chart.draw(
        f"Time relative to the baseline, against {labels.AXES[axis]}",
        "each cell and its baseline timed in turns · below 1 is faster · line: 95% interval",
        [
            Point(_rest(axis, each), each["mode"], _arrangement(each), each, each[axis], ratio_of(each))
            for each in drawn
        ],
        drawn,
        grid_chart.Look(
            labels.AXES[axis],
            dict.fromkeys(shown, formatting.ratio),
            drawing.variant_style(drawn),
            height=2.9 if len(shown) == 1 else 2.1,
        ),
        [f"Not drawn: {others} lines at other shapes; they are in the tables."] if others else [],
    )
    for axes in panels.values():
        axes.axhline(1, color="black", linewidth=1)
    return figure


def _ratio_tables(axis: str, records: Records) -> list[Table]:
    names: dict[str, Callable[[Record], str]] = {
        "subject": labels.series_name,
        "mode": lambda record: record["mode"],
        "compared with": labels.baseline_name,
    }
    made = []
    for lines in _by_rest(axis, records).values():
        line = select.by_mode(record for line in lines for record in line)
        sizes = sorted({record[axis] for record in line})
        caption = f"Ratio against {labels.AXES[axis]}, at {labels.in_words(line[0], without=(axis,))}:"
        made.append(
            table.crossed(
                caption, line, names, lambda each: {str(each[axis]): table.ratio(each)}, map(str, sizes)
            )
        )
    return made


def _ratio_chart(axis: str) -> Chart:
    name = "batch size" if axis == "batch_size" else axis
    question = f"How does what a cell costs change with the {name}?"
    return Chart(f"ratio_{axis}", question, partial(_draw_ratios, axis), partial(_ratio_tables, axis))


def _at_shapes(records: Records) -> list[Record]:
    """The compared records of what has several shapes that lie on no line."""
    on_lines = {id(each) for axis in labels.AXES for line in ratio_lines(axis, records) for each in line}
    left = [record for record in _compared(records) if id(record) not in on_lines]
    shapes: dict[tuple[Any, ...], set[tuple[Any, ...]]] = {}
    for record in left:
        shapes.setdefault(_arrangement(record), set()).add(labels.shape(record))
    return [record for record in select.by_mode(left) if len(shapes[_arrangement(record)]) > 1]


def _draw_shapes(records: Records):
    return ratio_chart.draw("Time relative to the baseline, by shape", _at_shapes(records))


def _shape_tables(records: Records) -> list[Table]:
    return table.listed("At each shape that was given:", _at_shapes(records), table.PAIR)


STUDY = Study(
    without="The run has one shape.",
    charts=(
        Chart("ratio_shapes", "What does a cell cost at each shape?", _draw_shapes, _shape_tables),
        *map(_chart, labels.AXES),
    ),
    blocks={"scaling": _grown},
)
RATIOS = Study(
    without="The run has no line of shapes.", reads_all=True, charts=tuple(map(_ratio_chart, labels.AXES))
)
