"""Markdown: tables, and texts that it does not take for its own."""

import re
from collections.abc import Iterable, Sequence

NOTHING = "–"  # a table's cell for which the run has no case


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: int = 1) -> str:
    """A Markdown table; the columns from number `right` on are aligned to the right."""
    marks = ["---" if number < right else "---:" for number in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, marks, *rows))


def plain(text: object) -> str:
    """A text whose characters Markdown does not take for its own."""
    return re.sub(r"([\\`*_{}\[\]<>|#~$])", r"\\\1", " ".join(str(text).split()))
