"""The price list: what leaving the default costs each subject, at one shape. Reads records only.

An option's price is the time with it over the time without, the two timed in turns: a case of the sweep
`options` has for its baseline its own subject with every option at its default.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from bench.records.schema import Value
from bench.report import views
from bench.report.views import Record
from bench.timing.intervals import Interval

SWEEP = "options"


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
        return views.option_name(self.option)

    @property
    def typical(self) -> float | None:
        """The geometric mean over subjects and modes, which sorts the list; None: nothing was timed."""
        known = [price.value for record in self.records.values() if (price := views.compared(record))]
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
    """The price list of the run's sweep `options`, at the shape that most of its cases have."""
    swept = views.of_sweep(records, SWEEP)
    if not swept:
        return None
    ((shape, _),) = Counter(map(views.shape, swept)).most_common(1)
    at_shape = sorted((record for record in swept if views.shape(record) == shape), key=views.order)
    prices: dict[str, Price] = {}
    noise: dict[tuple[Value, Value], Interval] = {}
    for record in at_shape:
        key, option = (record["subject"], record["mode"]), "-".join(views.options(record))
        if record["baseline"] != views.default_id(record):
            continue
        if option:
            prices.setdefault(option, Price(option)).records[key] = record
        elif ratio := views.compared(record):
            noise[key] = ratio
    if not prices:
        return None
    subjects = {record["subject"]: record for record in at_shape}
    return PriceList(list(subjects.values()), _grouped(prices.values()), at_shape, noise)


def _grouped(prices: Iterable[Price]) -> dict[str, list[Price]]:
    """The prices by group; what has no price comes last."""
    groups: dict[str, list[Price]] = {}
    for price in sorted(prices, key=_dearest_first):
        groups.setdefault(views.option_group(price.option), []).append(price)
    return groups


def _dearest_first(price: Price) -> tuple[float, str]:
    return -(price.typical or 0.0), price.option
