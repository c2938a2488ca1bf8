"""All that the report's page shows of one run."""

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.records.run_folder import StoredRun
from bench.records.schema import Column
from bench.report.charts.drawing import SETTINGS
from bench.report.labels import Record
from bench.report.page import sentences
from bench.report.page.cases import SHOWN, CaseRow, case_rows, columns_of
from bench.report.studies import CHARTS, cost
from bench.report.table import Table


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
class Text:
    """A text that a character model wrote, and what it was given to start with."""

    title: str
    start: str
    rest: str


@dataclass(frozen=True)
class Section:
    """All that the page shows of one run: `brief`, no charts, no prices, and of a case its row alone."""

    anchor: str
    run: StoredRun
    brief: bool
    title: str
    subtitle: str
    sentences: list[str]
    costs: list[Table]
    prices: list[Table]
    charts: list[Chart]
    columns: list[tuple[Column, bool]]
    cases: list[CaseRow]
    not_measured: list[CaseRow]
    texts: list[Text]
    environment: list[tuple[str, str]]


def section(run: StoredRun, anchor: str, brief: bool = False) -> Section:
    """Collects what the page shows of a run; `anchor` begins the ids of what can be linked to."""
    records = run.records
    twice = len({record["case"] for record in records}) < len(records)  # against several baselines
    shown = (*SHOWN, "baseline") if twice else SHOWN
    columns = [column for column in columns_of(records) if not brief or column.name in shown]
    rows = case_rows(records, anchor, columns, brief)
    return Section(
        anchor,
        run,
        brief,
        run.folder.resolve().name,
        _subtitle(records),
        list(sentences.of_run(records)),
        cost.costs(records),
        [] if brief else price_list(records),
        [] if brief else list(charts(records)),
        [(column, column.name in shown) for column in columns],
        rows,
        [case for case in rows if case.record["status"] != "ok"],
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


def price_list(records: Sequence[Record]) -> list[Table]:
    """The price list of the sweep `options`, or else the costs of the options that the run has otherwise."""
    return CHARTS["price_list"].tables(records) or CHARTS["options"].tables(records)


def charts(records: Sequence[Record]) -> Iterator[Chart]:
    """The charts that the records have something for."""
    from matplotlib import rc_context

    with rc_context(SETTINGS):
        for chart in CHARTS.values():
            figure = chart.draw(records)
            if figure is not None:
                title, subtitle = (text.get_text() for text in figure.texts[:2])
                tables = chart.tables(records)
                more = " The figures are in the tables below it." if tables else ""
                yield Chart(
                    chart.question,
                    _data_uri(figure),
                    f"Chart: {title}. {' '.join(subtitle.split())}.{more}",
                    tables,
                )


def _data_uri(figure) -> str:
    """The figure as an SVG that stands in the page's own text; an image runs no scripts and loads nothing."""
    content = io.BytesIO()
    figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(content.getvalue()).decode()}"


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
