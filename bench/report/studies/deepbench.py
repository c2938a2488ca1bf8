"""Study of the sweep `deepbench`: what rate does a layer reach at DeepBench's shapes?"""

from dataclasses import replace

from bench.report import formatting, labels, quantities, select, table
from bench.report.charts import dot_chart, drawing
from bench.report.charts.dot_chart import Dot, Row
from bench.report.charts.drawing import GREY, Style
from bench.report.labels import Record
from bench.report.studies.study import Chart, Records, Study
from bench.report.table import Cell, Table

SWEEP = "deepbench"


def rates(records: Records) -> list[Table]:
    """The shapes of DeepBench: time, rate, share of the peak; the estimate of those that were skipped."""
    swept = sorted(
        records,
        key=lambda each: (table.mode_order(each), labels.order(each), each["units"], *labels.shape(each)),
    )
    remark = {"remark": _message} if any(record["message"] for record in swept) else {}
    caption = "DeepBench's shapes: GFLOP/s, and that as a share of the matmul peak of the same process."
    return table.listed(caption, swept, {"time": table.time, **table.RATES, **remark})


def measured_rates(records: Records) -> list[Table]:
    """The same of the shapes that were measured alone; the others are counted."""
    measured = [record for record in records if record["status"] == "ok"]
    others = select.counted_reasons(record for record in records if record["status"] != "ok")
    left_out = f" Left out: {', '.join(others)}, of {len(records)} cases." if others else ""
    return [replace(made, caption=made.caption + left_out) for made in rates(measured)]


def _message(record: Record) -> Cell:
    return Cell(record["message"] or "")


def _chart(records: Records):
    """GFLOP/s and the share of the peak, a row a shape; what is too large is named."""
    swept = sorted(records, key=_by_size)
    if not swept:
        return None
    options = drawing.distinct(map(labels.options, swept))
    known = [
        Dot(_size(record), labels.label(record), record, rate, options.index(labels.options(record)))
        for record in swept
        if (rate := quantities.exactly(record, "gflops_per_s")) is not None
    ]
    shown = {(dot.group, dot.row) for dot in known}
    rows = [row for row in drawing.distinct(map(_row, swept)) if row in shown]
    places: dict[tuple[str, Row], list[Record]] = {}
    for record in swept:
        if _row(record) in shown:
            places.setdefault((record["mode"], _row(record)), []).append(record)
    skipped = any(record["status"] == "skipped" for record in swept)
    return dot_chart.draw(
        "DeepBench's shapes",
        f"{swept[0]['dtype']} · {swept[0]['device']} · features = units · right: share of the matmul peak",
        "GFLOP/s: further right is faster",
        known,
        swept,
        dot_chart.Look(
            row_height=0.19,
            lane_height=0.12,
            headings=True,
            text=formatting.number,
            tick=lambda value: f"{value:g}",
            centre=None,
            size=4.5,
            label_size=8.5,
            style=_by_options,
        ),
        handles=[
            drawing.marker(replace(_by_options(record), colour=GREY, line="none"), name)
            for name, record in {_options_name(record): record for record in swept}.items()
        ],
        rows=rows,
        notes=["Shapes that were skipped have no row here; the table names each with its estimate."]
        if skipped
        else [],
        at_the_end={place: shares(of_place) for place, of_place in places.items()},
        at_the_start={place: drawing.why_none(of_place) for place, of_place in places.items()},
    )


def _row(record: Record) -> Row:
    return labels.label(record), _size(record)


def _size(record: Record) -> str:
    return f"{record['units']} units · batch {record['batch_size']} · {record['timesteps']} steps"


def _by_options(record: Record) -> Style:
    """The subject's style, with a marker of its own where it has options."""
    own = drawing.style(record)
    return replace(own, marker=">") if labels.options(record) else own


def _options_name(record: Record) -> str:
    return ", ".join(map(labels.option_name, labels.options(record))) or "input product included"


def shares(records: Records) -> str:
    """The shares of the peak, those of the records in their order."""
    known = [share for record in records if (share := record["roofline_fraction"]) is not None]
    return " · ".join(f"{share:.0%}" for share in known)


def _by_size(record: Record) -> tuple:
    sizes = (record["units"], record["batch_size"], record["timesteps"])
    return (labels.order(record), labels.series_name(record), *sizes)


STUDY = Study(
    without=f"The run has no case of the sweep `{SWEEP}`.",
    sweeps=(SWEEP,),
    charts=(Chart("deepbench", "What rate does a layer reach at DeepBench's shapes?", _chart, rates),),
    blocks={"deepbench": measured_rates},
)
