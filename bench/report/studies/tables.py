"""The tables and lines that the READMEs take from a run, in Markdown. `BLOCKS` is the one table.

A block is a function of a run's records; those that need no run (the columns' meaning) get none.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.cases.case import MODES, TASK_MODES
from bench.records.schema import COLUMNS, REASONS
from bench.report import formatting, views
from bench.report.markdown import NOTHING, plain, table
from bench.report.studies import answers
from bench.report.table import Table, in_markdown
from bench.report.views import Record
from bench.timing.intervals import Interval


@dataclass(frozen=True)
class Block:
    """A named part of a README: what makes its text, and what that takes: a run's records, or the folder that
    the README stands in."""

    make: Callable[..., str]
    needs_run: bool = True
    needs_folder: bool = False


def summary(records: Sequence[Record]) -> str:
    """Each subject and mode at the base shape: its time and its ratio to the baseline, plain and XLA."""
    base = views.at_base(records)
    if not base:
        return "The run has no cases."
    found = {(record["mode"], record["subject"], bool(record["jit_compile"])): record for record in base}
    rows = [
        [
            plain(views.label(record)),
            str(record["mode"]),
            plain(_baseline(record)),
            *_time_and_ratio(found.get((record["mode"], record["subject"], False))),
            *_time_and_ratio(found.get((record["mode"], record["subject"], True))),
        ]
        for record in _first_of_each(_by_mode(base), _subject_and_mode)
    ]
    header = ("subject", "mode", "baseline", "time", "ratio", "time, XLA", "ratio, XLA")
    caption = f"At {views.in_words(base[0])}; ratio: time / baseline's time, with its 95% interval."
    return f"{caption}\n\n{table(header, rows, right=3)}"


def options(records: Sequence[Record]) -> str:
    """What each option costs each subject: time with it / time without, at the base shape."""
    costs = views.option_costs(records)
    if not costs:
        return "The run has no options."
    names = list(dict.fromkeys(cost.option for cost in costs))
    found = {(cost.record["subject"], cost.record["mode"], cost.option): cost for cost in costs}
    rows = [
        [
            plain(views.label(record)),
            str(record["mode"]),
            *(
                _ratio(cost.record, cost.cost)
                if (cost := found.get((record["subject"], record["mode"], name)))
                else NOTHING
                for name in names
            ),
        ]
        for record in _first_of_each(_by_mode(cost.record for cost in costs), _subject_and_mode)
    ]
    header = ("subject", "mode", *(f"`{views.option_name(name)}`" for name in names))
    caption = (
        f"At {views.in_words(costs[0].record)}; time with the option / time without, with its 95% interval. "
        "Where the two were timed against one baseline, not each other, it is the quotient of their ratios."
    )
    return f"{caption}\n\n{table(header, rows, right=2)}"


def scaling(records: Sequence[Record]) -> str:
    """Times along each line through the base shape, a table a line."""
    tables = [_line(records, axis) for axis in views.AXES]
    return "\n\n".join(filter(None, tables)) or "The run has one shape."


def _line(records: Sequence[Record], axis: str) -> str:
    line = _by_mode(views.along(records, axis))
    if not line:
        return ""
    points = sorted({int(str(record[axis])) for record in line})
    found = {(views.series(record), record[axis]): record for record in line}
    rows = [
        [
            plain(views.label(record)) + (", XLA" if record["jit_compile"] else ""),
            str(record["mode"]),
            *(_time(found.get((views.series(record), point))) for point in points),
        ]
        for record in _first_of_each(line, views.series)
    ]
    caption = f"Time against {views.AXES[axis]}, at {views.in_words(line[0], without=(axis,))}:"
    header = ("subject", "mode", *(f"{point}" for point in points))
    return f"{caption}\n\n{table(header, rows, right=2)}"


def _answer(make: Callable[[Sequence[Record]], list[Table]], nothing: str) -> Block:
    """A block of tables that the report has too."""
    return Block(lambda records: "\n\n".join(map(in_markdown, make(records))) or nothing)


def tasks(records: Sequence[Record]) -> str:
    """What came of each training task: its time, its rate, its loss."""
    rows = [
        [
            f"`{record['sweep']}`",
            plain(views.label(record)),
            ", ".join(
                (
                    *(f"{record['timesteps']} a call" for _ in range(record["mode"] == "generate")),
                    *_states(record),
                )
            ),
            *(_figure(record, name, write) for name, write in _TASK_FIGURES.items()),
        ]
        for record in records
        if record["mode"] in TASK_MODES
    ]
    header = ("task", "subject", "how", "an epoch", "characters/s", "loss")
    return table(header, rows, right=3) if rows else "The run has no tasks."


_TASK_FIGURES: dict[str, Callable[[float], str]] = {
    "epoch_s": formatting.seconds,
    "characters_per_s": formatting.count,
    "loss": formatting.number,
}


def _states(record: Record) -> list[str]:
    if record["sweep"] == "partial_sum":
        return [f"activation {plain(record['activation'])}"]
    return ["stateful" if record["stateful"] else "stateless"]


def _figure(record: Record, name: str, write: Callable[[float], str]) -> str:
    value = record[name]
    return write(float(value)) if value is not None else _why_not(record)


def environment(records: Sequence[Record]) -> str:
    """One line: the machine, the versions, the commit and the day."""
    if not records:
        return "The run has no records."
    first = records[0]
    parts = [
        plain(first["machine"] or "unknown machine"),
        f"TensorFlow {plain(first['tensorflow'])}",
        f"Keras {plain(first['keras'])}",
        f"commit `{_short(str(first['commit']))}`" if first["commit"] else "no commit",
        str(first["timestamp"] or "")[:10],
    ]
    return " · ".join(filter(None, parts))


def cases(records: Sequence[Record]) -> str:
    """One line: how many cases, how they ended, and how many intervals became narrow enough."""
    statuses = Counter(str(record["status"]) for record in records)
    timed = [record for record in records if record["status"] == "ok" and record["ratio"] is not None]
    converged = sum(record["converged"] is True for record in timed)
    parts = [
        f"{len({record['case'] for record in records})} cases",
        f"{statuses['ok']} ok",
        *(_of_status(records, status) for status in ("skipped", "failed")),
    ]
    if timed:
        parts.append(f"{converged / len(timed):.0%} of the ratios known within ±2%")
    return " · ".join(parts)


def columns(_: Sequence[Record]) -> str:
    """Every column of `records.csv`."""
    rows = [(f"`{column.name}`", column.kind.__name__, _cell(column.meaning)) for column in COLUMNS]
    return table(("column", "kind", "what it says"), rows, right=3)


def reasons(_: Sequence[Record]) -> str:
    """Every `reason` of a row that is not `ok`."""
    rows = [(f"`{name}`", _cell(meaning)) for name, meaning in REASONS.items()]
    return table(("reason", "what it says"), rows, right=2)


def _of_status(records: Sequence[Record], status: str) -> str:
    found = Counter(str(record["reason"]) for record in records if record["status"] == status)
    why = ", ".join(f"`{reason}` {count}" for reason, count in sorted(found.items()))
    return f"{found.total()} {status}" + (f" ({why})" if why else "")


def _time_and_ratio(record: Record | None) -> tuple[str, str]:
    if record is None:
        return NOTHING, NOTHING
    return _time(record), _ratio(record, views.compared(record)) if record["status"] == "ok" else NOTHING


def _time(record: Record | None) -> str:
    if record is None:
        return NOTHING
    time = views.time_of(record)
    return formatting.seconds(time.value) if time else _why_not(record)


def _ratio(record: Record, ratio: Interval | None) -> str:
    if ratio is None:
        return _why_not(record)
    return f"{formatting.ratio(ratio.value)} {formatting.interval(ratio.low, ratio.high)}"


def _why_not(record: Record) -> str:
    return NOTHING if record["status"] == "ok" else f"{record['status']}: `{record['reason']}`"


def _baseline(record: Record) -> str:
    name, baseline = views.label(record), views.baseline_label(record)
    return "itself" if name == baseline else baseline


def _cell(markdown: str) -> str:
    """A text that is Markdown already, in a cell of a table."""
    return markdown.replace("|", r"\|")


def _short(commit: str) -> str:
    """A commit's first digits, still marked where the tree had changes."""
    digits, dash, dirty = commit.partition("-")
    return digits[:12] + dash + dirty


def _by_mode(records: Iterable[Record]) -> list[Record]:
    return sorted(records, key=lambda record: (*MODES, record["mode"]).index(record["mode"]))


def _subject_and_mode(record: Record) -> tuple[object, ...]:
    return record["subject"], record["mode"]


def _first_of_each(records: Iterable[Record], key: Callable[[Record], object]) -> list[Record]:
    first: dict[object, Record] = {}
    for record in records:
        first.setdefault(key(record), record)
    return list(first.values())


BLOCKS: dict[str, Block] = {
    "summary": Block(summary),
    "options": Block(options),
    "scaling": Block(scaling),
    "speed_ups": _answer(answers.speed_ups, "The run has no cases."),
    "fused_costs": _answer(answers.fused_costs, "The run has no case of the sweep `fused`."),
    "price_list": _answer(answers.prices, "The run has no price list: measure the sweep `options`."),
    "static_dynamic": _answer(answers.static_dynamic, "The run has no case of the sweep `static_dynamic`."),
    "break_even": _answer(answers.pays, "The run has no case of the sweep `static_dynamic`."),
    "scaling_fit": _answer(answers.fit_by_batch, "The run has no fit: measure the sweep `scaling`."),
    "deepbench": _answer(answers.deepbench, "The run has no case of the sweep `deepbench`."),
    "char_shape": _answer(answers.char_shape, "The run has no case of the sweep `char_shape`."),
    "peers": _answer(answers.peers, "The run has no case of the sweep `peers`."),
    "roofline": _answer(answers.roofline, "No operations were counted in the run."),
    "latency": _answer(answers.latency, "No calls were queued in the run."),
    "memory": _answer(answers.memory, "The run has no figures of memory."),
    "tasks": Block(tasks),
    "environment": Block(environment),
    "cases": Block(cases),
    "columns": Block(columns, needs_run=False),
    "reasons": Block(reasons, needs_run=False),
}
