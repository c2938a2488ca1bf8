"""Study of the options: what does leaving the default cost, option by option?

The price list is that of the sweep `options`: an option's price is the time with it over the time without,
the two timed in turns, as a case of that sweep has for its baseline its own subject with every option at its
default. The options that other sweeps hold are compared with what those have.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.report import formatting, labels, quantities, select, table
from bench.report.charts import dot_chart, drawing
from bench.report.charts.dot_chart import Dot, Row
from bench.report.charts.drawing import GREY, Style
from bench.report.labels import Record
from bench.report.markdown import NOTHING
from bench.report.studies.study import Chart, Records, Study
from bench.report.table import Cell, Table
from bench.timing.intervals import Interval

if TYPE_CHECKING:
    import pandas as pd

SWEEP = "options"
_NOWHERE = Interval(1.0, 1.0, 1.0)  # of what was not timed


# --- the options of any sweep ---


def option_costs(records: Records) -> "pd.DataFrame":
    """The cost of each option, XLA too, that was timed in turns with the same case without it, at the base
    shape.

    Returns:
        a row a case: `record`, `option`, its `name`, the subject's `label`, and `cost`, time with it / time
        without, an interval, None where it was not timed.
    """
    import pandas as pd

    cases = select.framed(records)
    base = [labels.shape(record) for record in select.at_base(records)[:1]]
    alone = cases[(cases["options"].str.len() == 1) & cases["at"].isin(base)]
    without = alone["record"].map(select.default_id)
    priced = select.one_a_case(alone[(alone["baseline"] == without) & (alone["case"] != without)])
    option = priced["options"].str[0].astype(str)
    costs = pd.Series([quantities.compared(each) for each in priced["record"]], priced.index, dtype=object)
    priced = priced.assign(option=option, name=option.map(labels.option_name), cost=costs)
    return priced.sort_values("order", kind="stable")


def costs(records: Records) -> list[Table]:
    """The cost of each option to each subject: time with it / time without, timed in turns, at the base
    shape."""
    known = option_costs(records)
    if known.empty:
        return []
    cells = {
        row.case: {row.name: table.interval(row.cost) if row.cost else table.why_not(row.record)}
        for row in known.itertuples()
    }
    rows = select.sorted_by(known["record"], "mode_order")
    names = {"subject": labels.label, "mode": lambda record: record["mode"]}
    caption = (
        f"At {labels.in_words(rows[0])}; time with the option / time without, timed in turns, with its 95% "
        "interval."
    )
    columns = known["name"].unique()
    return [table.crossed(caption, rows, names, lambda record: cells[record["case"]], columns)]


def _costs_chart(records: Records):
    """The cost of each option to each subject, compared with the same subject without it."""
    known = option_costs(records)
    timed = known[known["cost"].notna()]
    dots = [
        Dot(f"{row.label}: {row.name}", row.label, row.record, row.cost)
        for row in timed.itertuples(index=False)
    ]
    return dot_chart.draw(
        "What an option costs: time with it, relative to without",
        f"{drawing.where(dots[0].record)} · timed in turns · line: 95% interval" if dots else "",
        "time with / time without: left of 1 is faster",
        dots,
        known["record"].tolist(),
        dot_chart.Look(row_height=0.32),
    )


COSTS = Study(
    without="The run has no options.",
    charts=(Chart("options", "What does each option cost?", _costs_chart, costs),),
    blocks={"options": costs},
)


# --- the price list of the sweep `options` ---


@dataclass(frozen=True)
class PriceList:
    """The price list.

    Attributes:
        subjects: a record of each subject, in order.
        prices: a row a priced case, the dearest group of options first, in it the dearest option: `option`,
            as ids write it, its `group`, `name` and `short` name below the group's, `subject`, `mode`,
            `ratio`, `record`.
        noise: the same of the default, compared with a second instance of itself.
    """

    subjects: list[Record]
    prices: "pd.DataFrame"
    noise: "pd.DataFrame"


def price_list(records: Records) -> PriceList | None:
    """The price list of the sweep `options`, at the shape that most of its cases have."""
    cases = select.framed(records).sort_values("order", kind="stable")
    shapes = cases["record"].map(labels.shape_in_numbers)
    cases = cases[shapes.isin(shapes.mode()[:1])]
    option = cases["options"].map("-".join)
    group, name = option.map(labels.option_group), option.map(labels.option_name)
    short = [_without_beginning(*each) for each in zip(name, group, strict=True)]
    cases = cases.assign(option=option, group=group, name=name, short=short)
    priced = cases[cases["baseline"] == cases["record"].map(select.default_id)]
    is_noise = priced["option"] == ""
    if is_noise.all():
        return None
    subjects = cases.drop_duplicates("subject")["record"].tolist()
    return PriceList(subjects, _dearest_first(priced[~is_noise]), priced[is_noise & priced["ratio"].notna()])


def _without_beginning(name: str, group: str) -> str:
    """An option's name without what its group's heading says already."""
    beginnings = (f"{group} + ", "mask, ")
    return next((name.removeprefix(each) for each in beginnings if name.startswith(each)), name)


def _dearest_first(prices: "pd.DataFrame") -> "pd.DataFrame":
    """The prices by group and option, by their geometric means; what has no price comes last."""
    typical = prices.groupby("option")["ratio"].transform(_typical).fillna(0.0)
    dearest = typical.groupby(prices["group"]).transform("max")
    sorting = prices.assign(typical=typical, dearest=dearest)
    keys = ["dearest", "group", "typical", "option"]
    return sorting.sort_values(keys, ascending=[False, True, False, True], kind="stable")


def _typical(ratios: "pd.Series") -> float:
    """The geometric mean of what is known; NaN where nothing is."""
    return float(np.exp(np.log(ratios).mean()))


def prices(records: Records) -> list[Table]:
    """The price list, a table a mode: a row an option, the dearest group first, a column a subject."""
    known = price_list(records)
    if known is None:
        return []
    return [_prices_of(known, mode) for mode in select.modes_of(known.prices["record"])]


def _prices_of(known: PriceList, mode: str) -> Table:
    prices, noise = (each[each["mode"] == mode] for each in (known.prices, known.noise))
    typical = prices.groupby("name")["ratio"].agg(_typical)
    caption = (
        f"{mode} at {labels.in_words(known.subjects[0])}: time with the option / time with all options at "
        "their default, timed in turns, with its 95% interval; typical is the geometric mean of the row."
    )

    def cells(record: Record) -> dict[str, Cell]:
        value = float(typical.get(_option(record), math.nan))
        mean = Cell(NOTHING) if math.isnan(value) else Cell(formatting.ratio(value), value)
        return {"typical": mean, labels.label(record): table.ratio(record)}

    columns = ("typical", *map(labels.label, known.subjects))
    return table.crossed(caption, [*prices["record"], *noise["record"]], {"option": _option}, cells, columns)


def _option(record: Record) -> str:
    return labels.option_name("-".join(labels.options(record))) or "nothing (noise)"


_DEAREST = 5.0  # times the default: the end of the price list's axis


def _price_list_chart(records: Records):
    """A row an option, a dot a subject; what was not timed is marked."""
    known = price_list(records)
    if known is None:
        return None
    dots: list[Dot] = []
    crosses: list[Dot] = []
    for (_, short), row in known.prices.groupby(["option", "short"], sort=False):
        lanes = drawing.distinct(each["subject"] for each in sorted(row["record"], key=labels.order))
        for group, record in zip(row["group"], row["record"], strict=True):
            ratio = quantities.compared(record)
            into = dots if ratio else crosses
            into.append(Dot(short, group, record, ratio or _NOWHERE, lanes.index(record["subject"])))
    noise = {
        mode: (min(1.0, ratios.min()), max(1.0, ratios.max()))
        for mode, ratios in known.noise.groupby("mode")["ratio"]
    }
    return dot_chart.draw(
        "What leaving the default costs",
        f"{drawing.where(known.subjects[0])} · time with the option / time with all options at their "
        "default, timed in turns · line: 95% interval · on the right: from the least to the most",
        "× the default's time: left of 1 is faster",
        dots,
        known.prices["record"].tolist(),
        dot_chart.Look(
            row_height=0.2,
            lane_height=0.052,
            headings=True,
            labelled=False,
            most=_DEAREST,
            band=noise,
            size=4.5,
            label_size=9,
        ),
        handles=[
            *map(drawing.subject_handle, known.subjects),
            *_noise_handle(noise),
            *_missing_handle(crosses),
        ],
        rows=drawing.distinct(zip(known.prices["group"], known.prices["short"], strict=True)),
        at_the_end=_texts(known.prices, _range),
        at_the_start=_texts(known.prices, drawing.why_none),
        crosses=crosses,
    )


def _noise_handle(noise: dict[str, Any]) -> list[Any]:
    from matplotlib.patches import Patch

    return [Patch(facecolor="#dcdcdc", label="the default against itself (noise)")] if noise else []


def _missing_handle(crosses: Sequence[Dot]) -> list[Any]:
    return [drawing.marker(Style(GREY, "none", "x"), "skipped or failed")] if crosses else []


def _texts(prices: "pd.DataFrame", text: Callable[[Sequence[Record]], str]) -> dict[tuple[str, Row], str]:
    """A text for each row and mode that has records."""
    places = prices.groupby(["mode", "group", "short"], sort=False)["record"]
    return {(mode, (group, short)): text(list(found)) for (mode, group, short), found in places}


def _range(records: Sequence[Record]) -> str:
    """The least and the most that an option costs."""
    known = sorted(ratio.value for record in records if (ratio := quantities.compared(record)))
    ends = drawing.distinct(formatting.ratio(value) for value in (known[0], known[-1])) if known else []
    return "–".join((*(end.removesuffix("×") for end in ends[:-1]), *ends[-1:]))


PRICE_LIST = Study(
    without="The run has no price list: measure the sweep `options`.",
    sweeps=(SWEEP,),
    charts=(Chart("price_list", "What does leaving the default cost?", _price_list_chart, prices),),
    blocks={"price_list": prices},
)
