"""The blocks that READMEs and results pages take from a run, in Markdown. `BLOCKS` is the one table.

A study's tables are blocks by the names that it gives them; the others are about the run or the columns.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from bench.cases.subjects import SUBJECTS
from bench.cases.sweeps import SWEEPS
from bench.records.schema import COLUMNS, REASONS
from bench.records.text import counted
from bench.report.labels import Record
from bench.report.markdown import NOTHING, plain, table
from bench.report.page.cluster import scheduling
from bench.report.page.two_runs import agreement
from bench.report.quantities import precision_in_words
from bench.report.studies import CHARTS, STUDIES, read_by
from bench.report.studies.study import Chart, Study, Tables
from bench.report.summary import summary_lines
from bench.report.table import in_markdown

CHARTS_FOLDER = "charts"  # within a run's folder


@dataclass(frozen=True)
class Block:
    """A named part of a file.

    Attributes:
        make: makes its text, of what it `takes`.
        takes: `run`, the records of the run that its marker names; `runs`, those of each of two; `picture`,
            the run's folder as the file sees it; `folder`, the folder that the file stands in; or `nothing`.
    """

    make: Callable[..., str]
    takes: str = "run"

    @property
    def needs_run(self) -> bool:
        """True where it shows a run, which its marker names."""
        return self.takes in ("run", "runs", "picture")


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
    """One line: how many cases, how they ended, and how well their ratios are known."""
    statuses = Counter(record["status"] for record in records)
    count = len({record["case"] for record in records})
    parts = [
        counted(count, "case") + (f" in {counted(len(records), 'row')}" if len(records) > count else ""),
        f"{statuses['ok']} ok",
        *(_of_status(records, status) for status in ("skipped", "failed")),
        precision_in_words(records),
    ]
    return " · ".join(filter(None, parts))


def printed(records: Sequence[Record]) -> str:
    """Quotes what the run printed at its end, of the LSTM and the simplified LSTM at the base shape alone."""
    lines = summary_lines(records, {name: subject.label for name, subject in SUBJECTS.items()})
    groups = accumulate(line.startswith("at ") for line in lines)
    kept = [line if _is_quoted(line, group) else "  …" for line, group in zip(lines, groups, strict=True)]
    text = "\n".join(line for line, _ in groupby(kept))
    return f"```text\n{text}\n```"


def _is_quoted(line: str, group: int) -> bool:
    if line.startswith("at "):
        return group == 1
    return not line.startswith("  ") or (group == 1 and "lstm in " in line)


def columns() -> str:
    """Every column of `records.csv`."""
    rows = [(f"`{column.name}`", column.kind.__name__, _cell(column.meaning)) for column in COLUMNS]
    return table(("column", "kind", "what it says"), rows, right=3)


def sweeps() -> str:
    """Every sweep: what it answers, and whether a user's cell joins it."""
    rows = [
        (
            f"`{name}`",
            _cell(sweep.question),
            "yes" if any(grid.user_cells for grid in sweep.grids) else NOTHING,
            "yes" if sweep.memory else NOTHING,
        )
        for name, sweep in SWEEPS.items()
    ]
    return table(("sweep", "what it answers", "`--cell` joins", "measures memory"), rows, right=4)


def reasons() -> str:
    """Every `reason` of a row that is not `ok`."""
    rows = [(f"`{name}`", _cell(meaning)) for name, meaning in REASONS.items()]
    return table(("reason", "what it says"), rows, right=2)


def _of_status(records: Iterable[Record], status: str) -> str:
    found = Counter(str(record["reason"]) for record in records if record["status"] == status)
    why = ", ".join(f"`{reason}` {count}" for reason, count in sorted(found.items()))
    return f"{found.total()} {status}" + (f" ({why})" if why else "")


def _cell(markdown: str) -> str:
    """A text that is Markdown already, in a cell of a table."""
    return markdown.replace("|", r"\|")


def _short(commit: str) -> str:
    """A commit's first digits, still marked where the tree had changes."""
    digits, dash, dirty = commit.partition("-")
    return digits[:12] + dash + dirty


def _of_study(study: Study, tables: Tables) -> Block:
    return Block(
        lambda records: "\n\n".join(map(in_markdown, tables(read_by(study, records)))) or study.without
    )


def _agreement(before: Sequence[Record], after: Sequence[Record]) -> str:
    """How far two runs of the same cases agree."""
    return "\n\n".join(map(in_markdown, agreement(before, after))) or "The runs have no case in common."


def _picture(chart: Chart) -> Block:
    """A chart of a run, under its question."""
    return Block(lambda run: f"![{chart.question}]({run}/{CHARTS_FOLDER}/{chart.name}.png)", "picture")


BLOCKS: Mapping[str, Block] = {
    **{name: _of_study(study, tables) for study in STUDIES for name, tables in study.blocks.items()},
    **{f"chart:{name}": _picture(chart) for name, chart in CHARTS.items()},
    "environment": Block(environment),
    "cases": Block(cases),
    "printed": Block(printed),
    "agreement": Block(_agreement, "runs"),
    "cluster": Block(scheduling, "folder"),
    "sweeps": Block(sweeps, "nothing"),
    "columns": Block(columns, "nothing"),
    "reasons": Block(reasons, "nothing"),
}
