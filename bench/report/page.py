"""What the report's page shows of a run, from its records alone: words, tables, charts, cases.

Values only, as texts; how they look is said in `templates/`, where everything is escaped.
"""

import base64
import io
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.cases.case import MODES, TASK_MODES
from bench.cases.subjects import SUBJECTS
from bench.cases.sweeps import SWEEPS
from bench.records.run_folder import StoredRun
from bench.records.schema import COLUMNS, Column, Value
from bench.report import formatting, table, views
from bench.report.markdown import NOTHING
from bench.report.studies.answers import ANSWERS
from bench.report.table import Cell, Table, ratio_text
from bench.report.views import Record

_MODE_NAMES = {"infer": "forward", "train": "forward and gradients"}
_QUESTIONS = {
    "ratio": "What does each cell cost beside the built-in layer it stands for?",
    "time": "How long does a call take?",
    "throughput": "How many sequences a second?",
    "options": "What does each option cost?",
    "price_list": "What does leaving the default cost?",
    "fused": "What does the fused layer gain?",
    "static_dynamic": "Loop or unroll, and when does compiling pay?",
    "char_shape": "Is the LSTM faster than SimpleRNN at the character model's shape?",
    "peers": "What do the same cells cost elsewhere?",
    "deepbench": "What rate does a layer reach at DeepBench's shapes?",
    "timesteps": "How does time grow with the timesteps?",
    "batch_size": "How does time grow with the batch?",
    "units": "How does time grow with the units?",
    "scaling": "How does time grow with batch, timesteps and units?",
    "scaling_fit": "What does a call cost before its first step, and what does a step cost?",
    "scaling_memory": "How does memory grow?",
    "roofline": "How near is each case to the machine's limit?",
    "latency": "What does a queue of calls hide?",
    "memory": "How much memory does a case take?",
}
# of the table of cases; the others can be switched on
_SHOWN = (
    *("mode", "batch_size", "timesteps", "units", "status"),
    *("median_s", "ratio", "ratio_low", "ratio_high", "kernel", "compile_s", "epoch_s", "characters_per_s"),
)
_OF_THE_RUN = ("run_id", "commit", "machine", "device", "backend", "tensorflow", "keras")  # not of a case


@dataclass(frozen=True)
class Chart:
    """A chart as an image that the page holds, the question that it answers, and two alternatives to it.

    Attributes:
        source: a data URI.
        alternative: what it shows, in words.
        figures: the same as tables, where there are any.
    """

    question: str
    source: str
    alternative: str
    figures: list[Table]


@dataclass(frozen=True)
class CaseRow:
    """A record in the table of cases, and all that is known of it."""

    anchor: str
    record: Record
    cells: list[Cell]
    command: str
    remark: str
    sentences: list[str]
    facts: list[tuple[Column, str]]
    baseline_anchor: str | None


@dataclass(frozen=True)
class Text:
    """A text that a character model wrote, and what it was given to start with."""

    title: str
    start: str
    rest: str


@dataclass(frozen=True)
class Section:
    """All that the page shows of one run."""

    anchor: str
    run: StoredRun
    title: str
    subtitle: str
    sentences: list[str]
    costs: Table | None
    prices: list[Table]
    charts: list[Chart]
    columns: list[tuple[Column, bool]]
    cases: list[CaseRow]
    not_measured: list[CaseRow]
    texts: list[Text]
    environment: list[tuple[str, str]]


def section(run: StoredRun, anchor: str) -> Section:
    """What the page shows of a run; `anchor` begins the ids of what can be linked to."""
    records = run.records
    columns = _columns(records)
    twice = len({record["case"] for record in records}) < len(records)  # against several baselines
    shown = (*_SHOWN, "baseline") if twice else _SHOWN
    cases = _case_rows(records, anchor, columns)
    return Section(
        anchor,
        run,
        run.folder.resolve().name,
        _subtitle(records),
        list(sentences(records)),
        costs(records),
        price_list(records),
        list(charts(records)),
        [(column, column.name in shown) for column in columns],
        cases,
        [case for case in cases if case.record["status"] != "ok"],
        list(texts(run.tasks)),
        list(_flat(run.environment)),
    )


def _subtitle(records: Sequence[Record]) -> str:
    if not records:
        return "no records"
    first = records[0]
    parts = (
        first["machine"],
        first["device"],
        f"TensorFlow {first['tensorflow']}",
        f"Keras {first['keras']}",
    )
    day = str(first["timestamp"] or "").partition("T")[0]
    return " · ".join(str(part) for part in (*parts, day) if part)


# --- the summary in words ---


def sentences(records: Sequence[Record]) -> Iterator[str]:
    """The run in a few sentences: how many cases, who is fast and slow, XLA, options, training tasks."""
    yield _counts(records)
    base = [record for record in views.at_base(records) if record["ratio"] is not None]
    if base:
        yield f"What follows is at {views.in_words(base[0])}; a ratio above 1 is slower than the baseline."
    yield from (_extremes(base, mode) for mode in MODES if _rivals(base, mode))
    yield from _noise(base)
    yield from _xla(base)
    yield from _options(records)
    yield from map(_task, filter(_task_figures, records))


def _counts(records: Sequence[Record]) -> str:
    statuses = Counter(str(record["status"]) for record in records)
    missing = ", ".join(views.counted_reasons(record for record in records if record["status"] != "ok"))
    ratios = [record for record in records if record["ratio"] is not None]
    known = sum(record["converged"] is True for record in ratios)
    parts = [f"{len(records)} rows: {statuses['ok']} ok", missing or "none skipped or failed"]
    within = f" {known} of {len(ratios)} ratios are known within ±2%." if ratios else ""
    return f"{', '.join(parts)}.{within}"


def _rivals(base: Iterable[Record], mode: str) -> list[Record]:
    """The plain records of a mode that are compared with another subject, fastest first."""
    rivals = [
        record
        for record in base
        if record["mode"] == mode and not views.options(record) and not _against_itself(record)
    ]
    return sorted(rivals, key=lambda record: views.ratio_of(record).value)


def _against_itself(record: Record) -> bool:
    return record["baseline"] == record["case"]


def _extremes(base: Iterable[Record], mode: str) -> str:
    rivals = _rivals(base, mode)
    name = f"{mode.capitalize()} ({_MODE_NAMES[mode]})"
    if len(rivals) == 1:
        return f"{name}: {_beside_baseline(rivals[0])}."
    fastest, slowest = rivals[0], rivals[-1]
    return f"{name}: fastest is {_beside_baseline(fastest)}; slowest is {_beside_baseline(slowest)}."


def _beside_baseline(record: Record) -> str:
    ratio = views.ratio_of(record)
    return f"{views.label(record)} at {ratio_text(ratio)} of {views.baseline_label(record)}"


def _noise(base: Iterable[Record]) -> Iterator[str]:
    noise = [views.ratio_of(record).value for record in base if _against_itself(record)]
    if noise:
        between = f"{formatting.ratio(min(noise))} and {formatting.ratio(max(noise))}"
        yield f"Noise of this run: built-ins against a second instance of themselves lie between {between}."


def _xla(base: Sequence[Record]) -> Iterator[str]:
    prices = sorted(((price, record) for record in base if (price := _xla_price(record, base))), key=_first)
    if prices:
        ends = [f"{formatting.ratio(price)} ({_who(record)})" for price, record in (prices[0], prices[-1])]
        yield f"XLA takes {' to '.join(dict.fromkeys(ends))} of the plain time."


def _xla_price(record: Record, base: Iterable[Record]) -> float | None:
    """Time under XLA / time without: the pair's ratio where they were timed in turns, else the quotient."""
    if views.options(record):
        return None
    compiled = next((other for other in base if other["case"] == f"{record['case']}-xla"), None)
    if compiled and compiled["baseline"] == record["case"]:
        return views.ratio_of(compiled).value
    times = [views.time_of(each) if each else None for each in (compiled, record)]
    return times[0].value / times[1].value if times[0] and times[1] else None


def _options(records: Sequence[Record]) -> Iterator[str]:
    known = sorted(
        ((cost.cost.value, cost) for cost in views.option_costs(records) if cost.cost is not None), key=_first
    )
    if known:
        least, most = known[0][1], known[-1][1]
        yield f"Options: the least time takes {_option(least)}; the most, {_option(most)}."


def _option(cost: views.OptionCost) -> str:
    price = f" at {ratio_text(cost.cost)} of the time without" if cost.cost else ""
    return f"{views.option_name(cost.option)} for {_who(cost.record)},{price}"


def _task_figures(record: Record) -> list[str]:
    texts: Mapping[str, Callable[[float], str]] = {
        "epoch_s": lambda value: f"{formatting.seconds(value)} an epoch",
        "characters_per_s": lambda value: f"{formatting.count(value)} characters a second",
        "loss": lambda value: f"loss {formatting.number(value)}",
    }
    return [text(float(value)) for name, text in texts.items() if (value := record[name]) is not None]


def _task(record: Record) -> str:
    calls = [f"{record['timesteps']} steps a call"] if record["mode"] == "generate" else []
    named = ", ".join((views.label(record), str(record["mode"]), *calls, *views.options(record)))
    return f"{record['sweep']}: {named}: {', '.join(_task_figures(record))}."


def _who(record: Record) -> str:
    return f"{views.label(record)}, {record['mode']}"


def _first(pair: tuple[float, object]) -> float:
    return pair[0]


# --- tables ---


def costs(records: Sequence[Record]) -> Table | None:
    """Each subject and mode at the base shape: its time and its ratio to the baseline, plain and XLA."""
    base = views.at_base(records)
    found = {(record["subject"], record["mode"], bool(record["jit_compile"])): record for record in base}
    rows = []
    for mode, subject in dict.fromkeys((str(record["mode"]), record["subject"]) for record in _by_mode(base)):
        pair = [found.get((subject, mode, xla)) for xla in (False, True)]
        first = next(record for record in pair if record)
        against = views.against(first) if first["baseline"] else NOTHING
        names = [Cell(views.label(first)), Cell(mode), Cell(against)]
        rows.append(
            [*names, *(cell for record in pair for cell in (table.time(record), _ratio_cell(record)))]
        )
    if not rows:
        return None
    header = ("subject", "mode", "baseline", "time", "ratio", "time, XLA", "ratio, XLA")
    caption = f"At {views.in_words(base[0])}. Ratio: time / baseline's time, with its 95% interval."
    return Table(caption, header, rows, names=3)


def prices(records: Sequence[Record]) -> Table | None:
    """What each option costs each subject: time with it / time without, at the base shape."""
    known = views.option_costs(records)
    base = views.at_base(records)
    plain = [record for record in base if not views.options(record)]
    compiled = {record["case"]: price for record in plain if (price := _xla_price(record, base))}
    options = list(dict.fromkeys(cost.option for cost in known))
    found = {(cost.record["subject"], cost.record["mode"], cost.option): cost for cost in known}
    rows = [
        [
            Cell(views.label(record)),
            Cell(str(record["mode"])),
            *([_unpaired(compiled.get(record["case"]))] if compiled else []),
            *(_price(found.get((record["subject"], record["mode"], option))) for option in options),
        ]
        for record in _by_mode(plain)
        if record["case"] in compiled or any((record["subject"], record["mode"], o) in found for o in options)
    ]
    if not rows:
        return None
    header = ("subject", "mode", *(["XLA"] if compiled else []), *map(views.option_name, options))
    caption = f"At {views.in_words(plain[0])}. Time with the option / time without, with its 95% interval."
    note = " ≈: the two were not timed in turns, and have no interval." if compiled else ""
    return Table(caption + note, header, rows, names=2)


def price_list(records: Sequence[Record]) -> list[Table]:
    """The price list of the sweep `options`, or else the prices of the options that the run has otherwise."""
    others = prices(views.of_any_sweep(records))
    return ANSWERS["price_list"](records) or ([others] if others else [])


def _price(cost: views.OptionCost | None) -> Cell:
    if cost is None:
        return Cell(NOTHING)
    return table.interval(cost.cost) if cost.cost else table.why_not(cost.record)


def _unpaired(price: float | None) -> Cell:
    return Cell(f"≈ {formatting.ratio(price)}", price) if price else Cell(NOTHING)


def _at_base(records: Sequence[Record], figure: Callable[[Record], Cell]) -> Table:
    """A figure of each subject at the base shape, a column a mode, plain and XLA."""
    base = views.at_base(records)
    kinds = dict.fromkeys((str(record["mode"]), bool(record["jit_compile"])) for record in _by_mode(base))
    found = {(record["subject"], str(record["mode"]), bool(record["jit_compile"])): record for record in base}
    subjects = {record["subject"]: views.label(record) for record in base}
    rows = [
        [Cell(label), *(_or_nothing(found.get((subject, *kind)), figure) for kind in kinds)]
        for subject, label in subjects.items()
    ]
    header = ("subject", *(mode + (", XLA" if xla else "") for mode, xla in kinds))
    return Table(f"At {views.in_words(base[0])}.", header, rows)


def _along(records: Sequence[Record], axis: str) -> Table:
    """The times of each subject along one dimension of the shape."""
    line = _by_mode(views.along(records, axis))
    points = sorted({int(str(record[axis])) for record in line})
    found = {(views.series(record), record[axis]): record for record in line}
    names = {views.series(record): record for record in line}
    rows = [
        [
            Cell(views.label(record) + (", XLA" if record["jit_compile"] else "")),
            Cell(str(record["mode"])),
            *(table.time(found.get((series, point))) for point in points),
        ]
        for series, record in names.items()
    ]
    caption = f"Time of a call, by {views.AXES[axis]}, at {views.in_words(line[0], without=(axis,))}."
    return Table(caption, ("subject", "mode", *map(str, points)), rows, names=2)


def _by_mode(records: Iterable[Record]) -> list[Record]:
    known = (*MODES, *TASK_MODES)
    return sorted(records, key=lambda record: (*known, record["mode"]).index(record["mode"]))


def _or_nothing(record: Record | None, figure: Callable[[Record], Cell]) -> Cell:
    return Cell(NOTHING) if record is None else figure(record)


def _throughput(record: Record) -> Cell:
    return table.figure(record, views.throughput_of, formatting.count)


def _ratio_cell(record: Record | None) -> Cell:
    """The ratio to the baseline; nothing where there is none, as the time beside it says why."""
    ratio = views.compared(record) if record else None
    return table.interval(ratio) if ratio else Cell(NOTHING)


# --- charts ---


def charts(records: Sequence[Record]) -> Iterator[Chart]:
    """The charts that the records have something for, those whose question is known first."""
    from matplotlib import rc_context

    from bench.report.charts.run_charts import CHARTS, SETTINGS

    with rc_context(SETTINGS):
        for name in sorted(CHARTS, key=lambda name: [*_QUESTIONS, name].index(name)):
            figure = CHARTS[name](records)
            if figure is not None:
                title, subtitle = (text.get_text() for text in figure.texts[:2])
                tables = _chart_figures(name, records)
                more = " The figures are in the tables below it." if tables else ""
                yield Chart(
                    _QUESTIONS.get(name, title),
                    _data_uri(figure),
                    f"Chart: {title}. {' '.join(subtitle.split())}.{more}",
                    tables,
                )


def _data_uri(figure) -> str:
    """The figure as an SVG that stands in the page's own text; an image runs no scripts and loads nothing."""
    content = io.BytesIO()
    figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(content.getvalue()).decode()}"


def _chart_figures(name: str, records: Sequence[Record]) -> list[Table]:
    """What a chart shows, as tables."""
    if name in ANSWERS:
        return ANSWERS[name](records)
    others = views.of_any_sweep(records)
    if name in views.AXES:
        return [_along(others, name)]
    make: dict[str, Callable[[], Table | None]] = {
        "time": lambda: _at_base(others, table.time),
        "throughput": lambda: _at_base(others, _throughput),
        "ratio": lambda: _at_base(others, _ratio_cell),
        "options": lambda: prices(others),
    }
    made = make[name]() if name in make else None
    return [made] if made else []


# --- cases ---


def command(record: Record) -> str:
    """The command that measures the record's case alone."""
    sweep = SWEEPS.get(str(record["sweep"]))
    full_size = sweep.full.items() if sweep else ()
    full = bool(full_size) and all(record[name] == value for name, value in full_size)
    in_checkout = record["commit"] is not None
    start = ["pytest", "--benchmark-only"] if in_checkout else ["python", "-m", "bench", "run"]
    options = [*(["--full"] if full else []), f"--sweep={record['sweep']}", f"--case={record['case']}"]
    return shlex.join([*start, *options])


def _remark(record: Record) -> str:
    """What the command needs beside itself."""
    if record["sweep"] not in SWEEPS:
        return "No sweep of that name is declared: `python -m bench advise --measure` makes one for a shape."
    if record["subject"] not in SUBJECTS:
        return "Somebody's own cell: add the --cell that brought it."
    return ""


def _columns(records: Sequence[Record]) -> list[Column]:
    """The columns of the table of cases, its link aside: those whose values are not all the same."""
    shown = [*_SHOWN, *(column.name for column in COLUMNS if column.name not in _SHOWN)]
    by_name = {column.name: column for column in COLUMNS if column.name != "case"}
    varied = [name for name in shown if name in by_name and _varies(records, name)]
    always = {"status", "median_s", "ratio"}
    return [by_name[name] for name in shown if name in varied or name in always]


def _varies(records: Sequence[Record], name: str) -> bool:
    return len({record[name] for record in records}) > 1


def _case_rows(records: Sequence[Record], anchor: str, columns: Sequence[Column]) -> list[CaseRow]:
    anchors: dict[Value, str] = {}
    for number, record in enumerate(records, 1):
        anchors.setdefault(record["case"], f"{anchor}-case-{number}")
    return [
        CaseRow(
            f"{anchor}-case-{number}",
            record,
            [Cell(value_text(column, record[column.name]), record[column.name]) for column in columns],
            command(record),
            _remark(record),
            list(_in_sentences(record)),
            list(_facts(record)),
            anchors.get(record["baseline"]),
        )
        for number, record in enumerate(records, 1)
    ]


def _in_sentences(record: Record) -> Iterator[str]:
    """A record in words: its figures, its kernel and its proof, or why there are none."""
    if record["status"] != "ok":
        yield ": ".join(str(part) for part in (record["status"], record["reason"], record["message"]) if part)
    if (time := views.time_of(record)) and record["ratio"] is not None:
        name, baseline = views.label(record), views.baseline_label(record)
        beside = f"a second {name}" if _against_itself(record) else baseline
        ratio = ratio_text(views.ratio_of(record))
        yield f"{name}: {formatting.seconds(time.value)} a call, {ratio} the time of {beside}."
    if figures := _task_figures(record):
        yield f"{', '.join(figures)}."
    if record["kernel"]:
        yield f"Kernel: {record['kernel']}{', compiled by XLA' if record['xla'] else ''}."
    if record["max_abs_error"] is not None and record["tolerance"] is not None:
        seen, allowed = (f"{record[name]:.2g}" for name in ("max_abs_error", "tolerance"))
        yield f"Proof ({record['proof']}): the largest error seen is {seen}, allowed is {allowed}."


def _facts(record: Record) -> Iterator[tuple[Column, str]]:
    for column in COLUMNS:
        if column.name not in _OF_THE_RUN and (value := record[column.name]) is not None:
            yield column, value_text(column, value)


def value_text(column: Column, value: Value) -> str:
    """A value of a record as people read it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, (int, float)):
        return value
    if column.name.endswith("_s") and not column.name.endswith("_per_s"):
        return formatting.seconds(value)
    if column.name.startswith("ratio"):
        return formatting.ratio(value)
    if column.name.endswith("_bytes"):
        return formatting.memory(value)
    if column.name.endswith("_per_s") or column.name == "flops":
        return formatting.count(value)
    if column.kind is int:
        return str(value)
    return formatting.number(value) if value == 0 or abs(value) >= 1e-3 else f"{value:.2e}"


# --- texts and environment ---


def texts(tasks: Iterable[Mapping[str, Any]]) -> Iterator[Text]:
    """The texts that the run's character models wrote."""
    for task in tasks:
        written = task.get("texts")
        start = str(task.get("start", ""))
        for number, text in enumerate(written if isinstance(written, list) else [], 1):
            title = f"{task.get('sweep')}: {task.get('case')}, text {number}"
            text = str(text)
            yield Text(title, start if text.startswith(start) else "", text.removeprefix(start))


def _flat(environment: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, str]]:
    """The environment as names and values, `machine.cores`."""
    for name, value in environment.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{within}{name}.")
        elif value not in (None, [], ""):
            listed = value if isinstance(value, list) else [value]
            yield f"{within}{name}", ", ".join(map(str, listed))
