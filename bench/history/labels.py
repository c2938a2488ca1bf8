"""Names and figures of a history as people read them: in charts, in Markdown, as names of files."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from bench.history.timeline import LIBRARIES, Point, Run
from bench.records.schema import SHAPE
from bench.records.text import one_line
from bench.report import labels
from bench.report.labels import Record

_LONGEST_NAME = 60


def note(names: Record, at_shape: Record) -> str:
    """A line below a case's name: its baseline, its options, its shape where that is not the usual one."""
    return " · ".join((f"vs {baseline_name(names)}", *_differences(names, at_shape)))


def baseline_name(names: Record) -> str:
    """The name of the case's baseline."""
    if names["case"] == names["baseline"]:
        return "itself (noise)"
    baseline = labels.baseline_label(names)
    if str(names["baseline"]).endswith("-xla") and not names["jit_compile"]:
        baseline += " under XLA"
    return f"plain {baseline}" if baseline == labels.label(names) else baseline


def _differences(names: Record, at_shape: Record) -> Iterator[str]:
    """The case's options, and the dimensions in which its shape is not the usual one."""
    yield from ("XLA" if word == "xla" else labels.option_name(word) for word in labels.options(names))
    pairs = zip(labels.in_words(names).split(" · "), labels.in_words(at_shape).split(" · "), strict=True)
    others = [words for words, usual in pairs if words != usual]
    if len(others) > 1:  # in words they would not fit
        yield labels.short_shape(names, [name for name in SHAPE if names[name] != at_shape[name]])
    else:
        yield from others


def version_changes(points: Sequence[Point]) -> list[int]:
    """The indices of the points whose run had other library versions than the one before."""
    return [
        index
        for index, (before, after) in enumerate(pairwise(points), 1)
        if before.run.versions != after.run.versions
    ]


def changed_versions(before: Run, after: Run) -> str:
    """The libraries whose version changed, with the new version."""
    pairs = zip(LIBRARIES.values(), before.versions, after.versions, strict=True)
    return ", ".join(f"{name} {new}" for name, old, new in pairs if old != new)


def percent(change: float) -> str:
    """A relative change: +15%, −4%, ±0%."""
    text = f"{change:+.0%}"
    return "±0%" if text in ("+0%", "-0%") else text.replace("-", "−")


def slug(text: str) -> str:
    """A text as the name of a file: its letters and digits, and a digest where that is not all of it."""
    if re.fullmatch(r"[a-z0-9_]{1,40}", text):
        return text
    words = re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")[:_LONGEST_NAME].strip("-")
    return f"{words}-{hashlib.sha256(text.encode()).hexdigest()[:8]}".strip("-")


def clean(text: str, longest: int = _LONGEST_NAME) -> str:
    """A text from a record as a line of a chart holds it."""
    visible = one_line(text, None)
    return visible if len(visible) <= longest else visible[: longest - 1] + "…"
