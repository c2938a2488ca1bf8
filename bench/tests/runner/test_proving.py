"""Tests of the instances that a proven case is compiled into."""

from dataclasses import replace
from threading import Barrier, BrokenBarrierError

import pytest

from bench.cases.case import Case
from bench.cases.subjects import SUBJECTS
from bench.proof.problem import prepare
from bench.proof.verify import prove
from bench.runner.proving import Proven


@pytest.fixture(scope="module")
def proven():
    problem = prepare(SUBJECTS["lstm-builtin"], Case("lstm", "builtin", "infer", 2, 3, 4, 5))
    return Proven(problem, *prove(problem))


@pytest.fixture
def meeting(proven):
    """The case, whose program compiles again only while another compiles."""
    barrier = Barrier(2)

    def again():
        barrier.wait(timeout=0.3)
        return proven.program

    return replace(proven, program=replace(proven.program, again=again), _more=[])


def test_two_instances_are_compiled_at_once(meeting):
    meeting.make_instances(4)


def test_those_of_xla_are_compiled_one_after_another(meeting):
    with pytest.raises(BrokenBarrierError):
        replace(meeting, program=replace(meeting.program, xla=True)).make_instances(2)


def test_those_of_another_process_are_compiled_one_after_another(meeting):
    with pytest.raises(BrokenBarrierError):
        replace(meeting, compiled_at_once=1).make_instances(2)


def test_instances_are_compiled_once(proven):
    case = proven.without_instances()
    second = case.instance(1)
    case.make_instances(3)
    assert case.instance(1) is second
    assert len({id(case.instance(number)) for number in range(4)}) == 4
