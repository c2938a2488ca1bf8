"""Proves the two sides of a row, each in the process where it belongs: ours, one of its own, or a peer's."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from bench.backend import devices
from bench.backend.data import Answer
from bench.backend.programs import Program
from bench.cases.case import Case
from bench.cases.comparisons import Comparison
from bench.cases.cost_estimate import check_size
from bench.cases.subjects import WHOLE, Subject, UnsupportedOption, check_installed
from bench.cases.user_cells import NO_USER_CELLS, UserCells
from bench.contract.report import BrokenContract
from bench.processes.contract_worker import UserCell, Verdicts
from bench.processes.isolated import Isolated, nursery, try_out
from bench.processes.peer_client import Peers, warmed_up
from bench.processes.worker import DEFAULT_LIMITS, Limits, Nursery, TimeLimit
from bench.proof.problem import Problem, WrongAnswer, prepare
from bench.proof.verify import Proof, forget_references, prove, verify_again
from bench.timing.blocks import Pair

# TensorFlow optimises a graph on one core: two at once take 0.5 to 0.8 of the seconds. XLA uses all cores;
# instances that share what it compiled are not safe in two threads
_COMPILED_AT_ONCE = 2


@dataclass(frozen=True)
class Proven:
    """A compiled case whose answer has been proven.

    Attributes:
        matmul_peak: `devices.matmul_peak` of the process that it runs in; None where TensorFlow is not there.
        compiled_at_once: how many instances its process compiles at once, without XLA.
    """

    problem: Problem
    program: Program
    answer: Answer
    proof: Proof
    matmul_peak: Callable[[str, str], float] | None = devices.matmul_peak
    compiled_at_once: int = _COMPILED_AT_ONCE
    _more: list[Program] = field(default_factory=list)

    def instance(self, number: int) -> Program:
        """The `number`-th instance of the program, from 0; one that has no other is the same each time.

        Raises:
            WrongAnswer: another instance gives another answer.
        """
        if self.program.again is None:
            return self.program
        make_instances([(self, number)])
        return [self.program, *self._more][number]

    def alone(self) -> "Proven":
        """The same with the first instance alone, so that those of a pair are made together: over three runs
        layers inferred 0.8% quicker under XLA than as baselines whose instances had served rows before."""
        return replace(self, _more=[])

    def missing(self, number: int) -> int:
        """How many instances there are not yet, of those up to the `number`-th."""
        return 0 if self.program.again is None else max(0, number - len(self._more))

    def add(self, another: Program) -> None:
        """Keeps another instance.

        Raises:
            WrongAnswer: it gives another answer.
        """
        verify_again(self.problem, self.answer, another.answer(), self.proof, "in another instance")
        self._more.append(another)


def make_instances(wanted: Sequence[tuple[Proven, int]]) -> None:
    """Compiles and proves the instances of each up to the number that stands beside it, as many at once as
    its process compiles.

    One of each is made in turn, and either side is the first of every other two: with all of one side's made
    first, the other side was often quicker by 0.5% to 1%, and why is not known.

    Raises:
        WrongAnswer: another instance gives another answer.
    """
    missing: dict[int, list[tuple[Proven, Callable[[], Program]]]] = {}  # by how many are compiled at once
    most = max((proven.missing(number) for proven, number in wanted), default=0)
    for left in reversed(range(most)):
        for proven, number in wanted if left % 2 == 0 else wanted[::-1]:
            again = proven.program.again
            if again is not None and proven.missing(number) > left:
                at_once = 1 if proven.program.xla else proven.compiled_at_once
                missing.setdefault(at_once, []).append((proven, again))
    for at_once, of_these in missing.items():
        programs = _all_of([again for _, again in of_these], at_once)
        for (proven, _), another in zip(of_these, programs, strict=True):
            proven.add(another)


def _all_of(make: Sequence[Callable[[], Program]], at_once: int) -> list[Program]:
    """Makes them all; the first error ends it, as Ctrl-C does, and what has not begun then never begins."""
    if at_once == 1:
        return [each() for each in make]
    with ThreadPoolExecutor(at_once) as threads:
        begun = [threads.submit(each) for each in make]
        try:
            return [each.result() for each in begun]
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


class CompileTimeout(RuntimeError):
    """Tracing and compiling took longer than they may; the message holds the seconds."""


class Prover:
    """Proves cases, and keeps what serves again: baselines, peers' processes, those of the case in hand.

    Args:
        device: `cpu` or `gpu`.
        subjects: every subject that a case may name.
        limits: what an isolated case may take.
        user_cells: what the command line brings, for the processes of isolated cases.
        forking: forks workers; None: one is begun where it is needed. It is ended with the rest.
        isolate: whether a comparison that should run isolated does; a class of this process cannot.
        verdicts: what the contract has said of cells before; None: nothing.
        check_contracts: whether a user's cell must hold the contract.
    """

    def __init__(
        self,
        device: str,
        subjects: Mapping[str, Subject],
        limits: Limits = DEFAULT_LIMITS,
        user_cells: UserCells = NO_USER_CELLS,
        forking: Nursery | None = None,
        isolate: bool = True,
        verdicts: Verdicts | None = None,
        check_contracts: bool = True,
    ):
        forget_references()
        self._device = device
        self._subjects = subjects
        self._limits = limits
        self._user_cells = user_cells
        self._baselines: dict[Case, Proven] = {}
        self._subject: Proven | None = None  # the latest, compared with one baseline after another
        self._peers = Peers()
        self._isolated: Isolated | None = None
        self._nursery = forking
        self._isolate = isolate
        self._check_contracts = check_contracts
        self._verdicts = verdicts or Verdicts()
        self._tried: set[Case] = (
            set()
        )  # cases of users' cells that have been computed in a process of their own
        self._stopped: dict[Case, Case] = {}  # by the case with one timestep: the one that hit the limit

    @property
    def peers(self) -> Mapping[str, dict[str, Any]]:
        """The peers' processes that have been started: their versions and threads, by module."""
        isolated = self._isolated.peers.environment if self._isolated else {}
        return {**self._peers.environment, **isolated}

    def pair(self, comparison: Comparison) -> tuple[Proven, Proven]:
        """The subject and its baseline, proven, in the processes where they belong, with one instance each.

        Raises:
            NotInstalled, UnsupportedOption, BrokenContract, WrongAnswer: of the subject, or, saying so, of
                the baseline.
            TooLarge, CompileTimeout, WorkerError: of an isolated comparison, before or while it is made.
        """
        case, baseline = comparison.case, comparison.baseline
        for each in (case, baseline):
            check_installed(self._subjects[each.subject])
        self.check_contract(case)
        if not (comparison.isolated and self._isolate):
            proven = self._baseline(baseline)
            if self._subject is None or self._subject.problem.case != case:
                self._subject = None  # what it held goes before the next is made
                self._subject = self.prove(case, proven.problem)
            return self._subject.alone(), proven.alone()
        self._check_affordable(comparison)
        isolated = self._begin(case)
        peer = self._baseline(baseline) if self._subjects[baseline.subject].peer else None
        problem = peer.problem if peer else self._of_baseline(baseline, self._prepare)
        # the subject first: how far the memory rises is seen where nothing else has been compiled
        if isolated.subject is None:
            isolated.subject = self._prove_isolated(isolated, self._prepare(case, problem))
        return isolated.subject, peer or self._prove_isolated(isolated, problem)

    def prove(self, case: Case, like: Problem | None = None) -> Proven:
        """Proves the case in this process, or in its peer's, with the weights of `like` where they fit."""
        return self._proven(self._prepare(case, like))

    def start_anew(self) -> None:
        """Lets go of the case in hand, so that its next pair is traced anew."""
        self._subject = None
        self._end()

    def legs(self, subject: Proven, baseline: Proven, number: int = 0, of_baseline: int = 0) -> Pair:
        """The legs of an instance of the two, warmed up where one of them is in a peer's process."""
        programs = subject.instance(number), baseline.instance(of_baseline)
        if any(self._subjects[proven.problem.case.subject].peer for proven in (subject, baseline)):
            return warmed_up(programs[0]), warmed_up(programs[1])
        return programs[0].time, programs[1].time

    def legs_of_more(
        self, subject: Proven, baseline: Proven, numbers: range, baseline_ahead: int = 0
    ) -> list[Pair]:
        """The legs of these instances, compiled together.

        Args:
            baseline_ahead: how much higher the baseline's numbers are.
        """
        highest = max(numbers, default=0)
        make_instances([(subject, highest), (baseline, highest + baseline_ahead)])
        return [self.legs(subject, baseline, number, number + baseline_ahead) for number in numbers]

    def check_contract(self, case: Case) -> None:
        """Asks a user's cell the contract, and proves its case once in a process that it may end.

        Raises:
            BrokenContract: it does not hold the contract.
            WorkerError: at the case's sizes it ends its process, or runs out of time or memory.
            Exception: as `prove`.
        """
        subject = self._subjects[case.subject]
        if not (self._check_contracts and subject.is_brought):
            return
        cell = _user_cell(subject)
        broken = self._verdicts.broken(cell, case.features, case.units, self._forking())
        if broken:
            raise BrokenContract(broken)
        if subject.target and self._isolate and not subject.peer:
            self._try_out(replace(case, mode="train") if case.mode == "generate" else case)

    def _try_out(self, case: Case) -> None:
        """Proves a case in a process of its own, the first time."""
        if case not in self._tried:
            try_out(case, self._limits, (self._device, self._user_cells), self._forking())
            self._tried.add(case)

    def close(self) -> None:
        """Ends the processes."""
        self._end()
        self._peers.close()
        if self._nursery is not None:
            self._nursery.close()

    def _prepare(self, case: Case, like: Problem | None = None) -> Problem:
        return prepare(self._subjects[case.subject], case, like)

    def _baseline(self, case: Case) -> Proven:
        """The baseline of a case; traced and proven once, however many cases it serves."""
        if case not in self._baselines:
            self._baselines[case] = self._of_baseline(case, self.prove)
        return self._baselines[case]

    def _of_baseline(self, case: Case, make: Callable[[Case], Any]) -> Any:
        """Calls `make` with a baseline's case; an error is said to be the baseline's."""
        try:
            self.check_contract(case)
            return make(case)
        except (WrongAnswer, BrokenContract, UnsupportedOption) as error:
            raise type(error)(f"the baseline {case.id}: {error}") from error

    def _begin(self, case: Case) -> Isolated:
        """The processes of the case: those there are while it is compared with one baseline after another."""
        if self._isolated is None or self._isolated.case != case or not self._isolated.alive:
            self._end()
            self._isolated = Isolated(case, self._limits, (self._device, self._user_cells), self._forking())
        return self._isolated

    def _forking(self) -> Nursery | None:
        """What forks the workers; begun where it is first needed, and again where it has died."""
        if self._nursery is None or not self._nursery.alive:
            self._nursery = nursery(self._device)
        return self._nursery

    def _end(self) -> None:
        if self._isolated is not None:
            self._isolated.close()
            self._isolated = None

    def _prove_isolated(self, isolated: Isolated, problem: Problem) -> Proven:
        """Proves the problem with a program in a process of its own.

        Raises:
            CompileTimeout: compiling took too long.
            WorkerError: the process took too much memory, or died.
        """
        try:
            return self._proven(problem, isolated)
        except TimeLimit as error:
            case = problem.case
            self._stopped[replace(case, timesteps=1)] = case
            raise CompileTimeout(f"{case.id}: tracing, compiling and the first call: {error}") from error

    def _check_affordable(self, comparison: Comparison) -> None:
        """Refuses what is known beforehand to take too much.

        Raises:
            TooLarge: by the estimate of its memory and its time.
            CompileTimeout: the same with fewer timesteps has hit the limit.
        """
        check_size(comparison)
        for case in (comparison.case, comparison.baseline):
            shorter = self._stopped.get(replace(case, timesteps=1))
            if shorter is not None and case.timesteps >= shorter.timesteps:
                raise CompileTimeout(
                    f"{case.id}: not tried; {shorter.id} was stopped by the limit of "
                    f"{self._limits.compile_s:g} s"
                )

    def _proven(self, problem: Problem, isolated: Isolated | None = None) -> Proven:
        """Proves the problem with its program: in this process, in a worker, or in the peer's process."""
        subject = self._subjects[problem.case.subject]
        if (peer := subject.peer) is not None:
            peers = self._peers if isolated is None else isolated.peers
            proven = prove(problem, lambda problem, _: peers.program(peer, problem, subject.made_from))
            return Proven(problem, *proven, matmul_peak=None)
        if isolated is not None:
            proven = prove(problem, isolated.compile_program)
            return Proven(problem, *proven, isolated.matmul_peak, compiled_at_once=1)
        return Proven(problem, *prove(problem))


def _user_cell(subject: Subject) -> UserCell:
    """The cell of a user's subject, as the contract is asked about it."""
    kwargs = json.loads(subject.kwargs)
    return UserCell(
        subject.target or subject.cell,
        kwargs,
        features=subject.step_shape,
        whole=subject.layer == WHOLE,
        factory=subject.factory,
    )
