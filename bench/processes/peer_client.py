"""The peers' programs, seen from the process that measures: each peer has one process for the whole run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from bench.backend import devices
from bench.backend.data import Answer
from bench.backend.layers import weight_names
from bench.backend.programs import Program
from bench.processes.peers import Arrays, PeerData
from bench.processes.worker import NO_LIMITS, Limits, Worker, WorkerError
from bench.proof.problem import Problem
from bench.timing.blocks import Leg

_NEED_NO_WARM_UP_S = 0.1  # calls from here on do not notice
_WARM_UP_S = 0.01


@dataclass
class Peers:
    """The peers' processes, each started when its first program is asked for.

    Attributes:
        service: what runs in them, as `Worker` takes it, of the peer and `arguments`.
        limits: what each process may take.
        environment: of the peers started so far, by module: their versions and threads.
    """

    service: str = "bench.processes.peers.server:Programs"
    arguments: tuple[Any, ...] = ()
    limits: Limits = NO_LIMITS
    environment: dict[str, dict[str, Any]] = field(default_factory=dict)
    _workers: dict[str, Worker] = field(default_factory=dict)

    def program(
        self, peer: str, problem: Problem, of_cell: Mapping[str, Any] = MappingProxyType({})
    ) -> Program:
        """The program that the peer has for the problem, on the problem's weights and data.

        Args:
            peer: a module of `bench.processes.peers`.
            of_cell: what it makes a user's cell from, `Subject.made_from`.
        """
        worker = self._worker(peer)
        case, data = problem.case, problem.data
        given = PeerData(
            data.weights,
            data.inputs,
            data.initial_states,
            [cotangent for cotangent in data.cotangents if cotangent is not None],
            case.units,
        )
        options = {**of_cell, **({"time_major": True} if case.time_major else {})}
        if case.device == "gpu":
            options |= {"device": "gpu", "tf32": devices.rounds_to_tf32(case)}
        try:
            number, facts = worker.call(
                "load", case.cell, case.mode, given, options, time_limit_s=self.limits.compile_s
            )
        except WorkerError:  # it is gone; the next case gets another
            self._workers.pop(peer).close()
            raise
        return Program(
            run=lambda: worker.call("run", number),
            answer=lambda: _answer(problem, *worker.call("answer", number)),
            trace_count=lambda: worker.call("trace_count", number),
            trace_s=facts.get("trace_s"),
            compile_s=facts.get("compile_s"),
            graph_nodes=facts.get("graph_nodes"),
            kernel=facts.get("kernel"),
            xla=facts.get("xla", False),
            time=lambda: worker.call("time", number),
            queue=lambda count: worker.call("queue", number, count),
            peak_bytes=facts.get("peak_bytes"),
        )

    def close(self) -> None:
        """Ends the processes."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()

    def _worker(self, peer: str) -> Worker:
        if peer not in self._workers:
            worker = Worker(
                self.service, (peer, *self.arguments), memory_limit_bytes=self.limits.memory_bytes
            )
            try:
                self.environment[peer] = worker.call("environment")
            except BaseException:
                worker.close()
                raise
            self._workers[peer] = worker
        return self._workers[peer]


def warmed_up(program: Program) -> Leg:
    """A leg for programs that run in turns in two processes: calls that are not timed, one at least and so
    many as take 10 ms, then the one that is.

    While the other process computes, this one's threads fall asleep, and its code and weights leave the
    caches: that made calls of a few milliseconds slower, by a tenth in TensorFlow and by several times in
    PyTorch, and those of a millisecond by more.
    """
    seconds = _WARM_UP_S

    def leg() -> float:
        nonlocal seconds
        if seconds < _NEED_NO_WARM_UP_S:
            program.queue(max(1, round(_WARM_UP_S / seconds)))
        seconds = program.time()
        return seconds

    return leg


def _answer(problem: Problem, outputs: Arrays, gradients: Arrays) -> Answer:
    """The peer's answer, its gradients by name: those that there are in `train`, none in `infer`."""
    weights = zip(weight_names(problem.layer), problem.layer.weights, strict=True)
    names = [*(name for name, weight in weights if weight.trainable), "inputs"]
    for number, state in enumerate(problem.data.initial_states):
        names += [f"initial_state {number}"] if np.issubdtype(state.dtype, np.floating) else []
    names = names if problem.case.mode == "train" else []
    return Answer(outputs, dict(zip(names, gradients, strict=True)))
