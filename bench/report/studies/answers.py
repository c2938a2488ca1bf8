"""What each sweep ends in, as tables: `ANSWERS` is the one table of them, by the name of their chart.

An answer is a function of a run's records; it has no tables where the run has nothing for it.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from bench.records.schema import Value
from bench.report import formatting, table, views
from bench.report.markdown import NOTHING
from bench.report.studies import break_even
from bench.report.studies.fits import Fit, fits
from bench.report.studies.prices import Price, PriceList, price_list
from bench.report.table import SHAPE_HEADER, Cell, Table, listed
from bench.report.views import Record
from bench.timing.intervals import Interval


def prices(records: Sequence[Record]) -> list[Table]:
    """The price list, a table a mode: a row an option, the dearest group first, a column a subject."""
    known = price_list(records)
    if known is None:
        return []
    return [_prices_of(known, mode) for mode in views.modes_of(known.records)]


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
        f"{mode} at {views.in_words(known.subjects[0])}: time with the option / time with all options at "
        "their default, timed in turns, with its 95% interval; typical is the geometric mean of the row."
    )
    return Table(caption, ("option", "typical", *map(views.label, known.subjects)), rows)


def _typical(price: Price, mode: str) -> Cell:
    of_mode = {key: record for key, record in price.records.items() if key[1] == mode}
    typical = Price(price.option, of_mode).typical
    return Cell(formatting.ratio(typical), typical) if typical else Cell(NOTHING)


# --- static_dynamic ---


def static_dynamic(records: Sequence[Record]) -> list[Table]:
    """Run time, start, graph, memory and break-even against timesteps, a table each, a row a way and mode."""
    swept = views.of_sweep(records, "static_dynamic")
    known = break_even.loops(swept)
    figures: dict[str, Callable[[Record], Cell]] = {
        "Time of a call": table.time,
        "Time of a call / that of Keras' loop, ≈ where nothing paired them": lambda record: _beside(
            record, known
        ),
        "Time to trace and compile": lambda record: table.figure(record, views.start_of, formatting.seconds),
        "Operations in the graph": _exact("graph_nodes", formatting.count),
        "Peak memory": _exact("peak_bytes", formatting.memory),
        "Calls after which the longer start is paid back": lambda record: _break_even(record, known),
    }
    return [
        table
        for caption, figure in figures.items()
        if any(figure(record).value is not None for record in swept)
        for table in [_by_timesteps(caption, swept, figure)]
    ]


def pays(records: Sequence[Record]) -> list[Table]:
    """The last of the tables of `static_dynamic`: the break-even alone."""
    return static_dynamic(records)[-1:]


def _by_timesteps(caption: str, records: Sequence[Record], figure: Callable[[Record], Cell]) -> Table:
    steps = sorted({int(str(record["timesteps"])) for record in records})
    found = {(views.series(record), record["timesteps"]): record for record in records}
    ordered = sorted(
        records, key=lambda record: (str(record["mode"]), views.order(record), views.options(record))
    )
    ways = {views.series(record): record for record in ordered}
    rows = [
        [
            Cell(views.label(way)),
            Cell(table.options_in_words(way)),
            Cell(str(way["mode"])),
            *(figure(point) if (point := found.get((way_key, n))) else Cell(NOTHING) for n in steps),
        ]
        for way_key, way in ways.items()
    ]
    at = views.in_words(records[0], without=("timesteps",))
    header = ("subject", "options", "mode", *map(str, steps))
    return Table(f"{caption}, by timesteps, at {at}.", header, rows, names=3)


def _beside(record: Record, known: Mapping[tuple, Record]) -> Cell:
    loop = break_even.loop_of(record, known)
    ratio = break_even.ratio_to(record, loop) if loop else None
    if ratio is None:
        return table.why_not(record)
    if loop is not None and record["case"] == loop["case"]:
        return Cell("the loop", 1.0)
    has_interval = ratio.low < ratio.high
    return table.interval(ratio) if has_interval else Cell(f"≈ {formatting.ratio(ratio.value)}", ratio.value)


def _break_even(record: Record, known: Mapping[tuple, Record]) -> Cell:
    """After how many calls a way has paid for its start, against the loop."""
    loop = break_even.loop_of(record, known)
    if record["status"] != "ok" or loop is None:
        return table.why_not(record)
    if record["case"] == loop["case"]:
        return Cell("the loop")
    ratio = break_even.ratio_to(record, loop)
    starts = views.start_of(record), views.start_of(loop)
    time = views.time_of(loop)
    if ratio is None or time is None or starts[0] is None or starts[1] is None:
        return Cell(NOTHING)
    extra = starts[0].value - starts[1].value
    if extra <= 0:
        return Cell("at once" if ratio.value < 1 else "ready sooner, runs slower")
    calls = break_even.calls_to_pay(extra, time.value, ratio)
    if calls is None:
        return Cell("never")
    low, high = (f"{math.ceil(end):,}" if math.isfinite(end) else "∞" for end in (calls.low, calls.high))
    between = "" if low == high else f" [{low}, {high}]"
    return Cell(f"{math.ceil(calls.value):,}{between}", math.ceil(calls.value))


# --- scaling ---


def scaling(records: Sequence[Record]) -> list[Table]:
    """The fits: one table to read, a column a batch size, and one with every interval."""
    known = fits(records)
    return [_fits_by_batch(known), _fits_in_full(known)] if known else []


def fit_by_batch(records: Sequence[Record]) -> list[Table]:
    """The first of the tables of `scaling`."""
    return scaling(records)[:1]


def _fits_by_batch(known: Sequence[Fit]) -> Table:
    batches = sorted({int(str(fit.record["batch_size"])) for fit in known})
    found = {(_row_of(fit), fit.record["batch_size"]): fit for fit in known}
    rows = [
        [*map(Cell, row), *(_fit_cell(found.get((row, batch))) for batch in batches)]
        for row in dict.fromkeys(map(_row_of, known))
    ]
    header = ("subject", "mode", "units", *(f"batch {batch}" for batch in batches))
    caption = (
        "Time of a call as a + b · timesteps: a, what a call costs before its first step, and b, the work of "
        "one step. ≠: poor, the line misses a point by more than 10% or starts below 0."
    )
    return Table(caption, header, rows, names=3)


def _row_of(fit: Fit) -> tuple[str, str, str]:
    subject = ", ".join((views.label(fit.record), *map(views.option_name, views.options(fit.record))))
    return subject, str(fit.record["mode"]), str(fit.record["units"])


def _fit_cell(fit: Fit | None) -> Cell:
    if fit is None:
        return Cell(NOTHING)
    start, slope = (formatting.seconds(each.value) for each in (fit.line.start, fit.line.slope))
    return Cell(f"{'≠ ' * fit.is_poor}{start} + {slope} · t", fit.line.slope.value, fit.remark)


def _fits_in_full(known: Sequence[Fit]) -> Table:
    rows = [
        [
            *map(Cell, _row_of(fit)),
            Cell(str(fit.record["batch_size"]), fit.record["batch_size"]),
            _seconds(fit.line.start),
            _seconds(fit.line.slope),
            Cell(fit.remark),
        ]
        for fit in known
    ]
    header = ("subject", "mode", "units", "batch", "a, a call", "b, a step", "how well it fits")
    caption = (
        f"Time of a call as a + b · timesteps, with 95% intervals, at {known[0].record['features']} features."
    )
    return Table(caption, header, rows, names=4)


def _seconds(value: Interval) -> Cell:
    low, high = formatting.seconds(value.low), formatting.seconds(value.high)
    between = "" if value.low == value.high else f" [{low}, {high}]"
    return Cell(f"{formatting.seconds(value.value)}{between}", value.value)


# --- the others: a row a case ---


def deepbench(records: Sequence[Record]) -> list[Table]:
    """The shapes of DeepBench: time, rate, share of the peak; the estimate of those that were skipped."""
    swept = _by_size(views.of_sweep(records, "deepbench"))
    return _one(
        "DeepBench's shapes: GFLOP/s, and that as a share of the matmul peak of the same process.",
        swept,
        {"time": table.time, **_RATES, **({"remark": _message} if any(r["message"] for r in swept) else {})},
    )


def char_shape(records: Sequence[Record]) -> list[Table]:
    """The layers of the character model, beside SimpleRNN."""
    swept = sorted(views.of_sweep(records, "char_shape"), key=_by_mode)
    return _one("Time of a call / SimpleRNN's, at the character model's shape.", swept, _PAIR)


def peers(records: Sequence[Record]) -> list[Table]:
    """The same cells elsewhere, beside Keras' built-in layers."""
    swept = sorted(views.of_sweep(records, "peers"), key=_by_mode)
    caption = "Time of a call / that of Keras' built-in layer of the same weights, timed in turns."
    return _one(caption, swept, _PAIR)


def roofline(records: Sequence[Record]) -> list[Table]:
    """Every case whose operations were counted: the fastest rate first."""
    counted = [record for record in records if record["gflops_per_s"] is not None]
    counted.sort(key=lambda record: -float(str(record["gflops_per_s"])))
    caption = (
        "GFLOP/s, and that as a share of the matmul peak measured in the same process at the same dtype."
    )
    return _one(caption, counted, {"time": table.time, **_RATES})


def latency(records: Sequence[Record]) -> list[Table]:
    """Every case whose calls were also queued: a call awaited, and a call in a queue awaited once."""
    queued = sorted((record for record in records if views.queued(record)), key=_by_mode)
    figures = {
        "awaited": table.time,
        "in a queue": _exact("queued_s", formatting.seconds),
        "queued / awaited": lambda record: table.figure(record, views.queued, formatting.ratio),
    }
    return _one(
        "Time of a call that is awaited, and of one in a queue that is awaited once.", queued, figures
    )


def memory(records: Sequence[Record]) -> list[Table]:
    """Every case whose peak memory was taken, of the sweeps that do not show it by timesteps."""
    return _memory(record for record in records if record["sweep"] not in ("static_dynamic", "scaling"))


def _memory(records: Iterable[Record]) -> list[Table]:
    taken = sorted((record for record in records if record["peak_bytes"] is not None), key=_by_mode)
    return _one(
        "Peak memory of a case, in a process of its own.",
        taken,
        {"peak": _exact("peak_bytes", formatting.memory)},
    )


def speed_ups(records: Sequence[Record]) -> list[Table]:
    """Of each case of a sweep with several baselines: its time, and how many times faster than each it is."""
    compared = views.by_shape([record for record in records if record["layer"] == "fused"] or records)
    columns = list(dict.fromkeys(map(views.faster_than, compared)))
    found = {(record["case"], views.faster_than(record)): record for record in compared}
    cases: dict[Value, Record] = {}
    for record in sorted(compared, key=_of_mode):
        cases.setdefault(record["case"], record)
    counted = any(record["roofline_fraction"] is not None for record in cases.values())
    rows = [
        [
            Cell(views.label(case)),
            Cell(str(case["mode"])),
            Cell(table.shape_in_numbers(case)),
            table.time(case),
            *(_speed_up(found.get((name, column))) for column in columns),
            *([_RATES["of the peak"](case)] if counted else []),
        ]
        for name, case in cases.items()
    ]
    header = ("subject", "mode", SHAPE_HEADER, "time", *columns, *(["of the peak"] if counted else []))
    return [Table("", header, rows, names=3)] if rows else []


def fused_costs(records: Sequence[Record]) -> list[Table]:
    """What compiling the fused layer and training with it take, beside Keras' loop, plain and under XLA."""
    swept = views.by_shape(record for record in views.of_sweep(records, "fused") if record["mode"] == "train")
    fused = {record["case"]: record for record in swept if record["layer"] == "fused"}
    others = {
        (views.family(record), views.shape(record), record["jit_compile"]): record
        for record in swept
        if record["layer"] != "fused"
    }
    rows = []
    for record in fused.values():
        key = (views.family(record), views.shape(record))
        three = [record, others.get((*key, False)), others.get((*key, True))]
        rows.append(
            [
                Cell(views.label(record)),
                Cell(table.shape_in_numbers(record)),
                *(table.figure(each, views.start_of, formatting.seconds) for each in three),
                *(table.figure(each, _peak, formatting.memory) for each in three),
            ]
        )
    whose = ("", ", Keras' loop", ", Keras' loop under XLA")
    header = ("subject", SHAPE_HEADER, *(what + of for what in ("start", "memory") for of in whose))
    caption = "Training: the time to trace and compile, and the peak memory, each in a process of its own."
    return [Table(caption, header, rows, names=2)] if rows else []


def _peak(record: Record) -> Interval | None:
    return views.exactly(record, "peak_bytes")


def _speed_up(record: Record | None) -> Cell:
    ratio = views.compared(record) if record is not None else None
    if record is None or ratio is None:
        return Cell(NOTHING) if record is None else table.why_not(record)
    return table.faster(views.inverse(ratio))


def _one(
    caption: str, records: Iterable[Record], figures: Mapping[str, Callable[[Record], Cell]]
) -> list[Table]:
    table = listed(caption, records, figures)
    return [table] if table else []


def _exact(name: str, write: Callable[[float], str]) -> Callable[[Record], Cell]:
    """A column's figure as a cell."""
    return lambda record: table.figure(record, lambda each: views.exactly(each, name), write)


def _message(record: Record) -> Cell:
    return Cell(str(record["message"] or ""))


def _share(value: float) -> str:
    return f"{value:.1%}"


_RATES: dict[str, Callable[[Record], Cell]] = {
    "GFLOP/s": _exact("gflops_per_s", formatting.number),
    "of the peak": _exact("roofline_fraction", _share),
    "kernel": lambda record: Cell(str(record["kernel"] or NOTHING)),
}
_PAIR: dict[str, Callable[[Record], Cell]] = {
    "time": table.time,
    "baseline": lambda record: Cell(views.against(record)),
    "ratio": table.ratio,
}


def _of_mode(record: Record) -> int:
    return ("infer", "train", record["mode"]).index(record["mode"])


def _by_mode(record: Record) -> tuple:
    return (_of_mode(record), views.order(record), views.options(record), *views.shape(record))


def _by_size(records: Sequence[Record]) -> list[Record]:
    """By mode and cell, the small shapes first."""
    return sorted(
        records,
        key=lambda record: (_of_mode(record), views.order(record), record["units"], *views.shape(record)),
    )


ANSWERS: dict[str, Callable[[Sequence[Record]], list[Table]]] = {
    "price_list": prices,
    "static_dynamic": static_dynamic,
    "scaling": fit_by_batch,
    "scaling_fit": lambda records: scaling(records)[1:],
    "scaling_memory": lambda records: _memory(views.of_sweep(records, "scaling")),
    "deepbench": deepbench,
    "char_shape": char_shape,
    "peers": peers,
    "fused": lambda records: [*speed_ups(records), *fused_costs(records)],
    "roofline": roofline,
    "latency": latency,
    "memory": memory,
}
