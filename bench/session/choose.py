"""The choice of cases: what the options say, the user's cells, the rows of the session's tests."""

import json
from pathlib import Path

import pytest

from bench.cases.choice import Choice
from bench.cases.comparisons import Comparison, Row, Task
from bench.cases.devices import check_backend_chosen
from bench.cases.read_options import ChoiceError, read_modes, read_option, read_shape, read_sweep
from bench.cases.subjects import WHOLE
from bench.cases.user_cells import UserCells, loaded
from bench.contract.load_cell import TargetError
from bench.session import gpu, limits, state

# the rows that each benchmark takes
KINDS: dict[str, type[Comparison] | type[Task]] = {
    "benchmark_cost.py": Comparison,
    "benchmark_tasks.py": Task,
}


# of the benchmarks; a row is one value
ARGUMENTS: dict[str, type[Comparison] | type[Task]] = {"comparison": Comparison, "task": Task}


def read_choice(config) -> Choice:
    """Reads the options; raises ChoiceError or UserCellError for one that makes no sense."""
    ask = config.getoption
    return Choice(
        sweeps=dict(map(read_sweep, ask("sweep"))),
        case=ask("case"),
        subjects=tuple(ask("subject")),
        shapes=tuple(map(read_shape, ask("shape"))),
        options=tuple(map(read_option, ask("option"))),
        modes=read_modes(ask("mode")) if ask("mode") is not None else (),
        user_cells=UserCells.of(
            ask("cell"), ask("baseline"), ask("kwargs"), ask("step_shape"), ask("layer"), ask("features")
        ),
        full=ask("full"),
        device=gpu.device_of(config),
    )


def rows_chosen(choice: Choice) -> list[Row]:
    """The rows of the choice; raises ChoiceError where it has none."""
    if rows := choice.rows():
        return rows
    joined = "" if choice.user_cells.targets else " without --cell"
    raise ChoiceError(f"--sweep {', '.join(choice.sweeps)}: has no case on the {choice.device}{joined}")


def without_refused(config, rows: list[Row]) -> list[Row]:
    """The rows without user cells in `FusedRNN` that none of its engines can run, unless they are named."""
    choice = config.stash[state.choice]
    own = {} if choice.case else choice.user_cells.subjects
    joined = {row.case.subject for row in rows if row.case.layer == "fused"} & own.keys() - {*choice.subjects}
    if not joined:
        return rows
    load_user_cells(config)
    from bench.processes.isolated import refusal

    asked = limits.of_isolated(config), (choice.device, choice.user_cells), config.stash[state.forking]
    refusals = {name: refusal(own[name], *asked) for name in sorted(joined)}
    config.stash[state.left_out] = [f"left out: {name}: {why}" for name, why in refusals.items() if why]
    return [row for row in rows if not refusals.get(row.case.subject)]


def load_user_cells(config) -> None:
    """Loads the user's cells, each first in a worker, where its file can do no harm, and then here.

    Raises:
        TargetError: one cannot be loaded.
    """
    choice = config.stash[state.choice]
    own = choice.user_cells.subjects.values()
    named = {(subject.target or "", subject.kwargs, subject.layer == WHOLE) for subject in own}
    if not named or state.forking in config.stash:
        return
    check_backend_chosen()
    from bench.processes.contract_worker import UserCell, load_apart
    from bench.processes.isolated import nursery

    forking = config.stash[state.forking] = nursery(choice.device)
    for target, kwargs, whole in sorted(named):
        load_apart(UserCell(target, json.loads(kwargs), whole=whole), forking)
        loaded(target, kwargs, whole)


def as_usage_error(error: TargetError) -> pytest.UsageError:
    """Pytest prints each argument as an error: the user's traceback, and last what it comes to."""
    return pytest.UsageError(*filter(None, (error.details.rstrip(), str(error))))


def is_idle(benchmark: Path, config) -> bool:
    """True where the chosen sweeps have no rows for the benchmark."""
    return not any(isinstance(row, KINDS[benchmark.name]) for row in config.stash[state.wanted])


def has_no_row(item) -> bool:
    given = item.callspec.params if hasattr(item, "callspec") else {}
    return any(name in given and not isinstance(given[name], kind) for name, kind in ARGUMENTS.items())


def rows_of(session) -> list[Row]:
    given = [item.callspec.params for item in session.items if hasattr(item, "callspec")]
    return [each[name] for each in given for name in ARGUMENTS if name in each]


def comparisons_of(session) -> list[Comparison]:
    """The comparisons of the session's tests, in their order."""
    return [row for row in rows_of(session) if isinstance(row, Comparison)]
