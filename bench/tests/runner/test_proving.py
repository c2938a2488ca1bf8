"""Tests of the instances that a proven case is compiled into."""

import time
from dataclasses import replace
from threading import Barrier, BrokenBarrierError

import pytest

from bench.cases.case import Case
from bench.cases.subjects import SUBJECTS
from bench.proof.problem import WrongAnswer, prepare
from bench.proof.verify import prove
from bench.runner.proving import Proven


@pytest.fixture(scope="module")
def proven():
    problem = prepare(SUBJECTS["lstm-builtin"], Case("lstm", "builtin", "infer", 2, 3, 4, 5))
    return Proven(problem, *prove(problem))


def meeting(proven: Proven, seconds: float, **facts) -> Proven:
    """The case, whose program compiles again only while another compiles; it waits so long for that."""
    barrier = Barrier(2)

    def again():
        barrier.wait(timeout=seconds)
        return proven.program

    return replace(proven, program=replace(proven.program, again=again, **facts), _more=[])


def test_two_instances_are_compiled_at_once(proven):
    meeting(proven, seconds=10).make_instances(4)


def test_those_of_xla_are_compiled_one_after_another(proven):
    with pytest.raises(BrokenBarrierError):
        meeting(proven, seconds=0.1, xla=True).make_instances(2)


def test_those_of_another_process_are_compiled_one_after_another(proven):
    with pytest.raises(BrokenBarrierError):
        replace(meeting(proven, seconds=0.1), compiled_at_once=1).make_instances(2)


@pytest.mark.parametrize("error", [KeyboardInterrupt, WrongAnswer])
def test_what_has_not_begun_to_compile_when_one_fails_never_does(proven, error):
    begun = []

    def again():
        begun.append(None)
        if len(begun) == 1:
            raise error("planted")
        time.sleep(0.05)
        return proven.program

    with pytest.raises(error, match="planted"):
        replace(proven, program=replace(proven.program, again=again), _more=[]).make_instances(40)
    assert len(begun) < 40


def test_instances_are_compiled_once(proven):
    case = replace(proven, _more=[])
    second = case.instance(1)
    case.make_instances(3)
    assert case.instance(1) is second
    assert len({id(case.instance(number)) for number in range(4)}) == 4
