"""Studies of the sweeps `peers` and `backends`: what do the same cells cost in other libraries, and on Keras'
other back ends?"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from bench.cases.subjects import BACKENDS
from bench.report import formatting, labels, quantities, select, table
from bench.report.charts import dot_chart, drawing
from bench.report.charts.dot_chart import Dot, Row
from bench.report.labels import Record
from bench.report.studies.study import Chart, Records, Study
from bench.report.table import SHAPE_HEADER, Cell, Table

if TYPE_CHECKING:
    import pandas as pd

SWEEP, BACKENDS_SWEEP = "peers", "backends"


def ratios(records: Records) -> list[Table]:
    """The same cells in other libraries, compared with Keras' built-in layers."""
    caption = "Time of a call / that of Keras' built-in layer of the same weights, timed in turns."
    return table.listed(caption, select.sorted_by(records), table.PAIR)


def _chart(records: Records):
    """A row a peer, under each shape."""
    swept = select.sorted_by(records, "at", "order")
    return _draw(
        "The same cells elsewhere: time relative to Keras' built-in layer",
        "batch · timesteps · features · units",
        "time / Keras' time: left of 1 is faster",
        {id(record): (labels.shape_in_numbers(record), labels.series_name(record)) for record in swept},
        swept,
        row_height=0.19,
    )


def _draw(
    title: str, above: str, axis: str, rows: Mapping[int, Row], swept: Sequence[Record], row_height: float
):
    """The ratio of each record, or why it has none, in its row; `above` says what a group's heading is."""
    if not swept:
        return None
    known = [
        Dot(name, group, record, ratio)
        for record in swept
        for group, name in [rows[id(record)]]
        if (ratio := quantities.compared(record))
    ]
    return dot_chart.draw(
        title,
        f"{swept[0]['dtype']} · {swept[0]['device']} · above: {above} · same weights, timed in turns · "
        "line: 95% interval",
        axis,
        known,
        swept,
        dot_chart.Look(row_height, lane_height=0.09, headings=True, size=5, label_size=8.5),
        rows=drawing.distinct(rows.values()),
        at_the_start={(record["mode"], rows[id(record)]): drawing.why_none([record]) for record in swept},
    )


STUDY = Study(
    without=f"The run has no case of the sweep `{SWEEP}`.",
    sweeps=(SWEEP,),
    charts=(Chart("peers", "What do the same cells cost elsewhere?", _chart, ratios),),
    blocks={"peers": ratios},
)


# --- the back ends of Keras ---

_PLAIN, _XLA, _FUSED = "TensorFlow", "TensorFlow, XLA", "TensorFlow, FusedRNN"
_ELSEWHERE = {layer: backend.label for layer, backend in BACKENDS.items()}
_WAYS = (_PLAIN, _XLA, _FUSED, *_ELSEWHERE.values())


def backend_times(records: Records) -> list[Table]:
    """The time of a call of each cell, a column a back end."""
    return _crossed(records, "Time of a call.", table.time)


def backend_ratios(records: Records) -> list[Table]:
    """The same as a ratio to Keras' loop on TensorFlow, plain."""
    return _crossed(
        records,
        "Time of a call / that of the same cell in Keras' loop on TensorFlow, timed in turns.",
        table.ratio,
    )


def backend_starts(records: Records) -> list[Table]:
    """The time to trace and compile each cell, a column a back end."""
    caption = "Time to trace and compile, the first call included."
    return _crossed(
        records, caption, lambda record: table.figure(record, quantities.start_of, formatting.seconds)
    )


def _crossed(records: Records, caption: str, cell: Callable[[Record], Cell]) -> list[Table]:
    swept = _by_way(records).sort_values(["mode_order", "cell", "at"], kind="stable")
    if swept.empty:
        return []
    names = {
        "cell": labels.family,
        "mode": lambda record: record["mode"],
        SHAPE_HEADER: labels.shape_in_numbers,
    }
    columns = [_WAYS[number] for number in sorted(swept["way"].unique())]
    return [table.crossed(caption, swept["record"], names, lambda each: {way(each): cell(each)}, columns)]


def _by_way(records: Records) -> "pd.DataFrame":
    """The records as a frame with `cell`, which sorts by the cell alone, and `way`, the number of the way."""
    frame = select.framed(records)
    ways = frame["record"].map(lambda record: _WAYS.index(way(record)))
    return frame.assign(cell=frame["order"].map(lambda order: order[:2]), way=ways)


def way(record: Record) -> str:
    """The back end of a record, with what runs the cell there where that is not Keras' loop."""
    if record["layer"] in _ELSEWHERE:
        return _ELSEWHERE[record["layer"]]
    if record["layer"] == "fused":
        return _FUSED
    return _XLA if record["jit_compile"] else _PLAIN


def _backends_chart(records: Records):
    """A row a back end, under each cell and shape."""
    ways = _by_way(records).sort_values(["cell", "at", "way"], kind="stable")
    swept = ways.loc[ways["way"] != _WAYS.index(_PLAIN), "record"].tolist()
    return _draw(
        "The same cell on each back end: time relative to Keras' loop on TensorFlow",
        "cell, batch · timesteps · features · units",
        "time / TensorFlow's time: left of 1 is faster",
        {id(each): (f"{labels.family(each)}, {labels.shape_in_numbers(each)}", way(each)) for each in swept},
        swept,
        row_height=0.22,
    )


BACKENDS_STUDY = Study(
    without=f"The run has no case of the sweep `{BACKENDS_SWEEP}`.",
    sweeps=(BACKENDS_SWEEP,),
    charts=(
        Chart(
            "backends",
            "What does the same cell cost on each back end of Keras?",
            _backends_chart,
            lambda records: [*backend_times(records), *backend_ratios(records), *backend_starts(records)],
        ),
    ),
    blocks={"backends": backend_ratios, "backend_times": backend_times, "backend_starts": backend_starts},
)
