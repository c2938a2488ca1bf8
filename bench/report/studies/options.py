"""Study of the options: what does leaving the default cost, option by option?

The price list is that of the sweep `options`: an option's price is the time with it over the time without,
the two timed in turns, as a case of that sweep has for its baseline its own subject with every option at its
default. The options that other sweeps hold are compared with what those have.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.records.schema import Value
from bench.report import formatting, labels, quantities, select, table
from bench.report.charts import dot_chart, drawing
from bench.report.charts.dot_chart import Dot, Row
from bench.report.charts.drawing import GREY, Style
from bench.report.labels import Record
from bench.report.markdown import NOTHING
from bench.report.studies.study import Chart, Records, Study
from bench.report.table import Cell, Table
from bench.timing.intervals import Interval

SWEEP = "options"
_NOWHERE = Interval(1.0, 1.0, 1.0)  # of what was not timed


# --- the options of any sweep ---


@dataclass(frozen=True)
class OptionCost:
    """The cost of an option to a subject: time with it / time without, None where it was not timed."""

    record: Record
    option: str
    cost: Interval | None


def option_costs(records: Sequence[Record]) -> list[OptionCost]:
    """The cost of each option that was measured alone, at the base shape, plain.

    The baseline may be the same case without the option, or another that the case without the option was
    compared with too; then the cost is the quotient of the two ratios.
    """
    base = {record["case"]: record for record in select.at_base(records)}
    costs = []
    for record in select.one_a_case(records):
        words = labels.options(record)
        if len(words) == 1 and words != ("xla",):
            without = record["case"].removesuffix(f"-{words[0]}")
            if without in base:
                costs.append(OptionCost(record, words[0], _cost(record, base[without])))
    return sorted(costs, key=lambda cost: labels.order(cost.record))


def _cost(record: Record, without: Record) -> Interval | None:
    if record["ratio"] is None:
        return None
    if record["baseline"] == without["case"]:
        return quantities.ratio_of(record)
    if without["ratio"] is None or record["baseline"] != without["baseline"]:
        return None
    return quantities.quotient(quantities.ratio_of(record), quantities.ratio_of(without))


def costs(records: Records) -> list[Table]:
    """The cost of each option to each subject: time with it / time without, at the base shape."""
    known = {id(cost.record): cost for cost in option_costs(records)}
    rows = select.by_mode(cost.record for cost in known.values())
    if not rows:
        return []
    names = {"subject": labels.label, "mode": lambda record: record["mode"]}
    columns = dict.fromkeys(labels.option_name(cost.option) for cost in known.values())
    caption = (
        f"At {labels.in_words(rows[0])}; time with the option / time without, with its 95% interval. "
        "Where the two were timed against one baseline, not each other, it is the quotient of their ratios."
    )

    def price(record: Record) -> dict[str, Cell]:
        cost = known[id(record)]
        cell = table.interval(cost.cost) if cost.cost else table.why_not(record)
        return {labels.option_name(cost.option): cell}

    return [table.crossed(caption, rows, names, price, columns)]


def _costs_chart(records: Records):
    """The cost of each option to each subject, compared with the same subject without it."""
    known = option_costs(records)
    if not known:
        return None
    dots = [
        Dot(
            f"{labels.label(cost.record)}: {labels.option_name(cost.option)}",
            labels.label(cost.record),
            cost.record,
            cost.cost,
        )
        for cost in known
        if cost.cost is not None
    ]
    return dot_chart.draw(
        "What an option costs: time with it, relative to without",
        f"{drawing.where(known[0].record)} · line: 95% interval",
        "time with / time without: left of 1 is faster",
        dots,
        [cost.record for cost in known],
        dot_chart.Look(row_height=0.32),
    )


COSTS = Study(
    without="The run has no options.",
    charts=(Chart("options", "What does each option cost?", _costs_chart, costs),),
    blocks={"options": costs},
)


# --- the price list of the sweep `options` ---


@dataclass
class Price:
    """A row of the list: an option, or several at once, and what it costs each subject in each mode.

    Attributes:
        option: its words in the case's id.
        records: the record of each subject and mode.
    """

    option: str
    records: dict[tuple[Value, Value], Record] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return labels.option_name(self.option)

    @property
    def typical(self) -> float | None:
        """The geometric mean over subjects and modes, which sorts the list; None: nothing was timed."""
        known = [price.value for record in self.records.values() if (price := quantities.compared(record))]
        return math.exp(sum(map(math.log, known)) / len(known)) if known else None


@dataclass(frozen=True)
class PriceList:
    """The list.

    Attributes:
        subjects: a record of each subject, in order.
        groups: the options that belong together, the dearest group first, in each the dearest option first.
        records: all that the list is about, what was not timed included.
        noise: the default against a second instance of itself, for each subject and mode.
    """

    subjects: list[Record]
    groups: dict[str, list[Price]]
    records: list[Record]
    noise: dict[tuple[Value, Value], Interval]

    @property
    def prices(self) -> Iterator[Price]:
        for prices in self.groups.values():
            yield from prices


def price_list(records: Iterable[Record]) -> PriceList | None:
    """The price list of the sweep `options`, at the shape that most of its cases have."""
    swept = list(records)
    if not swept:
        return None
    ((shape, _),) = Counter(map(labels.shape, swept)).most_common(1)
    at_shape = sorted((record for record in swept if labels.shape(record) == shape), key=labels.order)
    prices: dict[str, Price] = {}
    noise: dict[tuple[Value, Value], Interval] = {}
    for record in at_shape:
        key, option = (record["subject"], record["mode"]), "-".join(labels.options(record))
        if record["baseline"] != select.default_id(record):
            continue
        if option:
            prices.setdefault(option, Price(option)).records[key] = record
        elif ratio := quantities.compared(record):
            noise[key] = ratio
    if not prices:
        return None
    subjects = {record["subject"]: record for record in at_shape}
    return PriceList(list(subjects.values()), _grouped(prices.values()), at_shape, noise)


def _grouped(prices: Iterable[Price]) -> dict[str, list[Price]]:
    """The prices by group; what has no price comes last."""
    groups: dict[str, list[Price]] = {}
    for price in sorted(prices, key=_dearest_first):
        groups.setdefault(labels.option_group(price.option), []).append(price)
    return groups


def _dearest_first(price: Price) -> tuple[float, str]:
    return -(price.typical or 0.0), price.option


def prices(records: Records) -> list[Table]:
    """The price list, a table a mode: a row an option, the dearest group first, a column a subject."""
    known = price_list(records)
    if known is None:
        return []
    return [_prices_of(known, mode) for mode in select.modes_of(known.records)]


def _prices_of(known: PriceList, mode: str) -> Table:
    subjects = [record["subject"] for record in known.subjects]
    rows = [
        [
            Cell(price.name),
            _typical(price, mode),
            *(table.ratio(price.records.get((subject, mode))) for subject in subjects),
        ]
        for price in known.prices
    ]
    noise = [known.noise.get((subject, mode)) for subject in subjects]
    rows.append(
        [Cell("nothing (noise)"), Cell(NOTHING), *(table.interval(n) if n else Cell(NOTHING) for n in noise)]
    )
    caption = (
        f"{mode} at {labels.in_words(known.subjects[0])}: time with the option / time with all options at "
        "their default, timed in turns, with its 95% interval; typical is the geometric mean of the row."
    )
    return Table(caption, ("option", "typical", *map(labels.label, known.subjects)), rows)


def _typical(price: Price, mode: str) -> Cell:
    of_mode = {key: record for key, record in price.records.items() if key[1] == mode}
    typical = Price(price.option, of_mode).typical
    return Cell(formatting.ratio(typical), typical) if typical else Cell(NOTHING)


_DEAREST = 5.0  # times the default: the end of the price list's axis


def _price_list_chart(records: Records):
    """A row an option, a dot a subject; what was not timed is marked."""
    prices = price_list(records)
    if prices is None:
        return None
    known: list[Dot] = []
    crosses: list[Dot] = []
    for group, row in ((group, price) for group, prices_of in prices.groups.items() for price in prices_of):
        lanes = _lanes(row.records.values())
        for record in row.records.values():
            ratio = quantities.compared(record)
            lane = lanes.index(record["subject"])
            into = known if ratio else crosses
            into.append(Dot(_short(row), group, record, ratio or _NOWHERE, lane))
    noise = _noise(prices)
    return dot_chart.draw(
        "What leaving the default costs",
        f"{drawing.where(prices.subjects[0])} · time with the option / time with all options at their "
        "default, timed in turns · line: 95% interval · on the right: from the least to the most",
        "× the default's time: left of 1 is faster",
        known,
        [record for price in prices.prices for record in price.records.values()],
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
            *map(drawing.subject_handle, prices.subjects),
            *_noise_handle(noise),
            *_missing_handle(crosses),
        ],
        rows=[(group, _short(price)) for group, rows in prices.groups.items() for price in rows],
        at_the_end=_texts(prices, _range),
        at_the_start=_texts(prices, drawing.why_none),
        crosses=crosses,
    )


def _lanes(records: Iterable[Record]) -> list[Any]:
    """The subjects of a row, each in a lane of its own."""
    return drawing.distinct(record["subject"] for record in sorted(records, key=labels.order))


def _short(price: Price) -> str:
    """The option's name without what its group's heading says already."""
    beginnings = (f"{labels.option_group(price.option)} + ", "mask, ")
    return next((price.name[len(b) :] for b in beginnings if price.name.startswith(b)), price.name)


def _noise(prices: PriceList) -> dict[str, tuple[float, float]]:
    """The range of the default against itself, in each mode."""
    found: dict[str, list[float]] = {}
    for (_, mode), ratio in prices.noise.items():
        found.setdefault(str(mode), [1.0]).append(ratio.value)
    return {mode: (min(values), max(values)) for mode, values in found.items()}


def _noise_handle(noise: dict[str, Any]) -> list[Any]:
    from matplotlib.patches import Patch

    return [Patch(facecolor="#dcdcdc", label="the default against itself (noise)")] if noise else []


def _missing_handle(crosses: Sequence[Dot]) -> list[Any]:
    return [drawing.marker(Style(GREY, "none", "x"), "skipped or failed")] if crosses else []


def _texts(prices: PriceList, text: Callable[[Sequence[Record]], str]) -> dict[tuple[str, Row], str]:
    """A text for each row and mode that has records."""
    return {
        (mode, (group, _short(price))): text(drawing.of_mode(price.records.values(), mode))
        for group, rows in prices.groups.items()
        for price in rows
        for mode in select.modes_of(price.records.values())
    }


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
