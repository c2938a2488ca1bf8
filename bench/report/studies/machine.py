"""Study of the machine, of every sweep's records.

How near is each case to the machine's limit, what does a queue hide, how much memory does a case take?
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bench.cases.subjects import IN_PLAIN_KERAS
from bench.records.text import counted
from bench.report import formatting, labels, quantities, select, table
from bench.report.charts import dot_chart, drawing, points
from bench.report.charts.dot_chart import Dot
from bench.report.labels import Record
from bench.report.studies.study import Chart, Records, Study
from bench.report.table import Table

_EQUAL = 1.25  # a queue's time has no interval: what makes less of a difference is not shown
_MOST_ROWS = 40
_BY_TIMESTEPS = ("static_dynamic", "scaling")  # sweeps whose own charts show the memory


def roofline(records: Records) -> list[Table]:
    """Every case whose operations were counted: the fastest rate first."""
    counted = [record for record in records if record["gflops_per_s"] is not None]
    counted.sort(key=lambda record: -record["gflops_per_s"])
    caption = (
        "GFLOP/s, and that as a share of the matmul peak measured in the same process at the same dtype."
    )
    return table.listed(caption, counted, {"time": table.time, **table.RATES})


def latency(records: Records) -> list[Table]:
    """Every case whose calls were also queued: a call awaited, and a call in a queue awaited once."""
    queued = select.sorted_by(record for record in records if quantities.queued(record))
    figures = {
        "awaited": table.time,
        "in a queue": table.exact("queued_s", formatting.seconds),
        "queued / awaited": lambda record: table.figure(record, quantities.queued, formatting.ratio),
    }
    return table.listed(
        "Time of a call that is awaited, and of one in a queue that is awaited once.", queued, figures
    )


def memory(records: Records) -> list[Table]:
    """Every case whose peak memory was taken, of the sweeps that do not show it by timesteps."""
    return table.peak_memory([record for record in records if record["sweep"] not in _BY_TIMESTEPS])


# --- charts ---


def _roofline_chart(records: Records):
    """GFLOP/s of each case against the work of one step, below the matmul peak of the process."""
    counted = select.one_ok_a_case(
        r for r in records if r["gflops_per_s"] is not None and r["flops"] is not None
    )
    if not counted:
        return None
    subjects = {labels.label(record): record for record in sorted(counted, key=labels.order)}
    figure = drawing.page(
        "How near to the machine's limit",
        f"{counted[0]['device']} · a point a case · a step's work: operations of a call / timesteps · "
        "line: the matmul peak measured in the same process, and a tenth and a hundredth of it",
        drawing.footnotes(counted, counted),
        [*map(drawing.subject_handle, subjects.values()), *drawing.plain_and_xla(counted, "dot")],
        height=4.6,
    )
    panels = drawing.mode_panels(figure, counted, sharex=True, sharey=True)
    for record in counted:
        look, axes = drawing.style(record), panels[record["mode"]]
        points.mark(axes, _work_a_step(record), record["gflops_per_s"], record)
        axes.plot(
            [_work_a_step(record)],
            [record["gflops_per_s"]],
            look.marker,
            markersize=4.5,
            color=look.colour,
            markerfacecolor=drawing.face(record, look),
            alpha=0.85,
            gid=record["case"],
        )
    for axes in panels.values():
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("operations of one step (larger steps to the right)")
    first, *_ = panels.values()
    first.set_ylabel("GFLOP/s")
    _peak_lines(list(panels.values()), counted)
    for axes in panels.values():
        drawing.log_ticks(axes.xaxis, 6, lambda value: formatting.tick(formatting.count(value)))
        drawing.log_ticks(axes.yaxis, 8, lambda value: f"{value:g}")
        axes.label_outer()
    return figure


def _work_a_step(record: Record) -> float:
    return record["flops"] / record["timesteps"]


def _peak_lines(panels: Sequence[Any], counted: Sequence[Record]) -> None:
    """The peak of each dtype, as the share of it says, and its tenth and hundredth."""
    frame = select.framed(counted)
    peaks = (frame["gflops_per_s"] / frame["roofline_fraction"]).groupby(frame["dtype"]).median()
    low = panels[0].get_ylim()[0]
    groups = _equal(peaks.dropna().to_dict())
    for dtypes, peak in groups:
        of_dtypes = f", {dtypes}" if len(groups) > 1 else ""
        shares = ((1, f"peak: {formatting.number(peak)} GFLOP/s{of_dtypes}"), (0.1, "10%"), (0.01, "1%"))
        for share, text in shares:
            if peak * share >= low and (share == 1 or "float32" in dtypes.split(", ")):
                _level(panels, peak * share, text, 1.2 if share == 1 else 0.6)
        panels[0].set_ylim(top=max(panels[0].get_ylim()[1], peak * 2))


def _equal(peaks: dict[str, float]) -> list[tuple[str, float]]:
    """The dtypes whose peaks a chart cannot tell apart, together."""
    groups: list[tuple[str, float]] = []
    for dtype, peak in sorted(peaks.items(), key=lambda pair: (-pair[1], pair[0])):
        if groups and groups[-1][1] < peak * 1.25:
            groups[-1] = (f"{groups[-1][0]}, {dtype}", groups[-1][1])
        else:
            groups.append((dtype, peak))
    return groups


def _level(panels: Sequence[Any], y: float, text: str, width: float) -> None:
    for axes in panels:
        axes.axhline(y, color="black", linewidth=width, zorder=1)
        axes.annotate(
            text,
            (0.01, y),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            fontsize=8,
            in_layout=False,
        )


def _latency_chart(records: Records):
    """A call in a queue that is awaited once / a call that is awaited, where they differ."""
    # a CPU has finished when a call returns: there the two are one figure, and its noise
    waited_for = [record for record in select.one_ok_a_case(records) if record["device"] != "cpu"]
    taken = [(record, ratio) for record in waited_for if (ratio := quantities.queued(record))]
    differ = [pair for pair in taken if abs(math.log(pair[1].value)) > math.log(_EQUAL)]
    most = sorted(differ, key=lambda pair: -abs(math.log(pair[1].value)))[:_MOST_ROWS]
    shown = sorted(most, key=lambda pair: (labels.order(pair[0]), str(pair[0]["case"])))
    shapes = len(drawing.distinct(labels.shape(record) for record, _ in shown)) > 1
    known = [
        Dot(
            ", ".join((labels.series_name(record), *([labels.short_shape(record)] if shapes else []))),
            labels.label(record),
            record,
            ratio,
        )
        for record, ratio in shown
    ]
    if not known:
        return None
    most_of = f"the {len(shown)} largest of " if len(differ) > len(shown) else ""
    return dot_chart.draw(
        "What a queue of calls hides",
        f"{known[0].record['device']} · a call in a queue that is awaited once / a call that is awaited · "
        f"{most_of}{len(differ)} of {counted(len(taken), 'case')} that differ by a quarter or more; no "
        "interval",
        "queued / awaited: left of 1 a queue is faster",
        known,
        [dot.record for dot in known],
        dot_chart.Look(row_height=0.24, lane_height=0.1),
        handles=[],
    )


def _memory_chart(records: Records):
    """Peak memory of each case, of the sweeps that have no lines of it; cells in plain Keras have a table."""
    taken = [
        record
        for record in select.one_ok_a_case(records)
        if record["peak_bytes"] is not None
        and record["sweep"] not in _BY_TIMESTEPS
        and record["cell"] not in IN_PLAIN_KERAS
    ]
    names = drawing.distinct(map(labels.series_name, sorted(taken, key=labels.order)))
    handles = {labels.series_name(record): record for record in sorted(taken, key=labels.order)}
    known = [
        Dot(labels.shape_in_numbers(record), "", record, peak, names.index(labels.series_name(record)))
        for record in sorted(taken, key=lambda record: record["peak_bytes"])
        if (peak := quantities.exactly(record, "peak_bytes"))
    ]
    if not known:
        return None
    return dot_chart.draw(
        "Peak memory",
        f"{known[0].record['device']} · each case in a process of its own · "
        "rows: batch · timesteps · features · units",
        "peak memory: further left is less",
        known,
        [dot.record for dot in known],
        dot_chart.Look(
            row_height=0.24,
            lane_height=0.16,
            text=formatting.memory,
            tick=lambda value: formatting.tick(formatting.memory(value)),
            centre=None,
            size=5,
        ),
        handles=[
            drawing.marker(replace(style, line="none"), name, drawing.face(record, style))
            for name, record in handles.items()
            for style in [drawing.style(record)]
        ],
    )


STUDY = Study(
    without="The run has no such figures.",
    reads_all=True,
    charts=(
        Chart("roofline", "How near is each case to the machine's limit?", _roofline_chart, roofline),
        Chart("latency", "What does a queue of calls hide?", _latency_chart, latency),
        Chart("memory", "How much memory does a case take?", _memory_chart, memory),
    ),
    blocks={"roofline": roofline, "latency": latency, "memory": memory},
)
