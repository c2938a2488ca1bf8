"""Study of the sweep `char_shape`: is the LSTM faster than SimpleRNN at the character model's shape?"""

from bench.report import select, table
from bench.report.charts import ratio_chart
from bench.report.studies.study import Chart, Records, Study
from bench.report.table import Table

SWEEP = "char_shape"


def ratios(records: Records) -> list[Table]:
    """The layers of the character model, compared with SimpleRNN."""
    swept = select.sorted_by(records)
    return table.listed("Time of a call / SimpleRNN's, at the character model's shape.", swept, table.PAIR)


def _chart(records: Records):
    swept = select.sorted_by(records, "order")
    return ratio_chart.draw("The character model's layer: time relative to SimpleRNN", swept)


STUDY = Study(
    without=f"The run has no case of the sweep `{SWEEP}`.",
    sweeps=(SWEEP,),
    charts=(
        Chart(
            "char_shape",
            "Is the LSTM faster than SimpleRNN at the character model's shape?",
            _chart,
            ratios,
        ),
    ),
    blocks={"char_shape": ratios},
)
