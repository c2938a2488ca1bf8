"""Study of the sweep `fused`: what does `FusedRNN` gain over Keras' loop, under XLA too, and over rivals?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median

from bench.cases.case import id_parts
from bench.cases.subjects import IN_PLAIN_KERAS
from bench.records.schema import Value
from bench.records.text import counted
from bench.report import formatting, labels, quantities, select, table
from bench.report.charts import column_chart, dot_chart, drawing
from bench.report.charts.column_chart import Column
from bench.report.charts.dot_chart import Dot
from bench.report.charts.drawing import GREY, Style
from bench.report.labels import Record
from bench.report.markdown import NOTHING
from bench.report.studies.study import Chart, Records, Study
from bench.report.table import SHAPE_HEADER, Cell, Table

SWEEP = "fused"


def speed_ups(records: Records) -> list[Table]:
    """The time of each case of the fused layer, and how many times faster than each baseline it is."""
    compared = select.sorted_by(_fused(records), "mode_order")
    if not compared:
        return []
    counted = any(record["roofline_fraction"] is not None for record in compared)

    def cells(record: Record) -> dict[str, Cell]:
        peak = {"of the peak": table.RATES["of the peak"](record)} if counted else {}
        return {"time": table.time(record), labels.faster_than(record): _speed_up(record), **peak}

    columns = ("time", *_kinds(records), *(["of the peak"] if counted else []))
    names = {"subject": labels.label, "mode": _mode, SHAPE_HEADER: labels.shape_in_numbers}
    return [table.crossed("", compared, names, cells, columns)]


def under_xla(records: Records) -> list[Table]:
    """How many times faster the fused layer is than Keras' loop where XLA compiles both."""
    both = [record for record in _of(records, "layer", "fused") if _is_apart(record)]
    if not both:
        return []
    compared = select.sorted_by(both, "mode_order")
    caption = f"Both compiled by XLA: time of Keras' loop / that of FusedRNN, by {SHAPE_HEADER}."
    shapes = drawing.distinct(map(labels.shape_in_numbers, both))
    names = {"subject": labels.label, "mode": _mode}
    return [
        table.crossed(
            caption, compared, names, lambda each: {labels.shape_in_numbers(each): _speed_up(each)}, shapes
        )
    ]


def plain_keras(records: Records) -> list[Table]:
    """How many times faster each cell in plain Keras is than each of its baselines: a table a shape."""
    return [_gains_of_cells(of_shape) for of_shape in select.grouped(_in_plain_keras(records), labels.shape)]


def _gains_of_cells(records: Records) -> Table:
    """A row a cell: its engine, and its gains in each mode; the last row is their median."""
    rows = list(records)
    caption = f"Of the same cell; {SHAPE_HEADER}: {labels.shape_in_numbers(rows[0])}."
    columns = drawing.distinct(map(_mode_and_gain, rows))
    made = table.crossed(caption, rows, {"cell": labels.family}, _engine_and_gain, ["engine", *columns])
    of_cells = [[row[number].value for row in made.rows] for number in range(2, len(made.header))]
    return replace(made, rows=[*made.rows, [Cell("median"), Cell(NOTHING), *map(_median, of_cells)]])


def _engine_and_gain(record: Record) -> dict[str, Cell]:
    return {"engine": Cell(_engine(record)), _mode_and_gain(record): _speed_up(record)}


def _mode_and_gain(record: Record) -> str:
    return f"{record['mode']}, {labels.faster_than(record)}"


def _engine(record: Record) -> str:
    """Names the engine of `FusedRNN` that ran the record's program."""
    if record["kernel"] in (None, "native"):
        return record["kernel"] or NOTHING
    return "XLA" if record["xla"] else "Keras' loop"


def _median(values: Sequence[Value], write: Callable[[float], str] = formatting.ratio) -> Cell:
    known = [float(str(value)) for value in values if value is not None]
    return Cell(write(median(known)), median(known)) if known else Cell(NOTHING)


def costs(records: Records) -> list[Table]:
    """Time to start and memory to train, of the fused layer and of Keras' loops."""
    trained = [record for record in _of(records, "mode", "train") if not _is_apart(record)]
    if not trained:
        return []
    caption = "Training: the time to trace and compile, and the peak memory, each in a process of its own."
    return [_costs(caption, trained, {"cell": labels.family, SHAPE_HEADER: labels.shape_in_numbers})]


def plain_keras_costs(records: Records) -> list[Table]:
    """The same of the cells in plain Keras, a table a shape: their medians, and the cell that gains least."""
    trained = [row for row in records if row["cell"] in IN_PLAIN_KERAS and row["mode"] == "train"]
    return [_costs_of_cells(of_shape) for of_shape in select.grouped(trained, labels.shape)]


def _costs(caption: str, records: Records, names: Mapping[str, Callable[[Record], str]]) -> Table:
    columns = [f"{what}, {layer}" for what in _WRITTEN for layer in _LAYERS]
    return table.crossed(caption, records, names, _start_and_memory, columns)


def _costs_of_cells(records: Records) -> Table:
    rows = list(records)
    of_cells = _costs("", rows, {"cell": labels.family})
    cells, *columns = zip(*of_cells.rows, strict=True)
    by_column = dict(zip(of_cells.header[1:], columns, strict=True))
    caption = (
        f"Training, medians of {counted(len(cells), 'cell')}: the time to trace and compile, and the peak "
        f"memory, each in a process of its own; {SHAPE_HEADER}: {labels.shape_in_numbers(rows[0])}."
    )
    header = ("", *_LAYERS, "FusedRNN / Keras' loop", "at the most")
    return Table(caption, header, [_cost_of_cells(what, cells, by_column) for what in _WRITTEN])


def _cost_of_cells(what: str, cells: Sequence[Cell], by_column: Mapping[str, Sequence[Cell]]) -> list[Cell]:
    """A row: the median of each layer, that of the ratios of two, and the largest ratio with its cell."""
    by_layer = [[cell.value for cell in by_column[f"{what}, {layer}"]] for layer in _LAYERS]
    medians = [_median(values, _WRITTEN[what]) for values in by_layer]
    ratios = {
        cell.text: float(str(own)) / float(str(loop))
        for cell, own, loop in zip(cells, *by_layer[:2], strict=True)
        if own is not None and loop
    }
    most = max(ratios, key=ratios.__getitem__, default=None)
    worst = (
        Cell(NOTHING) if most is None else Cell(f"{formatting.ratio(ratios[most])} ({most})", ratios[most])
    )
    return [Cell(what), *medians, _median(list(ratios.values())), worst]


def xla_costs(records: Records) -> list[Table]:
    """Time of training Keras' loop under XLA / that of the plain loop, timed in turns."""
    under_xla = [
        record
        for record in _of(records, "jit_compile", True)
        if record["layer"] != "fused" and not labels.is_baseline_under_xla(record)
    ]
    if not under_xla:
        return []
    names = {"cell": labels.family, "baseline": labels.baseline_name}
    shapes = drawing.distinct(map(labels.shape_in_numbers, under_xla))
    caption = f"Training under XLA: time / that of the plain loop, by {SHAPE_HEADER}."
    ordered = select.sorted_by(under_xla, "order")
    made = table.crossed(
        caption, ordered, names, lambda each: {labels.shape_in_numbers(each): table.ratio(each)}, shapes
    )
    return [made]


_WRITTEN: Mapping[str, Callable[[float], str]] = {"start": formatting.seconds, "memory": formatting.memory}
_LAYERS = ("FusedRNN", "Keras' loop", "Keras' loop under XLA")


def _start_and_memory(record: Record) -> dict[str, Cell]:
    layer = _LAYERS[0] if record["layer"] == "fused" else _LAYERS[1 + bool(record["jit_compile"])]
    return {
        f"start, {layer}": table.figure(record, quantities.start_of, _WRITTEN["start"]),
        f"memory, {layer}": table.exact("peak_bytes", _WRITTEN["memory"])(record),
    }


def _of(records: Records, column: str, value: Value) -> list[Record]:
    """The records that have a value in a column, those of a shape together; without the cells in plain Keras,
    which have a table and a chart of their own."""
    others = [record for record in records if record["cell"] not in IN_PLAIN_KERAS]
    frame = select.by_shape(select.framed(others))
    return frame[frame[column] == value]["record"].tolist()


def _in_plain_keras(records: Records) -> list[Record]:
    """The records of the fused layer of cells in plain Keras."""
    return [record for record in records if record["layer"] == "fused" and record["cell"] in IN_PLAIN_KERAS]


def _fused(records: Records) -> list[Record]:
    return [record for record in _of(records, "layer", "fused") if not _is_apart(record)]


def _is_apart(record: Record) -> bool:
    """True for the fused layer under XLA, which has a table of its own; not on a GPU, where it always is."""
    return record["layer"] == "fused" and bool(record["jit_compile"]) and record["device"] == "cpu"


def _kinds(records: Records) -> list[str]:
    """The baselines of the fused layer, as a ratio names them."""
    return drawing.distinct(map(labels.faster_than, _fused(records)))


def _mode(record: Record) -> str:
    return record["mode"]


def _speed_up(record: Record) -> Cell:
    ratio = quantities.compared(record)
    return table.faster(quantities.inverse(ratio)) if ratio else table.why_not(record)


# --- charts ---


_OVERVIEW = {
    "faster than Keras' loop": {"facecolor": "#0072b2", "edgecolor": "#0072b2"},
    "faster than Keras' loop under XLA": {"facecolor": "white", "edgecolor": "#0072b2"},
    "faster than PyTorch": {"facecolor": "#e69f00", "edgecolor": "#e69f00"},
    "faster than ONNX Runtime": {"facecolor": "#009e73", "edgecolor": "#009e73"},
    "faster than Keras on JAX": {"facecolor": "#cc79a7", "edgecolor": "#cc79a7"},
}


def _at_base(records: Records) -> list[Record]:
    """The records of the fused layer at the shape that most cells have."""
    frame = select.framed(_fused(records))
    return frame[frame["at"].isin([select.base_shape(frame)])]["record"].tolist()


def _overview(records: Records):
    """The gain of the fused layer, a group a cell, at the shape that most cells have."""
    swept = select.sorted_by(_at_base(records), "order")
    columns = [
        Column(labels.family(record), labels.faster_than(record), record, quantities.inverse(ratio))
        for record in swept
        if (ratio := quantities.compared(record))
    ]
    return column_chart.draw(
        "How many times faster FusedRNN runs a cell",
        f"{drawing.where(swept[0])} · timed in turns · line: 95% interval" if swept else "",
        "times faster",
        columns,
        _OVERVIEW,
        swept,
        lambda value: f"{value:g}×",
    )


def _chart(records: Records):
    """The gain of the fused layer over each of its baselines, a row a shape and subject."""
    return _gains("What the fused layer gains", _fused(records), _style)


def _plain_keras_chart(records: Records):
    """The same of the cells in plain Keras."""
    return _gains("What FusedRNN gains, cells in plain Keras", _in_plain_keras(records), _one_look)


def _gains(title: str, swept: Sequence[Record], style: Callable[[Record], Style]):
    """The gain over each baseline, a row a shape and subject; None where there is no record."""
    if not swept:
        return None
    kinds = drawing.distinct(map(labels.faster_than, swept))
    known = [
        Dot(
            labels.label(record),
            labels.shape_in_numbers(record),
            record,
            quantities.inverse(ratio),
            kinds.index(labels.faster_than(record)),
        )
        for record in select.sorted_by(swept, "mode_order")
        if (ratio := quantities.compared(record))
    ]
    return dot_chart.draw(
        title,
        f"{swept[0]['dtype']} · {swept[0]['device']} · batch · timesteps · features · units above · "
        "line: 95% interval",
        "times faster: right of 1 it gains",
        known,
        swept,
        dot_chart.Look(
            row_height=0.24,
            lane_height=0.16,
            headings=True,
            style=style,
            size=5,
        ),
        handles=[
            drawing.marker(replace(style(record), colour=GREY, line="none"), kind)
            for kind, record in {labels.faster_than(record): record for record in swept}.items()
        ],
    )


def _style(record: Record) -> Style:
    """The subject's style, by what it is compared with: hollow for XLA, the other's marker elsewhere."""
    own = drawing.style(record)
    kind = labels.faster_than(record)
    if "XLA" in kind:
        return replace(own, hollow=True)
    if "loop" in kind:
        return own
    layer = id_parts(str(record["baseline"])).layer
    return replace(own, marker=drawing.style({**record, "layer": layer}).marker)


def _one_look(record: Record) -> Style:
    """The same for every cell, hollow for XLA: there are more cells than colours, and each has a row."""
    return Style("#0072b2", "none", "D", hollow="XLA" in labels.faster_than(record))


STUDY = Study(
    without=f"The run has no case of the sweep `{SWEEP}`.",
    sweeps=(SWEEP,),
    charts=(
        Chart(
            "fused_overview",
            "How many times faster does FusedRNN run a cell?",
            _overview,
            lambda records: speed_ups(_at_base(records)),
        ),
        Chart(
            "fused",
            "What does FusedRNN gain, shape by shape?",
            _chart,
            lambda records: [*speed_ups(records), *under_xla(records), *costs(records)],
        ),
        Chart(
            "plain_keras",
            "What does FusedRNN gain with cells in plain Keras?",
            _plain_keras_chart,
            lambda records: [*plain_keras(records), *plain_keras_costs(records)],
        ),
    ),
    blocks={
        "speed_ups": speed_ups,
        "plain_keras": plain_keras,
        "plain_keras_costs": plain_keras_costs,
        "fused_costs": costs,
        "xla_costs": xla_costs,
        "under_xla": under_xla,
    },
)
