"""Plan a session: read the revisions and the options, and refuse here what could not be measured."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.gate.repository import CannotMeasure, Repository
from bench.gate.session import SECONDS, SIDES, Session
from bench.gate.side_environment import declared_requirements, is_file
from bench.gate.verdicts import FEWEST_PROCESSES, PROCESSES

SWEEP = "gate"
# without any of these options it is the sweep above
_CHOOSING = frozenset(("--sweep", "--subject", "--shape", "--option", "--case"))
_SECONDS = ("--seconds", "--benchmark-max-time")
# their values may be FILE:NAME or MODULE:NAME
_NAMING_CODE = frozenset(("--cell", "--sweep", "--baseline"))


def plan_session(
    here: Path,
    revisions: Sequence[str],
    options: Sequence[tuple[str, str]] = (),
    more: Sequence[str] = (),
    *,
    requirements: Mapping[str, Sequence[str]] | None = None,
    processes: int = PROCESSES,
    seconds: float | None = None,
    work: Path | None = None,
) -> Session:
    """The session that measures two revisions.

    Args:
        here: where one stands in the repository.
        revisions: BASE and HEAD, as git names them.
        options: those of `python -m bench run`, each with its value.
        more: texts that are given to it as they are, after all others.
        requirements: for each side, what pip installs for it alone.
        processes: of each side.
        seconds: of timing a case; None: `SECONDS`, or what `more` says.
        work: the work folder; None for one in the repository.

    Raises:
        CannotMeasure: there is no repository or revision, a file that an option names is not in both, or
            what is checked out has changes that are not committed.
    """
    if processes < FEWEST_PROCESSES:
        raise CannotMeasure(f"--processes {processes}: must be {FEWEST_PROCESSES} or more")
    here = here.resolve()
    repository = Repository.around(here)
    place = here.relative_to(repository.root)
    commits = {side: repository.commit(name) for side, name in zip(SIDES, revisions, strict=True)}
    placed = [
        (name, _placed(text, repository.root, here) if name in _NAMING_CODE else text)
        for name, text in options
    ]
    targets = tuple(text for name, text in placed if name in _NAMING_CODE and ":" in text)
    for (side, commit), revision in zip(commits.items(), revisions, strict=True):
        _check_committed(repository, place, commit, f"{side.upper()} {revision}", targets)
    _check_clean(repository, commits)
    return Session(
        repository,
        place,
        commits,
        _requirements(repository, commits, requirements or {}),
        tuple(_run_options(placed, more, seconds)),
        targets,
        processes,
        work.resolve() if work else None,
    )


def _run_options(
    options: Sequence[tuple[str, str]], more: Sequence[str], seconds: float | None
) -> Iterator[str]:
    said = [text for text in more if text.partition("=")[0] in _SECONDS]
    if said and seconds is not None:
        raise CannotMeasure(f"{said[0]}: --seconds says the same: leave one out")
    if not said:  # as revisions know it that have no --seconds
        yield f"--benchmark-max-time={SECONDS if seconds is None else seconds:g}"
    if not any(name in _CHOOSING for name, _ in options):
        yield f"--sweep={SWEEP}"
    yield from (f"{name}={text}" for name, text in options)
    yield from more


def _placed(text: str, root: Path, here: Path) -> str:
    """The target with its file relative to where one stands: it is looked for in the work trees.

    Raises:
        CannotMeasure: the file lies outside of the repository.
    """
    place, colon, name = text.rpartition(":")
    if not colon or not is_file(place):
        return text
    file = Path(os.path.normpath(here / place))
    if not file.is_relative_to(root):
        raise CannotMeasure(f"{text}: lies outside of {root}: both revisions would measure the same file")
    return f"{os.path.relpath(file, here)}:{name}"


def _check_committed(
    repository: Repository, place: Path, commit: str, revision: str, targets: Sequence[str]
) -> None:
    """Raises CannotMeasure where a revision lacks the folder that one stands in, or a target's file."""
    files = [target.rpartition(":")[0] for target in targets]
    for file in (".", *filter(is_file, files)):
        path = os.path.normpath(place / file)
        if not repository.has(commit, path):
            raise CannotMeasure(
                f"{path}: is not in {revision} ({commit[:12]}): commit it, or choose another revision"
            )


def _check_clean(repository: Repository, commits: Mapping[str, str]) -> None:
    """Raises CannotMeasure where a side is the commit that is checked out, and files differ from it."""
    changed = repository.uncommitted()
    if changed and repository.commit("HEAD") in commits.values():
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise CannotMeasure(
            f"{changed[0]}{more}: changed and not committed, and so would not be measured: commit or stash it"
        )


def _requirements(
    repository: Repository, commits: Mapping[str, str], asked: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """What each side installs for itself: what was asked for, and its own where the revisions' differ."""
    declared = {side: declared_requirements(repository, commit) for side, commit in commits.items()}
    differ = declared["base"] != declared["head"]
    return {side: (*(declared[side] if differ else ()), *asked.get(side, ())) for side in SIDES}
