"""`python -m bench gate`: did a change make it slower? One verdict a case, and an exit code.

Reads records only. The baseline is what `--baseline` names, or the one pinned for this machine with
`--accept`; never whatever was measured last.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from bench import human, tables
from bench.records import ENVIRONMENT_FILE, RECORDS_FILE
from bench.sides import CannotCompare, Key, Side, read_side
from bench.verdicts import (
    FASTER,
    INCONCLUSIVE,
    RATIO,
    REMARKS,
    SLOWER,
    THRESHOLD,
    WORDS,
    Outcome,
    Verdict,
    check_side,
    compare,
)

PINNED = Path("results/baselines")
ALLOWED_INCONCLUSIVE = 0.25
CANNOT_COMPARE = 2
_EXIT_CODES = (
    "exit codes: 0, no case is slower; 1, a case is slower; 2, the sides cannot be compared, and why; 3, "
    "more cases are inconclusive than allowed, or a case has vanished"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.epilog = _EXIT_CODES
    runs = "runs' folders, CSVs, or folders of runs, one process each"
    parser.add_argument(
        "--baseline", nargs="+", type=Path, metavar="PATH", help=f"{runs} (default: the one pinned)"
    )
    parser.add_argument("--current", nargs="+", type=Path, metavar="PATH", required=True, help=runs)
    parser.add_argument(
        "--threshold",
        type=share,
        default=THRESHOLD,
        metavar="SHARE",
        help="the change that matters, as 5%% or 0.05 (default: 5%%)",
    )
    parser.add_argument(
        "--allow-inconclusive",
        type=share,
        default=ALLOWED_INCONCLUSIVE,
        metavar="SHARE",
        help=f"the share of cases that may be inconclusive (default: {ALLOWED_INCONCLUSIVE:.0%})".replace(
            "%", "%%"
        ),
    )
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a table for a pull request")
    parser.add_argument(
        "--pinned",
        type=Path,
        default=PINNED,
        metavar="DIR",
        help=f"where the pinned baselines are, a folder a machine (default: {PINNED})",
    )
    parser.add_argument(
        "--accept",
        action="store_true",
        help="pin the current side as the machine's baseline, and say what changed",
    )


def share(text: str) -> float:
    """A share as people write it, 5% or 0.05; raises argparse.ArgumentTypeError."""
    number = text.strip().removesuffix("%")
    try:
        value = float(number) / (100 if number != text.strip() else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a share, as 5% or 0.05")
    return value


def main(args: argparse.Namespace) -> int:
    """Compares, or pins; returns the exit code."""
    try:
        return _accept(args) if args.accept else _gate(args)
    except CannotCompare as error:
        message = clean(error)
        print(f"cannot compare: {message}", file=sys.stderr)
        return _refused(args, error.cause, message)


def _gate(args: argparse.Namespace) -> int:
    current = read_side("current", args.current)
    baseline = read_side("baseline", args.baseline or [_pinned(args.pinned, current)])
    outcome = compare(baseline, current, args.threshold)
    code = outcome.exit_code(args.allow_inconclusive)
    for line in (*_side_lines(baseline, current), "", *_verdict_lines(outcome), "", _summary(outcome, args)):
        print(clean(line))
    _write(args.markdown, _markdown(baseline, current, outcome, args))
    _write(args.junit, _junit(outcome, args.allow_inconclusive))
    return code


def _refused(args: argparse.Namespace, cause: str, message: str) -> int:
    """Says in the files too that nothing was compared."""
    suite = ElementTree.Element("testsuite", name="gate", tests="1", failures="0", errors="1", skipped="0")
    case = ElementTree.SubElement(suite, "testcase", classname="gate", name="comparison")
    ElementTree.SubElement(case, "error", type=cause, message=message)
    try:
        _write(args.junit, _document(suite))
        _write(args.markdown, f"**Cannot compare**: {_plain(message)}\n")
    except CannotCompare:
        pass  # is what it was refused for, or as bad
    return CANNOT_COMPARE


def _write(file: Path | None, text: str) -> None:
    if file is None:
        return
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise CannotCompare("cannot write", str(error)) from error


# --- what is printed ---


def clean(text: object) -> str:
    """The text without characters that a terminal or XML would take amiss: names are somebody's input."""
    return "".join(character if character.isprintable() else "\ufffd" for character in str(text))


def _side_lines(baseline: Side, current: Side) -> Iterator[str]:
    for side in (baseline, current):
        yield "{:<9} {} processes of {}, TensorFlow {}, Keras {}".format(
            f"{side.name}:", len(side.processes), side.fact("commit") or "no commit", *side.versions
        )
    yield f"machine:  {current.fact('machine')}"


def _verdict_lines(outcome: Outcome) -> Iterator[str]:
    names = _names(outcome)
    width = max(map(len, names.values()))
    for verdict in outcome.verdicts:
        name, change = f"{names[verdict.key]:<{width}}", f"{_change(verdict):<26}"
        yield f"{verdict.word:<12} {name}  {change}  {_from_to(verdict)}{_aside(verdict.why)}"
    for remark in outcome.remarks:
        yield f"{remark.kind:<12} {names[remark.key]:<{width}}  {remark.why or REMARKS[remark.kind]}"


def _names(outcome: Outcome) -> dict[Key, str]:
    """What a case is called: its id, with sweep and baseline where the id alone is not enough."""
    keys = [*(verdict.key for verdict in outcome.verdicts), *(remark.key for remark in outcome.remarks)]
    cases = [case for _, case, _ in keys]
    return {
        key: key[1] if cases.count(key[1]) == 1 else f"{key[1]} ({key[0]}, against {key[2] or 'nothing'})"
        for key in keys
    }


def _change(verdict: Verdict) -> str:
    """How much, with the interval: +15.2% [+13.1%, +17.4%]."""
    value, low, high = (
        f"{factor - 1:+.1%}" if factor < 10 else human.ratio(factor)
        for factor in (verdict.change.value, verdict.change.low, verdict.change.high)
    )
    return f"{value} [{low}, {high}]"


def _from_to(verdict: Verdict) -> str:
    """The figure, before and after: ratio 0.71× → 0.82×."""
    write = human.ratio if verdict.figure == RATIO else human.seconds
    return f"{verdict.figure} {write(verdict.before)} → {write(verdict.after)}"


def _aside(why: str) -> str:
    return f"; {why}" if why else ""


def _summary(outcome: Outcome, args: argparse.Namespace) -> str:
    counts = ", ".join(f"{len(outcome.of_word(word))} {word}" for word in WORDS)
    others = [(kind, len(outcome.of_kind(kind))) for kind in REMARKS]
    more = "".join(f", {count} {kind}" for kind, count in others if count)
    return (
        f"{counts}{more}. Threshold {100 * args.threshold:.3g}%; "
        f"{outcome.share_inconclusive:.0%} inconclusive, allowed {args.allow_inconclusive:.0%}. "
        f"{_headline(outcome, args.allow_inconclusive)}"
    )


def _headline(outcome: Outcome, allowed: float) -> str:
    if outcome.of_word(SLOWER):
        return "There are slower cases."
    if outcome.of_kind("vanished"):
        return "Cases have vanished."
    if outcome.exit_code(allowed):
        return "Inconclusive: measure more processes, or on a quieter machine."
    return "No case is slower."


def _plain(text: object) -> str:
    """A text that neither Markdown nor a pull request's page takes for more."""
    return tables.plain(clean(text).replace("&", "&amp;")).replace("@", "&#64;").replace("://", "&#58;//")


def _markdown(baseline: Side, current: Side, outcome: Outcome, args: argparse.Namespace) -> str:
    names = _names(outcome)
    rows = [
        *((v.word, names[v.key], _change(v), _from_to(v), v.why) for v in outcome.verdicts),
        *((r.kind, names[r.key], "", "", r.why or REMARKS[r.kind]) for r in outcome.remarks),
    ]
    header = ("verdict", "case", "change", "figure", "remark")
    written = [(_MARKED.get(word, word), *map(_plain, others)) for word, *others in rows]
    table = tables.table(header, written, right=len(header))
    sides = "\n".join(f"- {_plain(line)}" for line in _side_lines(baseline, current))
    return f"**{_plain(_summary(outcome, args))}**\n\n{sides}\n\n{table}\n"


_MARKED = {word: f"**{word}**" for word in (SLOWER, FASTER)}


def _junit(outcome: Outcome, allowed: float) -> str:
    """JUnit XML: a slower case fails; an inconclusive one is skipped, an error where there are too many."""
    names = _names(outcome)
    too_many = outcome.share_inconclusive > allowed
    problems = {SLOWER: "failure", INCONCLUSIVE: "error" if too_many else "skipped", "vanished": "error"}
    entries = [
        *((v.key, v.word, f"{v.word}: {_change(v)} {_from_to(v)}{_aside(v.why)}") for v in outcome.verdicts),
        *((r.key, r.kind, f"{r.kind}: {r.why or REMARKS[r.kind]}") for r in outcome.remarks),
    ]
    suite = ElementTree.Element("testsuite", name="gate", tests=str(len(entries)))
    for key, kind, message in entries:
        case = ElementTree.SubElement(
            suite, "testcase", classname=clean(f"gate.{key[0]}"), name=clean(names[key])
        )
        tag = problems.get(kind, "skipped" if kind in REMARKS else "system-out")
        problem = ElementTree.SubElement(case, tag)
        if tag == "system-out":
            problem.text = clean(message)
        else:
            problem.set("message", clean(message))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(len(suite.findall(f"testcase/{tag}"))))
    return _document(suite)


def _document(suite: ElementTree.Element) -> str:
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="utf-8").decode() + "\n"


# --- the pinned baseline ---


def _pinned(root: Path, current: Side) -> Path:
    folder = pinned_folder(root, current)
    if not folder.is_dir():
        raise CannotCompare("no pinned baseline", f"{folder}: is not there; --accept makes it")
    return folder


def pinned_folder(root: Path, side: Side) -> Path:
    """Where the baseline of the side's machine is; the machine's name comes from records: made harmless."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", f"{side.fact('machine')} {side.fact('device')}").strip("-").lower()
    return root / (name[:100] or "unnamed")


def _accept(args: argparse.Namespace) -> int:
    """Pins the current side, unless something is wrong with it."""
    current = read_side("current", args.current)
    check_side(current)
    folder = pinned_folder(args.pinned, current)
    for line in _what_changes(folder, current, args):
        print(clean(line))
    try:
        _replace(folder, current)
    except OSError as error:
        raise CannotCompare("cannot write", str(error)) from error
    print(f"{folder}: {len(current.processes)} processes pinned")
    return 0


def _what_changes(folder: Path, current: Side, args: argparse.Namespace) -> Iterator[str]:
    if not folder.is_dir():
        yield "the machine's first baseline"
        return
    try:
        before = read_side("baseline", [folder])
        yield from _side_lines(before, current)
        outcome = compare(before, current, args.threshold)
    except CannotCompare as error:
        yield f"replaces a baseline that cannot be compared: {error}"
    else:
        yield from _verdict_lines(outcome)
        yield _summary(outcome, args)


def _replace(folder: Path, side: Side) -> None:
    """Puts the side's runs in the folder's place, in one step."""
    new, old = (folder.with_name(f".{folder.name}.{word}") for word in ("new", "old"))
    for left_over in (new, old):
        shutil.rmtree(left_over, ignore_errors=True)
    for number, process in enumerate(side.processes, start=1):
        _copy(process.file, new / f"{number:02d}")
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _copy(file: Path | None, folder: Path) -> None:
    assert file is not None, "a simulated process is not pinned"
    folder.mkdir(parents=True)
    shutil.copyfile(file, folder / RECORDS_FILE)
    if file.with_name(ENVIRONMENT_FILE).is_file():
        shutil.copyfile(file.with_name(ENVIRONMENT_FILE), folder / ENVIRONMENT_FILE)
