"""Tests of the instances that a proven case is compiled into."""

import time
from dataclasses import replace
from threading import Barrier, BrokenBarrierError

import pytest

from bench.cases.case import Case
from bench.cases.subjects import SUBJECTS
from bench.proof.problem import WrongAnswer, prepare
from bench.proof.verify import prove
from bench.runner.proving import Proven, make_instances


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
    make_instances([(meeting(proven, seconds=10), 4)])


def test_an_instance_of_either_side_compiles_at_once(proven):
    """One is missing on each; alone it would wait for ever."""
    barrier = Barrier(2)
    meets = replace(proven.program, again=lambda: barrier.wait(timeout=10) is None or proven.program)
    sides = [replace(proven, program=meets, _more=[]) for _ in range(2)]
    make_instances([(side, 1) for side in sides])
    assert [side.missing(1) for side in sides] == [0, 0]


def test_those_of_xla_are_compiled_one_after_another(proven):
    with pytest.raises(BrokenBarrierError):
        make_instances([(meeting(proven, seconds=0.1, xla=True), 2)])


def test_those_of_another_process_are_compiled_one_after_another(proven):
    with pytest.raises(BrokenBarrierError):
        make_instances([(replace(meeting(proven, seconds=0.1), compiled_at_once=1), 2)])


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
        make_instances([(replace(proven, program=replace(proven.program, again=again), _more=[]), 40)])
    assert len(begun) < 40


def test_instances_are_compiled_once(proven):
    case = replace(proven, _more=[])
    second = case.instance(1)
    make_instances([(case, 3)])
    assert case.instance(1) is second
    assert len({id(case.instance(number)) for number in range(4)}) == 4


def test_either_side_is_made_first_every_other_time(proven):
    """What is made later runs quicker."""
    made = []

    def side(name):
        def again():
            made.append(name)
            return proven.program

        program = replace(proven.program, again=again)
        return replace(proven, program=program, compiled_at_once=1, _more=[])

    subject, baseline = side("subject"), side("baseline")
    make_instances([(subject, 2)])
    make_instances([(subject, 3), (baseline, 4)])
    assert made == ["subject"] * 2 + ["baseline"] * 3 + ["subject", "baseline"]
    made.clear()
    make_instances([(subject, 6), (baseline, 7)])
    assert made == ["subject", "baseline", "baseline", "subject", "subject", "baseline"]
