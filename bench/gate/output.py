"""Write verdicts out: for the terminal, as Markdown, as JUnit XML."""

from collections import Counter
from collections.abc import Iterator

from bench.gate.revisions import Key, Side
from bench.gate.verdicts import (
    FASTER,
    INCONCLUSIVE,
    RATIO,
    REMARKS,
    SLOWER,
    WORDS,
    Outcome,
    Verdict,
)
from bench.records.junit import ERROR, FAILURE, SKIPPED, JunitTest, junit
from bench.records.text import counted, one_line
from bench.report import formatting
from bench.report.markdown import plain as markdown_plain
from bench.report.markdown import table as table_of

ALLOWED_INCONCLUSIVE = 0.25
CANNOT_COMPARE = 2


def side_lines(baseline: Side, current: Side) -> Iterator[str]:
    """Says what each side is: its processes, its commit, its versions; and the machine."""
    for side in (baseline, current):
        yield "{:<9} {} of {}, TensorFlow {}, Keras {}".format(
            f"{side.name}:",
            counted(len(side.processes), "process"),
            side.revision or side.fact("commit") or "no commit",
            *side.versions,
        )
    yield f"machine:  {current.fact('machine')}"


def verdict_lines(outcome: Outcome) -> Iterator[str]:
    """Writes a line for each verdict, the worst first, and for each case without one."""
    names = _names(outcome)
    width = max(map(len, names.values()))
    for verdict in outcome.verdicts:
        name, change = f"{names[verdict.key]:<{width}}", f"{_change(verdict):<26}"
        yield f"{verdict.word:<12} {name}  {change}  {_from_to(verdict)}{_aside(verdict.why)}"
    for remark in outcome.remarks:
        yield f"{remark.kind:<12} {names[remark.key]:<{width}}  {remark.why or REMARKS[remark.kind]}"


def _names(outcome: Outcome) -> dict[Key, str]:
    """Names the cases: by their ids, with sweep and baseline where the id alone is not enough."""
    keys = [*(verdict.key for verdict in outcome.verdicts), *(remark.key for remark in outcome.remarks)]
    cases = Counter(case for _, case, _ in keys)
    return {
        key: key[1] if cases[key[1]] == 1 else f"{key[1]} ({key[0]}, against {key[2] or 'nothing'})"
        for key in keys
    }


def _change(verdict: Verdict) -> str:
    """Writes a change with its interval: +15.2% [+13.1%, +17.4%]."""
    value, low, high = (
        f"{factor - 1:+.1%}" if factor < 10 else formatting.ratio(factor)
        for factor in (verdict.change.value, verdict.change.low, verdict.change.high)
    )
    return f"{value} [{low}, {high}]"


def _from_to(verdict: Verdict) -> str:
    """The figure, before and after: ratio 0.71× → 0.82×."""
    write = formatting.ratio if verdict.figure == RATIO else formatting.seconds
    return f"{verdict.figure} {write(verdict.before)} → {write(verdict.after)}"


def _aside(why: str) -> str:
    return f"; {why}" if why else ""


def summary(outcome: Outcome, threshold: float, allowed: float) -> str:
    """Counts the verdicts in one line, and says what they come to."""
    counts = ", ".join(f"{len(outcome.of_word(word))} {word}" for word in WORDS)
    others = [(kind, len(outcome.of_kind(kind))) for kind in REMARKS]
    more = "".join(f", {count} {kind}" for kind, count in others if count)
    return (
        f"{counts}{more}. Threshold {100 * threshold:.3g}%; "
        f"{outcome.share_inconclusive:.0%} inconclusive, allowed {allowed:.0%}. "
        f"{_headline(outcome, allowed)}"
    )


def _headline(outcome: Outcome, allowed: float) -> str:
    if outcome.of_word(SLOWER):
        return "There are slower cases."
    if outcome.of_kind("vanished"):
        return "Cases have vanished."
    if outcome.exit_code(allowed):
        return "Inconclusive: measure more processes, or on a quieter machine."
    return "No case is slower."


def plain(text: object) -> str:
    """Escapes a text for Markdown and for a pull request's page: no links, no mentions."""
    escaped = markdown_plain(one_line(text, None).replace("&", "&amp;"))
    return escaped.replace("@", "&#64;").replace("://", "&#58;//")


def markdown(baseline: Side, current: Side, outcome: Outcome, threshold: float, allowed: float) -> str:
    """Writes the verdicts as a table for a pull request."""
    names = _names(outcome)
    rows = [
        *((v.word, names[v.key], _change(v), _from_to(v), v.why) for v in outcome.verdicts),
        *((r.kind, names[r.key], "", "", r.why or REMARKS[r.kind]) for r in outcome.remarks),
    ]
    header = ("verdict", "case", "change", "figure", "remark")
    written = [(_MARKED.get(word, word), *map(plain, others)) for word, *others in rows]
    table = table_of(header, written, right=len(header))
    sides = "\n".join(f"- {plain(line)}" for line in side_lines(baseline, current))
    return f"**{plain(summary(outcome, threshold, allowed))}**\n\n{sides}\n\n{table}\n"


_MARKED = {word: f"**{word}**" for word in (SLOWER, FASTER)}


def as_junit(outcome: Outcome, allowed: float) -> str:
    """Writes JUnit XML: a slower case fails; an inconclusive one is skipped, or an error of too many."""
    names = _names(outcome)
    too_many = outcome.share_inconclusive > allowed
    ended = {**dict.fromkeys(REMARKS, SKIPPED), SLOWER: FAILURE, "vanished": ERROR}
    ended[INCONCLUSIVE] = ERROR if too_many else SKIPPED
    entries = [
        *((v.key, v.word, f"{v.word}: {_change(v)} {_from_to(v)}{_aside(v.why)}") for v in outcome.verdicts),
        *((r.key, r.kind, f"{r.kind}: {r.why or REMARKS[r.kind]}") for r in outcome.remarks),
    ]
    tests = (
        JunitTest(f"gate.{key[0]}", names[key], message, ended.get(kind, ""))
        for key, kind, message in entries
    )
    return junit("gate", tests)


def refusal_as_junit(cause: str, message: str) -> str:
    """Writes JUnit XML that says why nothing was compared."""
    return junit("gate", [JunitTest("gate", "comparison", message, ERROR, cause)])
