"""The blocks that READMEs and results pages take from a run, in Markdown. `BLOCKS` is the one table.

A study's tables are blocks by the names that it gives them; the others are about the run or the columns.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.records.schema import COLUMNS, REASONS
from bench.report.labels import Record
from bench.report.markdown import plain, table
from bench.report.studies import STUDIES, read_by
from bench.report.studies.study import Study, Tables
from bench.report.table import in_markdown


@dataclass(frozen=True)
class Block:
    """A named part of a file.

    Attributes:
        make: makes its text, of the records of a run; of the folder that the file stands in, where it
            `needs_folder`.
        needs_run: whether it shows a run, which its marker names.
    """

    make: Callable[..., str]
    needs_run: bool = True
    needs_folder: bool = False


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


BLOCKS: Mapping[str, Block] = {
    **{name: _of_study(study, tables) for study in STUDIES for name, tables in study.blocks.items()},
    "environment": Block(environment),
    "cases": Block(cases),
    "columns": Block(columns, needs_run=False),
    "reasons": Block(reasons, needs_run=False),
}
