"""Study of the sweep `static_dynamic`: loop or unroll, and when does compiling pay?"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bench.cases.case import CaseError, id_parts
from bench.report import formatting, labels, quantities, select, table
from bench.report.charts import drawing, grid_chart
from bench.report.charts.drawing import GREY, Style
from bench.report.charts.grid_chart import Point
from bench.report.labels import Record
from bench.report.markdown import NOTHING
from bench.report.studies.study import Chart, Records, Study
from bench.report.table import Cell, Table
from bench.timing.intervals import Interval

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


def loops(records: Iterable[Record]) -> Mapping[tuple, Record]:
    """Keras' loops, plain, by their case and by equation, mode and shape: the built-in layer, else `RNN`."""
    plain = [
        record
        for record in records
        if record["status"] == "ok" and record["layer"] in _KERAS_LOOPS and not labels.options(record)
    ]
    built_in_last = sorted(plain, key=lambda record: record["layer"] == "builtin")
    return {(record["case"],): record for record in plain} | {
        _key(record): record for record in built_in_last
    }


def loop_of(record: Record, known: Mapping[tuple, Record]) -> Record | None:
    """The loop to hold a record against: its baseline where that is one; None where none was measured."""
    return known.get((record["baseline"],)) or known.get(_key(record))


def ratio_to_loop(record: Record) -> Interval | None:
    """Time of a call / that of Keras' loop that it was timed in turns with; None where it was with none."""
    try:
        baseline = id_parts(str(record["baseline"]))
    except CaseError:
        return None
    is_loop = baseline.layer in _KERAS_LOOPS and not baseline.options
    return quantities.compared(record) if is_loop else None


def _key(record: Record) -> tuple:
    return (labels.family(record), record["mode"], record["dtype"], *labels.shape(record))


# --- tables ---


def by_timesteps(records: Records) -> list[Table]:
    """Run time, start, graph, memory and break-even against timesteps, a table each, a row a way and mode."""
    swept = list(records)
    known = loops(swept)
    figures: dict[str, Callable[[Record], Cell]] = {
        "Time of a call": table.time,
        "Time of a call / that of Keras' loop": _ratio,
        "Time to trace and compile": lambda record: table.figure(
            record, quantities.start_of, formatting.seconds
        ),
        "Operations in the graph": table.exact("graph_nodes", formatting.count),
        "Peak memory": table.exact("peak_bytes", formatting.memory),
        "Calls after which the longer start is paid back": lambda record: _break_even(record, known),
    }
    return [
        table
        for caption, figure in figures.items()
        if any(figure(record).value is not None for record in swept)
        for table in [_by_timesteps(caption, swept, figure)]
    ]


def _start(record: Record) -> Cell:
    return table.figure(record, quantities.start_of, formatting.seconds)


def pays(records: Records) -> list[Table]:
    """The last of the tables of `static_dynamic`: the break-even alone."""
    return by_timesteps(records)[-1:]


def _by_timesteps(caption: str, records: Records, figure: Callable[[Record], Cell]) -> Table:
    steps = sorted({record["timesteps"] for record in records})
    found = {(select.series(record), record["timesteps"]): record for record in records}
    ordered = sorted(
        records, key=lambda record: (record["mode"], labels.order(record), labels.options(record))
    )
    ways = {select.series(record): record for record in ordered}
    rows = [
        [
            Cell(labels.label(way)),
            Cell(labels.options_in_words(way)),
            Cell(way["mode"]),
            *(figure(point) if (point := found.get((way_key, n))) else Cell(NOTHING) for n in steps),
        ]
        for way_key, way in ways.items()
    ]
    at = labels.in_words(records[0], without=("timesteps",))
    header = ("subject", "options", "mode", *map(str, steps))
    return Table(f"{caption}, by timesteps, at {at}.", header, rows, names=3)


def _ratio(record: Record) -> Cell:
    ratio = ratio_to_loop(record)
    return table.interval(ratio) if ratio else table.why_not(record)


def _break_even(record: Record, known: Mapping[tuple, Record]) -> Cell:
    """After how many calls a way has paid for its start, against the loop."""
    loop = loop_of(record, known)
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
        for record in drawing.by_mode(swept)
        if (figure := figure_of(record)) is not None
    ]
    if not points:
        return None
    stopped = [record for record in swept if record["status"] != "ok"]
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
        notes=_stops_in_words(_first_stops(stopped)),
        handles=[drawing.marker(Style(GREY, "none", "x"), "stopped, see below")] if stopped else [],
    )
    for (row, column), axes in panels.items():
        axes.axvline(_OLD_LIMIT, color=GREY, linewidth=1, linestyle=":")
        if row in ("time of a call", _START):
            _mark_stops(axes, [r for r in _first_stops(stopped) if _column(r, cells) == column])
    return figure


def _column(record: Record, with_cell: bool) -> str:
    mode: str = record["mode"]
    return f"{labels.family(record)}, {mode}" if with_cell else drawing.MODE_NAMES.get(mode, mode)


def _first_stops(stopped: Iterable[Record]) -> list[Record]:
    """The shortest case of each way and mode that did not run."""
    first: dict[tuple, Record] = {}
    for record in sorted(stopped, key=lambda record: record["timesteps"]):
        first.setdefault(select.series(record), record)
    return list(first.values())


def _stops_in_words(stops: Iterable[Record]) -> list[str]:
    """Says where each way was stopped, and why; one line for the modes that were for the same reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for record in stops:
        message = (record["message"] or "").removeprefix(f"{record['case']}: ")
        key = f"{labels.series_name(record)}: {record['reason']}", message
        reasons.setdefault(key, []).append(f"{record['timesteps']} timesteps ({record['mode']})")
    return [
        f"× {way} at {', '.join(places)}{': ' * bool(message)}{message}"
        for (way, message), places in reasons.items()
    ]


def _mark_stops(axes, stops: Sequence[Record]) -> None:
    """Crosses at the upper edge, below each other where they stand at the same timesteps."""
    at: dict[Any, int] = {}
    for record in stops:
        below = at[record["timesteps"]] = at.get(record["timesteps"], -1) + 1
        axes.plot(
            [record["timesteps"]],
            [0.96 - 0.07 * below],
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
