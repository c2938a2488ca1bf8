"""Cells brought with `--cell TARGET` and `--baseline TARGET`: subjects like any other.

Nothing is imported from the target before its first case is about to run.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from bench.cases.subjects import SUBJECTS, Subject, guest
from bench.contract.load_cell import FORM, Target

BASELINES = ("lstm", "gru", "simple_rnn")


class GuestError(ValueError):
    """A target or a baseline on the command line that cannot be a subject."""


@dataclass(frozen=True)
class Guests:
    """What `--cell` and `--baseline` bring.

    Attributes:
        joining: the names of the subjects that join the sweeps.
        subjects: those and the baseline's, by name.
    """

    joining: tuple[str, ...]
    subjects: Mapping[str, Subject]


NO_GUESTS = Guests((), {})


def guests(targets: Sequence[str], baseline: str | None = None) -> Guests:
    """The subjects for the targets, each compared with `baseline`: a built-in's name or a target.

    Raises:
        GuestError: a text that is no target, a name that is taken, or a baseline without a cell.
    """
    if baseline is not None and not targets:
        raise GuestError("--baseline is what the cells of --cell are compared with; there is no --cell")
    subjects: dict[str, Subject] = {}
    against = "lstm-builtin"
    if baseline in BASELINES:
        against = f"{baseline}-builtin"
    elif baseline is not None:
        if ":" not in baseline:
            raise GuestError(f"--baseline {baseline}: must be one of {', '.join(BASELINES)}, or {FORM}")
        against = _add(subjects, "--baseline", baseline, f"{_name(baseline)}-rnn")
    joining = [_add(subjects, "--cell", target, against) for target in dict.fromkeys(targets)]
    return Guests(tuple(joining), subjects)


def _add(subjects: dict[str, Subject], option: str, text: str, baseline: str) -> str:
    """Adds the target's subject and returns its name; the same target twice is one subject."""
    name = f"{_name(text)}-rnn"
    if not _name(text):
        raise GuestError(f"{option} {text}: expected {FORM}")
    taken = subjects.get(name) or SUBJECTS.get(name)
    if taken is not None and taken.target != text:
        raise GuestError(f"{option} {text}: there is a cell {_name(text)!r} already; give yours another name")
    if taken is None:
        subjects[name] = guest(_name(text), lambda units: loaded(text).make(units), baseline, target=text)
    return name


def _name(text: str) -> str:
    place, _, name = text.rpartition(":")
    return re.sub(r"[^A-Za-z0-9_.]", "_", name) if place else ""


@cache
def loaded(text: str) -> Target:
    """The target that a subject's `target` names, loaded once, with every switch of the process held.

    Raises:
        TargetError: it cannot be loaded.
    """
    from bench.contract.switches import load_held

    return load_held(text)


@cache
def broken_contract(text: str) -> str | None:
    """What is wrong with the target by the cell contract, in a sentence; None if it holds."""
    from bench.contract.check_cell import check_cell

    failed = check_cell(loaded(text)).failed
    if not failed:
        return None
    found = "; ".join(f"{result.name}: {result.text}" for result in failed)
    return f"{len(failed)} of the contract's checks failed: {found}"
