"""Studies of shapes: how do time, and its ratio to the baseline's, change with timesteps, batch size, units?

Times are those of the lines through the base shape. Ratios are of any line of a run, whatever its sweep, on
which one subject was compared with one baseline at three sizes or more.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from bench.records.schema import SHAPE
from bench.records.text import counted
from bench.report import formatting, labels, select, table
from bench.report.charts import drawing, grid_chart, line_chart, ratio_chart
from bench.report.charts.grid_chart import Point
from bench.report.labels import Record
from bench.report.quantities import ratio_of
from bench.report.studies.study import Chart, Records, Study
from bench.report.table import Cell, Table

if TYPE_CHECKING:
    import pandas as pd

_FEWEST = 3  # sizes on a line of ratios
_MOST_PANELS = 3  # below each other


def along(axis: str, records: Records) -> list[Table]:
    """The times of each subject along one dimension of the shape."""
    line = select.sorted_by(select.along(records, axis), "mode_order")
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

_ARRANGEMENT = ["series", "against"]  # what is compared with what, whatever the shape


def _compared(records: Records) -> "pd.DataFrame":
    """The records that have a ratio to another case than themselves, and `against`, the baseline's name."""
    frame = select.framed(records)
    frame = frame[frame["ratio"].notna() & (frame["case"] != frame["baseline"])]
    return frame.assign(against=frame["record"].map(labels.baseline_name))


def ratio_lines(axis: str, records: Records) -> "pd.DataFrame":
    """The compared records that lie on lines: of one subject and baseline, at shapes of which `axis` varies.

    Returns:
        beside the columns of `select.framed`: `rest`, the rest of the shape, that with the most lines first,
        and `line`, the number of the line; each line along the axis.
    """
    others = [name for name in SHAPE if name != axis]
    found = _compared(records)
    found = found.assign(rest=found["record"].map(lambda record: labels.short_shape(record, others)))
    found = found.drop_duplicates([*_ARRANGEMENT, *SHAPE])
    lines = found.groupby([*_ARRANGEMENT, "rest"], sort=False)
    found = found.assign(line=lines.ngroup())[lines["case"].transform("size") >= _FEWEST]
    most = -found.groupby("rest")["line"].transform("nunique")
    first = found.groupby("rest")["line"].transform("min")
    return found.assign(most=most, first=first).sort_values(["most", "first", "line", axis], kind="stable")


def _draw_ratios(axis: str, records: Records):
    """The ratios along one dimension, a panel a mode and, from above, the rest of the shape."""
    lines = ratio_lines(axis, records)
    if lines.empty:
        return None
    shown = lines["rest"].unique()[:_MOST_PANELS].tolist()
    is_shown = lines["rest"].isin(shown)
    drawn = lines[is_shown].sort_values("mode_order", kind="stable")
    others = lines.loc[~is_shown, "line"].nunique()
    figure, panels = grid_chart.draw(
        f"Time relative to the baseline, against {labels.AXES[axis]}",
        "each cell and its baseline timed in turns · below 1 is faster · line: 95% interval",
        [
            Point(each.rest, each.mode, (each.line,), each.record, each.record[axis], ratio_of(each.record))
            for each in drawn.itertuples()
        ],
        drawn["record"].tolist(),
        grid_chart.Look(
            labels.AXES[axis],
            dict.fromkeys(shown, formatting.ratio),
            drawing.variant_style(drawn["record"]),
            height=2.9 if len(shown) == 1 else 2.1,
        ),
        [f"Not drawn, but in the tables: {counted(others, 'line')} at other shapes."] if others else [],
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
    for _, lines in ratio_lines(axis, records).groupby("rest", sort=False):
        line = select.sorted_by(lines["record"], "mode_order")
        sizes = sorted(lines[axis].unique())
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
    on_lines = [ratio_lines(axis, records).index for axis in labels.AXES]
    left = _compared(records).drop(index=set().union(*on_lines))
    shapes = left.groupby(_ARRANGEMENT)["at"].transform("nunique")
    return left[shapes > 1].sort_values("mode_order", kind="stable")["record"].tolist()


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
