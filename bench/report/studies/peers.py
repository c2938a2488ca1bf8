"""Studies of the sweeps `peers` and `backends`: what do the same cells cost in other libraries, and on Keras'
other back ends?"""

from bench.cases.subjects import BACKENDS
from bench.report import formatting, labels, quantities, select, table
from bench.report.charts import dot_chart, drawing
from bench.report.charts.dot_chart import Dot
from bench.report.labels import Record
from bench.report.studies.study import Chart, Records, Study
from bench.report.table import SHAPE_HEADER, Cell, Table

SWEEP, BACKENDS_SWEEP = "peers", "backends"


def ratios(records: Records) -> list[Table]:
    """The same cells in other libraries, compared with Keras' built-in layers."""
    caption = "Time of a call / that of Keras' built-in layer of the same weights, timed in turns."
    return table.listed(caption, sorted(records, key=table.by_mode), table.PAIR)


def _chart(records: Records):
    """A row a peer, under each shape."""
    swept = sorted(records, key=lambda record: (*labels.shape(record), labels.order(record)))
    if not swept:
        return None
    rows = {id(record): (labels.shape_in_numbers(record), labels.series_name(record)) for record in swept}
    known = [
        Dot(labels.series_name(record), labels.shape_in_numbers(record), record, ratio)
        for record in swept
        if (ratio := quantities.compared(record))
    ]
    return dot_chart.draw(
        "The same cells elsewhere: time relative to Keras' built-in layer",
        f"{swept[0]['dtype']} · {swept[0]['device']} · above: batch · timesteps · features · units · same "
        "weights, timed in turns · line: 95% interval",
        "time / Keras' time: left of 1 is faster",
        known,
        swept,
        dot_chart.Look(row_height=0.19, lane_height=0.09, headings=True, size=5, label_size=8.5),
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


def _crossed(records: Records, caption: str, cell) -> list[Table]:
    swept = sorted(
        records, key=lambda record: (table.mode_order(record), _cell_order(record), labels.shape(record))
    )
    if not swept:
        return []
    names = {
        "cell": labels.family,
        "mode": lambda record: record["mode"],
        SHAPE_HEADER: labels.shape_in_numbers,
    }

    def cells(record: Record) -> dict[str, Cell]:
        return {way(record): cell(record)}

    return [table.crossed(caption, swept, names, cells, [name for name in _WAYS if name in map(way, swept)])]


def way(record: Record) -> str:
    """The back end of a record, with what runs the cell there where that is not Keras' loop."""
    if record["layer"] in _ELSEWHERE:
        return _ELSEWHERE[record["layer"]]
    if record["layer"] == "fused":
        return _FUSED
    return _XLA if record["jit_compile"] else _PLAIN


def _cell_order(record: Record) -> tuple:
    """Sorts by the cell alone."""
    known, name, *_ = labels.order(record)
    return known, name


def _backends_chart(records: Records):
    """A row a back end, under each cell and shape."""
    swept = sorted(
        (record for record in records if way(record) != _PLAIN),
        key=lambda record: (_cell_order(record), labels.shape(record), _WAYS.index(way(record))),
    )
    if not swept:
        return None
    rows = {id(record): (_group(record), way(record)) for record in swept}
    known = [
        Dot(way(record), _group(record), record, ratio)
        for record in swept
        if (ratio := quantities.compared(record))
    ]
    return dot_chart.draw(
        "The same cell on each back end: time relative to Keras' loop on TensorFlow",
        f"{swept[0]['dtype']} · {swept[0]['device']} · above: cell, batch · timesteps · features · units · "
        "same weights, timed in turns · line: 95% interval",
        "time / TensorFlow's time: left of 1 is faster",
        known,
        select.by_mode(swept),
        dot_chart.Look(row_height=0.22, lane_height=0.09, headings=True, size=5, label_size=8.5),
        rows=drawing.distinct(rows.values()),
        at_the_start={(record["mode"], rows[id(record)]): drawing.why_none([record]) for record in swept},
    )


def _group(record: Record) -> str:
    return f"{labels.family(record)}, {labels.shape_in_numbers(record)}"


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
