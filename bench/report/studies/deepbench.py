"""Study of the sweep `deepbench`: what rate does a layer reach at DeepBench's shapes?"""

from dataclasses import replace

from bench.records.text import counted
from bench.report import formatting, labels, select, table
from bench.report.charts import dot_chart, drawing
from bench.report.charts.dot_chart import Dot, Row
from bench.report.charts.drawing import GREY, Style
from bench.report.labels import Record
from bench.report.studies.study import Chart, Records, Study
from bench.report.table import Cell, Table
from bench.timing.intervals import Interval

SWEEP = "deepbench"


def rates(records: Records) -> list[Table]:
    """The shapes of DeepBench: time, rate, share of the peak; the estimate of those that were skipped."""
    swept = select.sorted_by(records, "mode_order", "order", "units", "at")
    remark = {"remark": _message} if any(record["message"] for record in swept) else {}
    caption = "DeepBench's shapes: GFLOP/s, and that as a share of the matmul peak of the same process."
    return table.listed(caption, swept, {"time": table.time, **table.RATES, **remark})


def measured_rates(records: Records) -> list[Table]:
    """The same of the shapes that were measured alone; the others are counted."""
    measured = [record for record in records if record["status"] == "ok"]
    others = select.counted_reasons(record for record in records if record["status"] != "ok")
    left_out = f" Left out: {', '.join(others)}, of {counted(len(records), 'case')}." if others else ""
    return [replace(made, caption=made.caption + left_out) for made in rates(measured)]


def _message(record: Record) -> Cell:
    return Cell(record["message"] or "")


def _chart(records: Records):
    """GFLOP/s and the share of the peak, a row a shape; what is too large is named."""
    if not records:
        return None
    frame = select.framed(records)
    frame = frame.assign(name=frame["record"].map(labels.series_name), row=frame["record"].map(_row))
    frame = frame.sort_values(["order", "name", "units", "batch_size", "timesteps"], kind="stable")
    frame = frame.assign(lane=frame["options"].factorize()[0])
    rated = frame[frame["gflops_per_s"].notna()]
    shown = frame[frame["row"].isin(rated["row"])]
    places = shown.groupby(["mode", "row"], sort=False)["record"].agg(list)
    swept = frame["record"].tolist()
    return dot_chart.draw(
        "DeepBench's shapes",
        f"{swept[0]['dtype']} · {swept[0]['device']} · features = units · right: share of the matmul peak",
        "GFLOP/s: further right is faster",
        [
            Dot(each.row[1], each.label, each.record, Interval(*[each.gflops_per_s] * 3), each.lane)
            for each in rated.itertuples()
        ],
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
        rows=shown["row"].unique().tolist(),
        notes=["Shapes that were skipped have no row here; the table names each with its estimate."]
        if (frame["status"] == "skipped").any()
        else [],
        at_the_end=places.map(shares).to_dict(),
        at_the_start=places.map(drawing.why_none).to_dict(),
    )


def _row(record: Record) -> Row:
    size = f"{record['units']} units · batch {record['batch_size']} · {counted(record['timesteps'], 'step')}"
    return labels.label(record), size


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


STUDY = Study(
    without=f"The run has no case of the sweep `{SWEEP}`.",
    sweeps=(SWEEP,),
    charts=(Chart("deepbench", "What rate does a layer reach at DeepBench's shapes?", _chart, rates),),
    blocks={"deepbench": measured_rates},
)
