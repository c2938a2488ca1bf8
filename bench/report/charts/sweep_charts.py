"""The charts that the sweeps end in. `CHARTS` is their part of the table in `bench.report.charts.run_charts`.

A chart is a function of a run's records, and None where they have nothing for it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from bench.report import formatting, views
from bench.report.charts import dot_chart, drawing, grid_chart
from bench.report.charts.dot_chart import Dot, Row
from bench.report.charts.drawing import GREY, Style
from bench.report.charts.grid_chart import Point
from bench.report.studies import fits
from bench.report.studies.prices import Price, PriceList, price_list
from bench.report.views import Record
from bench.timing.intervals import Interval

_OLD_LIMIT = 200  # timesteps beyond which the old tutorials say not to unroll
_ALIKE = 1.25  # a queue's time has no interval: what makes less of a difference is not shown
_MOST_ROWS = 40
_NOWHERE = Interval(1.0, 1.0, 1.0)  # of what was not timed


def beside_baseline(title: str, records: Sequence[Record], group: Callable[[Record], str] = views.family):
    """The ratio of each record to its baseline, a row a subject, filled and hollow."""
    compared = [(record, ratio) for record in records if (ratio := views.compared(record))]
    if not compared:
        return None
    drawn = [record for record, _ in compared]
    both = len(drawing.distinct(map(drawing.is_xla, drawn))) > 1
    shapes = len(drawing.distinct(map(views.shape, records))) > 1
    known = [
        Dot(_against(record, shapes), group(record), record, ratio, int(both and drawing.is_xla(record)))
        for record, ratio in compared
    ]
    return dot_chart.draw(
        title,
        f"{'' if shapes else drawing.where(drawn[0]) + ' · '}line: 95% interval",
        "time / baseline's time: left of 1 is faster",
        known,
        records,
        dot_chart.Look(row_height=0.5),
    )


def _against(record: Record, with_shape: bool) -> str:
    """The name of a row that compares; a built-in is compared with itself, which shows the noise."""
    options = [views.option_name(word) for word in views.options(record) if word != "xla"]
    shape = [views.short_shape(record)] if with_shape else []
    return f"{', '.join((views.label(record), *options, *shape))}\nvs {views.against(record)}"


# --- options ---


_DEAREST = 5.0  # times the default: the end of the price list's axis


def _price_list(records: Sequence[Record]):
    """What leaving the default costs, a row an option, a dot a subject; what was not timed is marked."""
    prices = price_list(records)
    if prices is None:
        return None
    known: list[Dot] = []
    crosses: list[Dot] = []
    for group, row in ((group, price) for group, prices_of in prices.groups.items() for price in prices_of):
        lanes = _lanes(row.records.values())
        for record in row.records.values():
            ratio = views.compared(record)
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
        handles=[*map(_subject_handle, prices.subjects), *_noise_handle(noise), *_missing_handle(crosses)],
        rows=[(group, _short(price)) for group, rows in prices.groups.items() for price in rows],
        beside=_texts(prices, _range),
        inside=_texts(prices, _why_none),
        crosses=crosses,
    )


def _lanes(records: Iterable[Record]) -> list[Any]:
    """The subjects of a row, each in a lane of its own."""
    return drawing.distinct(record["subject"] for record in sorted(records, key=views.order))


def _short(price: Price) -> str:
    """The option's name without what its group's heading says already."""
    beginnings = (f"{views.option_group(price.option)} + ", "mask, ")
    return next((price.name[len(b) :] for b in beginnings if price.name.startswith(b)), price.name)


def _subject_handle(record: Record):
    return drawing.marker(
        Style(drawing.style(record).colour, "none", drawing.style(record).marker), views.label(record)
    )


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
        for mode in views.modes_of(price.records.values())
    }


def _range(records: Sequence[Record]) -> str:
    """The least and the most that an option costs."""
    known = sorted(ratio.value for record in records if (ratio := views.compared(record)))
    ends = drawing.distinct(formatting.ratio(value) for value in (known[0], known[-1])) if known else []
    return "–".join((*(end.removesuffix("×") for end in ends[:-1]), *ends[-1:]))


def _why_none(records: Sequence[Record]) -> str:
    """Why an option has no price at all."""
    if any(record["status"] == "ok" for record in records):
        return ""
    return ", ".join(drawing.distinct(f"{record['status']}: {record['reason']}" for record in records))


# --- static_dynamic ---


_START = "to trace and compile"


def _static_dynamic(records: Sequence[Record]):
    """What each way to run the loop takes, against timesteps: small multiples, a row a quantity."""
    swept = views.of_sweep(records, "static_dynamic")
    quantities: dict[str, tuple[Callable[[Record], Interval | None], Callable[[float], str]]] = {
        "time of a call": (views.time_of, formatting.seconds),
        _START: (views.start_of, formatting.seconds),
        "operations in the graph": (lambda record: views.exactly(record, "graph_nodes"), formatting.count),
        "peak memory": (lambda record: views.exactly(record, "peak_bytes"), formatting.memory),
    }
    cells = len(drawing.distinct(map(views.family, swept))) > 1
    points = [
        Point(
            row, _column(record, cells), views.series(record), record, float(str(record["timesteps"])), figure
        )
        for row, (figure_of, _) in quantities.items()
        for record in _by_mode(swept)
        if (figure := figure_of(record)) is not None
    ]
    if not points:
        return None
    stopped = [record for record in swept if record["status"] != "ok"]
    figure, panels = grid_chart.draw(
        "Loop or unroll: what each way takes as the sequence grows",
        f"{drawing.where(swept[0], without=('timesteps',))} · median and interquartile range · "
        f"dotted: the {_OLD_LIMIT} steps beyond which the old tutorials say not to unroll",
        points,
        swept,
        grid_chart.Look(
            "timesteps",
            {row: text for row, (_, text) in quantities.items()},
            style=drawing.way_style,
            height=2.1,
        ),
        notes=_stops_in_words(_first_stops(stopped)),
        handles=[drawing.marker(Style(GREY, "none", "x"), "stopped, see below")] if stopped else [],
    )
    for (row, column), axes in panels.items():
        axes.axvline(_OLD_LIMIT, color=GREY, linewidth=1, linestyle=":")
        if row in ("time of a call", _START):
            _mark_stops(axes, [r for r in _first_stops(stopped) if _column(r, cells) == column])
    return figure


def _column(record: Record, with_cell: bool) -> str:
    mode = str(record["mode"])
    return f"{views.family(record)}, {mode}" if with_cell else drawing.MODE_NAMES.get(mode, mode)


def _first_stops(stopped: Iterable[Record]) -> list[Record]:
    """The shortest case of each way and mode that did not run."""
    first: dict[tuple, Record] = {}
    for record in sorted(stopped, key=lambda record: int(str(record["timesteps"]))):
        first.setdefault(views.series(record), record)
    return list(first.values())


def _stops_in_words(stops: Iterable[Record]) -> list[str]:
    """Where each way was stopped, and why; one line for the modes that were for the same reason."""
    alike: dict[tuple[str, str], list[str]] = {}
    for record in stops:
        message = str(record["message"] or "").removeprefix(f"{record['case']}: ")
        key = f"{drawing.series_name(record)}: {record['reason']}", message
        alike.setdefault(key, []).append(f"{record['timesteps']} timesteps ({record['mode']})")
    return [
        f"× {way} at {', '.join(places)}{': ' * bool(message)}{message}"
        for (way, message), places in alike.items()
    ]


def _mark_stops(axes, stops: Sequence[Record]) -> None:
    """Crosses at the upper edge, below each other where they stand at the same timesteps."""
    at: dict[Any, int] = {}
    for record in stops:
        below = at[record["timesteps"]] = at.get(record["timesteps"], -1) + 1
        axes.plot(
            [float(str(record["timesteps"]))],
            [0.96 - 0.07 * below],
            "x",
            color=drawing.way_style(record).colour,
            markersize=6,
            markeredgewidth=1.8,
            transform=axes.get_xaxis_transform(),
            gid=f"stopped {record['case']}",
        )


# --- scaling ---


def _scaling(records: Sequence[Record]):
    """Times against timesteps, a row a mode and width, a column a batch size; the lines are the fits."""
    swept = views.of_sweep(records, fits.SWEEP)
    points = _surface(swept, views.time_of)
    if not points:
        return None
    known = fits.fits(swept)
    poor = [fit for fit in known if fit.is_poor]
    figure, panels = grid_chart.draw(
        "How time grows with batch, timesteps and units",
        f"{_at_features(swept[0])} · points: median time of a call · lines: the fit a + b · timesteps · "
        "all axes logarithmic",
        points,
        swept,
        grid_chart.Look("timesteps", _every_row(points, formatting.seconds), joined=False, height=1.55),
        notes=_poor_words(poor, known),
    )
    for fit in known:
        place = _place(fit.record)
        look = drawing.style(fit.record)
        steps = [float(str(record["timesteps"])) for record in fit.points]
        xs = [steps[0] * (steps[-1] / steps[0]) ** (n / 30) for n in range(31)]
        above = [(x, fit.line.at(x)) for x in xs if fit.line.at(x) > 0]
        panels[place].plot(*zip(*above, strict=True), color=look.colour, linewidth=1.1, linestyle=look.line)
    return figure


def _poor_words(poor: Sequence[fits.Fit], known: Sequence[fits.Fit]) -> list[str]:
    if not poor:
        return [f"All {len(known)} fits are within 10% of their points."] if known else []
    worst = max(poor, key=lambda fit: fit.line.worst)
    place = f"{drawing.series_name(worst.record)}, {worst.record['mode']}, batch {worst.record['batch_size']}"
    return [
        f"{len(poor)} of {len(known)} fits are poor: off by more than 10%, or starting below 0; the worst is "
        f"{place}, {worst.record['units']} units: {worst.line.worst:.0%} at {worst.line.worst_x:.0f} steps."
    ]


def _scaling_memory(records: Sequence[Record]):
    """Peak memory against timesteps, as `scaling` has the times."""
    swept = views.of_sweep(records, fits.SWEEP)
    points = _surface(swept, lambda record: views.exactly(record, "peak_bytes"))
    if not points:
        return None
    figure, _ = grid_chart.draw(
        "How memory grows with batch, timesteps and units",
        f"{_at_features(swept[0])} · peak memory of a case, in a process of its own · all axes logarithmic",
        points,
        swept,
        grid_chart.Look("timesteps", _every_row(points, formatting.memory), height=1.55),
    )
    return figure


def _scaling_fit(records: Sequence[Record]):
    """What a call costs before its first step, and what a step costs, against the batch size."""
    known = fits.fits(records)
    points = [
        Point(row, f"{fit.record['units']} units", views.series(fit.record), fit.record, _batch(fit), figure)
        for fit in known
        for row, figure in _parts(fit)
    ]
    if not points:
        return None
    poor = {id(fit.record) for fit in known if fit.is_poor}
    rows = [f"{mode}\n{part}" for mode in views.modes_of(fit.record for fit in known) for part in _PARTS]
    figure, _ = grid_chart.draw(
        "Overhead of a call and work of a step",
        f"{_at_features(known[0].record)} · a call's time fitted as a + b · timesteps, 95% intervals · "
        "crossed out: poor, and its a not drawn",
        points,
        [],
        grid_chart.Look(
            "batch size",
            dict.fromkeys(rows, formatting.seconds),
            is_faint=lambda point: id(point.record) in poor,
            height=1.75,
        ),
        notes=_poor_words([fit for fit in known if fit.is_poor], known),
    )
    return figure


_PARTS = ("a: before the first step", "b: a step")


def _parts(fit: fits.Fit) -> list[tuple[str, Interval]]:
    """What is drawn of a fit; where a line is not how time grows, where it starts says nothing."""
    rows = [f"{fit.record['mode']}\n{part}" for part in _PARTS]
    drawn = list(zip(rows, (fit.line.start, fit.line.slope), strict=True))
    return drawn[1:] if fit.is_poor else drawn


def _batch(fit: fits.Fit) -> float:
    return float(str(fit.record["batch_size"]))


def _surface(records: Iterable[Record], figure_of: Callable[[Record], Interval | None]) -> list[Point]:
    ordered = sorted(records, key=lambda record: (views.order(record), record["batch_size"]))
    found = [
        Point(*_place(record), views.series(record), record, float(str(record["timesteps"])), figure)
        for record in ordered
        if (figure := figure_of(record)) is not None
    ]
    return sorted(found, key=lambda point: int(str(point.record["batch_size"])))


def _place(record: Record) -> tuple[str, str]:
    return f"{record['mode']}\n{record['units']} units", f"batch {record['batch_size']}"


def _every_row(points: Sequence[Point], text: Callable[[float], str]) -> dict[str, Callable[[float], str]]:
    rows = {point.row: point.record for point in points}
    ordered = sorted(rows, key=lambda row: (str(rows[row]["mode"]), int(str(rows[row]["units"]))))
    return dict.fromkeys(ordered, text)


def _at_features(record: Record) -> str:
    return drawing.where(record, without=("batch_size", "timesteps", "units"))


# --- deepbench, char_shape, peers, fused ---


def _deepbench(records: Sequence[Record]):
    """GFLOP/s at DeepBench's shapes and the share of the peak, a row a shape; what is too large is named."""
    swept = sorted(views.of_sweep(records, "deepbench"), key=_by_size)
    options = drawing.distinct(map(views.options, swept))
    known = [
        Dot(_size(record), views.label(record), record, rate, options.index(views.options(record)))
        for record in swept
        if (rate := views.exactly(record, "gflops_per_s")) is not None
    ]
    shown = {(dot.group, dot.row) for dot in known}
    rows = [row for row in drawing.distinct((views.label(r), _size(r)) for r in swept) if row in shown]
    places: dict[tuple[str, Row], list[Record]] = {}
    for record in (record for record in swept if (views.label(record), _size(record)) in shown):
        places.setdefault((str(record["mode"]), (views.label(record), _size(record))), []).append(record)
    return dot_chart.draw(
        "DeepBench's shapes",
        f"{swept[0]['dtype']} · {swept[0]['device']} · features = units · right: share of the matmul peak"
        if swept
        else "",
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
        if any(record["status"] == "skipped" for record in swept)
        else [],
        beside={place: _shares(of_place) for place, of_place in places.items()},
        inside={place: _why_none(of_place) for place, of_place in places.items()},
    )


def _by_options(record: Record) -> Style:
    """The subject's style, with a marker of its own where it has options."""
    own = drawing.style(record)
    return replace(own, marker=">") if views.options(record) else own


def _options_name(record: Record) -> str:
    return ", ".join(map(views.option_name, views.options(record))) or "input product included"


def _size(record: Record) -> str:
    return f"{record['units']} units · batch {record['batch_size']} · {record['timesteps']} steps"


def _shares(records: Sequence[Record]) -> str:
    """The shares of the peak, those of the records in their order."""
    shares = [record["roofline_fraction"] for record in records]
    return " · ".join(f"{float(str(share)):.0%}" for share in shares if share is not None)


def _char_shape(records: Sequence[Record]):
    """The layers of the character model beside SimpleRNN."""
    swept = sorted(views.of_sweep(records, "char_shape"), key=views.order)
    return beside_baseline("The character model's layer: time relative to SimpleRNN", swept)


def _peers(records: Sequence[Record]):
    """The same cells in other hands, beside the built-in layer, a row a peer, under each shape."""
    swept = sorted(
        views.of_sweep(records, "peers"), key=lambda record: (*views.shape(record), views.order(record))
    )
    known = [
        Dot(drawing.series_name(record), _shape_heading(record), record, ratio)
        for record in swept
        if (ratio := views.compared(record))
    ]
    return dot_chart.draw(
        "The same cells elsewhere: time relative to Keras' built-in layer",
        f"{swept[0]['dtype']} · {swept[0]['device']} · above: batch · timesteps · features · units · same "
        "weights, timed in turns · line: 95% interval"
        if swept
        else "",
        "time / Keras' time: left of 1 is faster",
        known,
        swept,
        dot_chart.Look(row_height=0.19, lane_height=0.09, headings=True, size=5, label_size=8.5),
        rows=drawing.distinct((_shape_heading(record), drawing.series_name(record)) for record in swept),
        inside={
            (str(record["mode"]), (_shape_heading(record), drawing.series_name(record))): _why_none([record])
            for record in swept
        },
    )


def _fused(records: Sequence[Record]):
    """How many times faster the fused layer is than each of its baselines, a row a shape and subject."""
    swept = views.by_shape(
        record for record in views.of_sweep(records, "fused") if record["layer"] == "fused"
    )
    kinds = drawing.distinct(map(views.faster_than, swept))
    known = [
        Dot(
            views.label(record),
            _shape_heading(record),
            record,
            views.inverse(ratio),
            kinds.index(views.faster_than(record)),
        )
        for record in _by_mode(swept)
        if (ratio := views.compared(record))
    ]
    return dot_chart.draw(
        "What the fused layer gains",
        f"{swept[0]['dtype']} · {swept[0]['device']} · batch · timesteps · features · units above · "
        "line: 95% interval"
        if swept
        else "",
        "times faster: right of 1 it gains",
        known,
        swept,
        dot_chart.Look(
            row_height=0.24,
            lane_height=0.16,
            headings=True,
            style=_beside_style,
            size=5,
        ),
        handles=[
            drawing.marker(replace(_beside_style(record), colour=GREY, line="none"), kind)
            for kind, record in {views.faster_than(record): record for record in swept}.items()
        ],
    )


def _beside_style(record: Record) -> Style:
    """The subject's style, by what it is held against: hollow for XLA, the other's marker elsewhere."""
    own = drawing.style(record)
    kind = views.faster_than(record)
    if "XLA" in kind:
        return replace(own, hollow=True)
    if "Keras" in kind:
        return own
    layer = str(record["baseline"]).split("-")[2]
    return replace(own, marker=drawing.style({**record, "layer": layer}).marker)


def _shape_heading(record: Record) -> str:
    return " · ".join(str(size) for size in views.shape(record))


# --- the machine: roofline, queue, memory ---


def _roofline(records: Sequence[Record]):
    """GFLOP/s of each case against the work of one step, below the matmul peak of the process."""
    counted = _one_a_case(r for r in records if r["gflops_per_s"] is not None and r["flops"] is not None)
    if not counted:
        return None
    subjects = {views.label(record): record for record in sorted(counted, key=views.order)}
    figure = drawing.page(
        "How near to the machine's limit",
        f"{counted[0]['device']} · a point a case · a step's work: operations of a call / timesteps · "
        "line: the matmul peak measured in the same process, and a tenth and a hundredth of it",
        drawing.footnotes(counted, counted),
        [*map(_subject_handle, subjects.values()), *drawing.plain_and_xla(counted, "dot")],
        height=4.6,
    )
    panels = drawing.mode_panels(figure, counted, sharex=True, sharey=True)
    for mode, axes in panels.items():
        for record in drawing.of_mode(counted, mode):
            look = drawing.style(record)
            axes.plot(
                [_work_a_step(record)],
                [float(str(record["gflops_per_s"]))],
                look.marker,
                markersize=4.5,
                color=look.colour,
                markerfacecolor=drawing.face(record, look),
                alpha=0.85,
                gid=str(record["case"]),
            )
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
    return float(str(record["flops"])) / int(str(record["timesteps"]))


def _peak_lines(panels: Sequence[Any], counted: Sequence[Record]) -> None:
    """The peak of each dtype, as the share of it says, and its tenth and hundredth."""
    peaks: dict[str, list[float]] = {}
    for record in counted:
        if record["roofline_fraction"] is not None:
            peak = float(str(record["gflops_per_s"])) / float(str(record["roofline_fraction"]))
            peaks.setdefault(str(record["dtype"]), []).append(peak)
    low = panels[0].get_ylim()[0]
    groups = _alike({dtype: median(values) for dtype, values in peaks.items()})
    for dtypes, peak in groups:
        of_dtypes = f", {dtypes}" if len(groups) > 1 else ""
        shares = ((1, f"peak: {formatting.number(peak)} GFLOP/s{of_dtypes}"), (0.1, "10%"), (0.01, "1%"))
        for share, text in shares:
            if peak * share >= low and (share == 1 or "float32" in dtypes.split(", ")):
                _level(panels, peak * share, text, 1.2 if share == 1 else 0.6)
        panels[0].set_ylim(top=max(panels[0].get_ylim()[1], peak * 2))


def _alike(peaks: dict[str, float]) -> list[tuple[str, float]]:
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


def _latency(records: Sequence[Record]):
    """What a queue hides: a call in a queue awaited once / a call that is awaited, where they differ."""
    # a CPU has finished when a call returns: there the two are one figure, and its noise
    waited_for = [record for record in _one_a_case(records) if record["device"] != "cpu"]
    taken = [(record, ratio) for record in waited_for if (ratio := views.queued(record))]
    differ = [pair for pair in taken if abs(math.log(pair[1].value)) > math.log(_ALIKE)]
    most = sorted(differ, key=lambda pair: -abs(math.log(pair[1].value)))[:_MOST_ROWS]
    shown = sorted(most, key=lambda pair: (views.order(pair[0]), str(pair[0]["case"])))
    shapes = len(drawing.distinct(views.shape(record) for record, _ in shown)) > 1
    known = [
        Dot(
            ", ".join((drawing.series_name(record), *([views.short_shape(record)] if shapes else []))),
            views.label(record),
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
        f"{most_of}{len(differ)} of {len(taken)} cases that differ by a quarter or more; no interval",
        "queued / awaited: left of 1 a queue is faster",
        known,
        [dot.record for dot in known],
        dot_chart.Look(row_height=0.24, lane_height=0.1),
        handles=[],
    )


def _memory(records: Sequence[Record]):
    """Peak memory of each case, of the sweeps that have no lines of it."""
    taken = [
        record
        for record in _one_a_case(records)
        if record["peak_bytes"] is not None and record["sweep"] not in ("static_dynamic", "scaling")
    ]
    names = drawing.distinct(map(drawing.series_name, sorted(taken, key=views.order)))
    handles = {drawing.series_name(record): record for record in sorted(taken, key=views.order)}
    known = [
        Dot(_shape_heading(record), "", record, peak, names.index(drawing.series_name(record)))
        for record in sorted(taken, key=lambda record: float(str(record["peak_bytes"])))
        if (peak := views.exactly(record, "peak_bytes"))
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


def _one_a_case(records: Iterable[Record]) -> list[Record]:
    """The first row of each case that is ok: sweeps with several baselines have more."""
    first: dict[Any, Record] = {}
    for record in records:
        if record["status"] == "ok":
            first.setdefault(record["case"], record)
    return list(first.values())


def _by_mode(records: Iterable[Record]) -> list[Record]:
    return sorted(records, key=lambda record: str(record["mode"]))


def _by_size(record: Record) -> tuple:
    return (
        views.order(record),
        drawing.series_name(record),
        record["units"],
        record["batch_size"],
        record["timesteps"],
    )


CHARTS: dict[str, Callable[[Sequence[Record]], Any]] = {
    "price_list": _price_list,
    "static_dynamic": _static_dynamic,
    "scaling": _scaling,
    "scaling_fit": _scaling_fit,
    "scaling_memory": _scaling_memory,
    "deepbench": _deepbench,
    "char_shape": _char_shape,
    "peers": _peers,
    "fused": _fused,
    "roofline": _roofline,
    "latency": _latency,
    "memory": _memory,
}
