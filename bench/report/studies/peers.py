"""Study of the sweep `peers`: what do the same cells cost in other libraries?"""

from bench.report import labels, quantities, table
from bench.report.charts import dot_chart, drawing
from bench.report.charts.dot_chart import Dot
from bench.report.studies.study import Chart, Records, Study
from bench.report.table import Table

SWEEP = "peers"


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
