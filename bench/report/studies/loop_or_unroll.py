"""Study of the sweep `static_dynamic`: loop or unroll, and when does compiling pay?"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from bench.cases.case import CaseError, id_parts
from bench.records.text import counted
from bench.report import formatting, labels, quantities, select, table
from bench.report.charts import drawing, grid_chart, points
from bench.report.charts.drawing import GREY, Style
from bench.report.charts.grid_chart import Point
from bench.report.labels import Record
from bench.report.markdown import NOTHING
from bench.report.studies.study import Chart, Records, Study
from bench.report.table import Cell, Table
from bench.timing.intervals import Interval

if TYPE_CHECKING:
    import pandas as pd

SWEEP = "static_dynamic"
_KERAS_LOOPS = ("builtin", "rnn")  # layers
_OLD_LIMIT = 200  # timesteps beyond which the old tutorials say not to unroll


# --- after how many calls a longer start is paid back ---


def calls_to_pay(extra_s: float, other_s: float, ratio: Interval) -> Interval | None:
    """After how many calls a start that takes longer is paid back.

    Args:
        extra_s: by how much longer it takes to trace and compile, seconds, above 0.
        other_s: the time of a call of the other program.
        ratio: time of a call / the other's.

    Returns:
        with the interval that the ratio's makes, infinite above where that holds 1; None where a call takes
        no less time, and nothing is ever paid back.
    """
    if ratio.value >= 1:
        return None
    value, low, high = (
        extra_s / (other_s * (1 - each)) if each < 1 else math.inf
        for each in (ratio.value, ratio.low, ratio.high)
    )
    return Interval(value, low, high)


def in_words(calls: Interval) -> str:
    """`412 calls`, `1 call`: whole calls, rounded up."""
    whole = math.ceil(calls.value)
    return f"{whole:,} call{'' if whole == 1 else 's'}"


def with_loops(records: Iterable[Record]) -> "pd.DataFrame":
    """The records as a frame with `loop`, the record of Keras' plain loop that each is compared with.

    That is its baseline, where it is one; or else the built-in layer, or else `RNN`, of the same equation,
    mode, dtype and shape; None where none was measured.
    """
    frame = select.framed(records)
    plain = frame[(frame["status"] == "ok") & (frame["options"].str.len() == 0)]
    loops = plain[plain["layer"].isin(_KERAS_LOOPS)].sort_values("layer", kind="stable")
    loops = loops.assign(loop=loops["record"])
    baselines = loops.assign(baseline=loops["case"]).drop_duplicates("case")
    found = frame.merge(baselines[["baseline", "loop"]], "left", on="baseline")["loop"]
    same = frame.merge(loops.drop_duplicates(_SAME)[[*_SAME, "loop"]], "left", on=_SAME)["loop"]
    found = found.where(found.notna(), same)
    return frame.assign(loop=found.where(found.notna(), None))


_SAME = ["family", "mode", "dtype", "at"]


def ratio_to_loop(record: Record) -> Interval | None:
    """Time of a call / that of Keras' loop that it was timed in turns with; None where it was with none."""
    try:
        baseline = id_parts(str(record["baseline"]))
    except CaseError:
        return None
    is_loop = baseline.layer in _KERAS_LOOPS and not baseline.options
    return quantities.compared(record) if is_loop else None


# --- tables ---


def by_timesteps(records: Records) -> list[Table]:
    """Run time, start, graph, memory and break-even against timesteps, a table each, a row a way and mode."""
    known = with_loops(records).sort_values(["mode", "order", "options"], kind="stable")
    made = []
    for caption, figure in _FIGURES.items():
        cells = [figure(*pair) for pair in zip(known["record"], known["loop"], strict=True)]
        if any(cell.value is not None for cell in cells):
            made.append(_by_timesteps(caption, known.assign(cell=cells)))
    return made


def pays(records: Records) -> list[Table]:
    """The last of the tables of `static_dynamic`: the break-even alone."""
    return by_timesteps(records)[-1:]


def _by_timesteps(caption: str, frame: "pd.DataFrame") -> Table:
    """A row a way and mode, a column a number of timesteps; the last of several cases counts."""
    steps = sorted(frame["timesteps"].unique())
    cells = {(point.series, point.timesteps): point.cell for point in frame.itertuples()}
    rows = [
        [
            Cell(labels.label(way)),
            Cell(labels.options_in_words(way)),
            Cell(way["mode"]),
            *(cells.get((select.series(way), each), Cell(NOTHING)) for each in steps),
        ]
        for way in frame.drop_duplicates("series")["record"]
    ]
    at = labels.in_words(frame.loc[0, "record"], without=("timesteps",))
    header = ("subject", "options", "mode", *map(str, steps))
    return Table(f"{caption}, by timesteps, at {at}.", header, rows, names=3)


def _ratio(record: Record, _: Record | None) -> Cell:
    ratio = ratio_to_loop(record)
    return table.interval(ratio) if ratio else table.why_not(record)


def _break_even(record: Record, loop: Record | None) -> Cell:
    """After how many calls a way has paid for its start, against the loop."""
    if record["status"] != "ok" or loop is None:
        return table.why_not(record)
    if record["case"] == loop["case"]:
        return Cell("the loop")
    ratio, loop_s = ratio_to_loop(record), record["baseline_median_s"]
    starts = quantities.start_of(record), quantities.start_of(loop)
    if ratio is None or loop_s is None or starts[0] is None or starts[1] is None:
        return Cell(NOTHING)
    extra = starts[0].value - starts[1].value
    if extra <= 0:
        return Cell("at once" if ratio.value < 1 else "ready sooner, runs slower")
    calls = calls_to_pay(extra, loop_s, ratio)
    if calls is None:
        return Cell("never")
    low, high = (f"{math.ceil(end):,}" if math.isfinite(end) else "∞" for end in (calls.low, calls.high))
    between = "" if low == high else f" [{low}, {high}]"
    return Cell(f"{math.ceil(calls.value):,}{between}", math.ceil(calls.value))


_FIGURES: dict[str, Callable[[Record, Record | None], Cell]] = {
    "Time of a call": lambda record, _: table.time(record),
    "Time of a call / that of Keras' loop": _ratio,
    "Time to trace and compile": lambda record, _: table.figure(
        record, quantities.start_of, formatting.seconds
    ),
    "Operations in the graph": lambda record, _: table.exact("graph_nodes", formatting.count)(record),
    "Peak memory": lambda record, _: table.exact("peak_bytes", formatting.memory)(record),
    "Calls after which the longer start is paid back": _break_even,
}


# --- the chart ---


_START = "to trace and compile"


def _chart(records: Records):
    """Each way to run the loop against timesteps: small multiples, a row a quantity."""
    swept = records
    rows: dict[str, tuple[Callable[[Record], Interval | None], Callable[[float], str]]] = {
        "time of a call": (quantities.time_of, formatting.seconds),
        _START: (quantities.start_of, formatting.seconds),
        "operations in the graph": (
            lambda record: quantities.exactly(record, "graph_nodes"),
            formatting.count,
        ),
        "peak memory": (lambda record: quantities.exactly(record, "peak_bytes"), formatting.memory),
    }
    cells = len(drawing.distinct(map(labels.family, swept))) > 1
    points = [
        Point(
            row,
            _column(record, cells),
            select.series(record),
            record,
            record["timesteps"],
            figure,
        )
        for row, (figure_of, _) in rows.items()
        for record in select.sorted_by(swept, "mode_order")
        if (figure := figure_of(record)) is not None
    ]
    if not points:
        return None
    stops = _first_stops(swept)
    figure, panels = grid_chart.draw(
        "Loop or unroll: what each way takes as the sequence grows",
        f"{drawing.where(swept[0], without=('timesteps',))} · median and interquartile range · "
        f"dotted: the {_OLD_LIMIT} steps beyond which the old tutorials say not to unroll",
        points,
        swept,
        grid_chart.Look(
            "timesteps",
            {row: text for row, (_, text) in rows.items()},
            style=drawing.way_style,
            height=2.1,
        ),
        notes=_stops_in_words(stops),
        handles=[drawing.marker(Style(GREY, "none", "x"), "stopped, see below")] if stops else [],
    )
    for (row, column), axes in panels.items():
        axes.axvline(_OLD_LIMIT, color=GREY, linewidth=1, linestyle=":")
        if row in ("time of a call", _START):
            _mark_stops(axes, [stop for stop in stops if _column(stop, cells) == column])
    return figure


def _column(record: Record, with_cell: bool) -> str:
    mode: str = record["mode"]
    return f"{labels.family(record)}, {mode}" if with_cell else drawing.MODE_NAMES.get(mode, mode)


def _first_stops(records: Iterable[Record]) -> list[Record]:
    """The shortest case of each way and mode that did not run."""
    frame = select.framed(records)
    stopped = frame[frame["status"] != "ok"].sort_values("timesteps", kind="stable")
    return stopped.drop_duplicates("series")["record"].tolist()


def _stops_in_words(stops: Iterable[Record]) -> list[str]:
    """Says where each way was stopped, and why; one line for the modes that were for the same reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for record in stops:
        message = (record["message"] or "").removeprefix(f"{record['case']}: ")
        key = f"{labels.series_name(record)}: {record['reason']}", message
        reasons.setdefault(key, []).append(f"{counted(record['timesteps'], 'timestep')} ({record['mode']})")
    return [
        f"× {way} at {', '.join(places)}{': ' * bool(message)}{message}"
        for (way, message), places in reasons.items()
    ]


def _mark_stops(axes, stops: Sequence[Record]) -> None:
    """Crosses at the upper edge, below each other where they stand at the same timesteps."""
    at: dict[Any, int] = {}
    for record in stops:
        below = at[record["timesteps"]] = at.get(record["timesteps"], -1) + 1
        height = 0.96 - 0.07 * below
        points.mark(axes, record["timesteps"], height, record, axes.get_xaxis_transform())
        axes.plot(
            [record["timesteps"]],
            [height],
            "x",
            color=drawing.way_style(record).colour,
            markersize=6,
            markeredgewidth=1.8,
            transform=axes.get_xaxis_transform(),
            gid=f"stopped {record['case']}",
        )


STUDY = Study(
    without=f"The run has no case of the sweep `{SWEEP}`.",
    sweeps=(SWEEP,),
    charts=(Chart("static_dynamic", "Loop or unroll, and when does compiling pay?", _chart, by_timesteps),),
    blocks={"static_dynamic": by_timesteps, "break_even": pays},
)
