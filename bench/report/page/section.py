"""All that the report's page shows of one run."""

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.records.run_folder import StoredRun
from bench.records.schema import Column
from bench.report.charts.drawing import SETTINGS
from bench.report.charts.points import points_of
from bench.report.labels import Record
from bench.report.page import sentences
from bench.report.page.cases import SHOWN, CaseRow, case_rows, columns_of
from bench.report.studies import CHARTS, cost
from bench.report.table import Table

_POINTS_AN_INCH = 72  # of an SVG


@dataclass(frozen=True)
class LinkedPoint:
    """A point of a chart, in points of print from the image's upper left corner, and the case it leads to."""

    x: float
    y: float
    title: str
    anchor: str


@dataclass(frozen=True)
class Chart:
    """A chart as an image that the page holds, the question that it answers, and two alternatives to it.

    Attributes:
        source: a data URI.
        width, height: of the image, points of print.
        points: what can be pointed at in it.
        alternative: what it shows, in words.
        figures: the same as tables, where there are any.
    """

    question: str
    source: str
    width: float
    height: float
    points: list[LinkedPoint]
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
        list(map(_ratios_first, cost.costs(records))),
        [] if brief else price_list(records),
        [] if brief else list(charts(records, rows)),
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


def _ratios_first(table: Table) -> Table:
    """The table with its ratios before its other figures: on a narrow screen they are what can be seen."""
    figures = range(table.names, len(table.header))
    order = [*range(table.names), *sorted(figures, key=lambda column: "ratio" not in table.header[column])]
    return replace(
        table,
        header=tuple(table.header[column] for column in order),
        rows=[[row[column] for column in order] for row in table.rows],
    )


def charts(records: Sequence[Record], rows: Sequence[CaseRow] = ()) -> Iterator[Chart]:
    """The charts that the records have something for; their points lead to the rows of their cases."""
    from matplotlib import rc_context

    of_case = {_key(row.record): row for row in reversed(rows)}
    with rc_context(SETTINGS):
        for chart in CHARTS.values():
            figure = chart.draw(records)
            if figure is not None:
                title, subtitle = (text.get_text() for text in figure.texts[:2])
                tables = chart.tables(records)
                more = " The figures are in the tables below it." if tables else ""
                width, height = (round(float(size) * _POINTS_AN_INCH, 1) for size in figure.get_size_inches())
                yield Chart(
                    chart.question,
                    _data_uri(figure),
                    width,
                    height,
                    list(_linked(figure, of_case)),
                    f"Chart: {title}. {' '.join(subtitle.split())}.{more}",
                    tables,
                )


def _key(record: Record) -> tuple:
    return record["sweep"], record["case"], record["baseline"]


def _linked(figure, of_case: Mapping[tuple, CaseRow]) -> Iterator[LinkedPoint]:
    """The figure's points, once it is drawn, whose cases have a row."""
    width, height = figure.get_size_inches() * _POINTS_AN_INCH
    for point in points_of(figure):
        if row := of_case.get(_key(point.record)):
            title = " ".join([f"{row.record['case']}:", *row.sentences[:1]])
            yield LinkedPoint(round(point.x * width, 1), round(point.y * height, 1), title, row.anchor)


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
