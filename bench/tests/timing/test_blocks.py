"""The timing, on replayed clocks: what is called in which order, what counts, and that the ratio is exact."""

import gc
import math
from collections.abc import Callable
from functools import partial
from itertools import count

import pytest

from bench.timing import blocks
from bench.timing.blocks import (
    Blocks,
    Budget,
    Instances,
    plain_rounds,
    plan_for,
    rounds_for,
    summarise,
    time_call,
    time_instances,
    time_pair,
    time_planned,
    time_queue,
    turns,
)
from bench.timing.intervals import FEWEST_BLOCKS, FEWEST_INSTANCES, Interval, ratios_for

pytest_plugins = ["pytester"]

PLENTY = Budget(max_time_s=4000.0, min_rounds=5)


class Replay:
    """A clock, and programs that move it; `calls` is what was called, in order.

    Args:
        subject_s, baseline_s: (number of the program's call, time) -> seconds.
    """

    def __init__(self, subject_s: Callable[[int, float], float], baseline_s: Callable[[int, float], float]):
        self.now = 0.0
        self.calls: list[str] = []
        self.subject = self._program("S", subject_s)
        self.baseline = self._program("B", baseline_s)

    def clock(self) -> float:
        return self.now

    def _program(self, name: str, seconds: Callable[[int, float], float]) -> Callable[[], None]:
        def run():
            self.now += seconds(self.calls.count(name), self.now)
            self.calls.append(name)

        return run


class Pedantic:
    """Stands for `benchmark.pedantic`: setup, target and teardown, `rounds` times."""

    def __init__(self, replay: Replay):
        self.replay = replay
        self.rounds = 0
        self.calls_before = 0

    def __call__(self, target, setup, teardown, rounds):
        self.rounds, self.calls_before = rounds, len(self.replay.calls)
        for _ in range(rounds):
            assert setup() is None  # anything else would be arguments of the target
            target()
            teardown()


def timed(replay: Replay, budget: Budget = PLENTY):
    pedantic = Pedantic(replay)
    return time_pair(*legs_of(replay), pedantic, budget, "infer"), pedantic


def legs_of(replay: Replay) -> tuple[Callable[[], float], Callable[[], float]]:
    """Its two programs, each through `time_call`."""
    return partial(time_call, replay.subject, replay.clock), partial(time_call, replay.baseline, replay.clock)


def constant(seconds: float):
    return lambda number, now: seconds


def blocks_of(*ratios: float, seconds: float = 1.0) -> Blocks:
    """Blocks of these ratios, whose baseline takes `seconds` a call."""
    made = Blocks()
    for ratio in ratios:
        made.baseline += [seconds, seconds]
        made.subject += [ratio * seconds, ratio * seconds]
    return made


def test_blocks_are_abba_and_baab_by_turns():
    replay = Replay(constant(0.5), constant(0.25))
    _, pedantic = timed(replay)
    assert "".join(replay.calls[pedantic.calls_before :]) == "BSSBSBBS" * (pedantic.rounds // 2)


def test_a_block_has_two_ratios_of_neighbouring_calls():
    """The numbers of the calls, in the order in which they come: BSSB, SBBS."""
    order = count(1)
    leg = lambda: float(next(order))  # noqa: E731
    (blocks,) = time_planned([(leg, leg)], 2, plain_rounds)
    assert blocks == Blocks([2.0, 3.0, 5.0, 8.0], [1.0, 4.0, 6.0, 7.0])
    assert blocks.ratios() == [2 / 1, 3 / 4, 5 / 6, 8 / 7]
    assert blocks.seconds() == [1 + 2 + 3 + 4, 5 + 6 + 7 + 8] and blocks.count == 2


@pytest.mark.parametrize("calls", [1, 2, 3, 4])
def test_bursts_of_other_work_lean_to_neither_side(calls):
    """While one lasts, so many calls take twice as long; they begin wherever they may in two blocks.

    In blocks of one order a burst of two calls would show the subject slower a quarter of the time.
    """
    found = []
    for start in range(8):
        burst = {(start + number) % 8 for number in range(calls)}
        place = iter(range(8))
        leg = lambda place=place, burst=burst: 2.0 if next(place) in burst else 1.0  # noqa: E731
        (blocks,) = time_planned([(leg, leg)], 2, plain_rounds)
        found += [math.log(ratio) for ratio in blocks.ratios()]
    assert sum(found) == pytest.approx(0.0)


def test_what_a_leg_says_is_what_counts():
    """A leg may run elsewhere, where this process's clock means nothing."""
    said = {"S": iter(range(1, 1000)), "B": iter(range(1001, 2000))}
    order = []

    def leg(name):
        return lambda: order.append(name) or float(next(said[name]))

    replay = Replay(constant(0.5), constant(0.25))
    pedantic = Pedantic(replay)
    timing = time_pair(leg("S"), leg("B"), pedantic, PLENTY, "infer")
    pilot = len(order) // 2 - 2 * pedantic.rounds
    counted = [float(number) for number in range(pilot + 1, pilot + 2 * pedantic.rounds + 1)]
    assert timing.min_s == counted[0]
    assert timing.baseline_median_s == 1000 + (counted[0] + counted[-1]) / 2


def test_planted_times_are_recovered_exactly():
    timing, pedantic = timed(Replay(constant(0.75), constant(0.25)))
    certain = Interval(3.0, 3.0, 3.0)
    assert timing == blocks.Timing(0.75, 0.75, 0.0, 0.25, certain, FEWEST_BLOCKS, (3.0,), None)
    assert timing.rounds == pedantic.rounds


def test_absolute_figures_are_those_of_single_calls():
    timing = summarise([Blocks([1.0, 2.0, 3.0, 4.0, 5.0, 6.0] * 2, [2.0, 8.0] * 6)], "infer")
    assert (timing.median_s, timing.min_s, timing.iqr_s, timing.baseline_median_s) == (3.5, 1.0, 3.0, 5.0)
    assert timing.ratio.value == 0.625 and timing.rounds == 6


def test_a_steady_drift_of_the_machine_cancels():
    """Each call takes as much longer as the one before it did; one after another would tell 0.5% apart, and
    so would blocks of one order, were the quicker of two calls to count."""

    def slower_and_slower(replay):
        return lambda number, now: 0.25 + len(replay().calls) / 1024

    replay: Replay
    replay = Replay(slower_and_slower(lambda: replay), slower_and_slower(lambda: replay))
    timing, _ = timed(replay)
    assert timing.ratio.value == pytest.approx(1.0, abs=2e-4)
    assert timing.iqr_s > 0


def test_the_pilot_does_not_count():
    """The first calls are a hundred times as long; nothing of them is in the figures."""
    before = 1 + 2 * blocks.PILOT_BLOCKS[1]
    replay = Replay(lambda number, now: 50.0 if number < before else 0.5, constant(0.25))
    timing, pedantic = timed(replay, Budget(max_time_s=1e5, min_rounds=5))
    assert replay.calls[: pedantic.calls_before].count("S") == before
    assert timing.ratio == Interval(2.0, 2.0, 2.0) and timing.median_s == 0.5


def test_the_pilot_ends_with_its_share_of_the_time():
    short = Replay(constant(1.0), constant(1.0))
    _, pedantic = timed(short, Budget(max_time_s=10.0, min_rounds=5))
    assert pedantic.calls_before == 2 + 4 * blocks.PILOT_BLOCKS[0]
    long = Replay(constant(1.0), constant(1.0))
    _, pedantic = timed(long)
    assert pedantic.calls_before == 2 + 4 * blocks.PILOT_BLOCKS[1]


@pytest.mark.parametrize(
    ("call_s", "calls"),
    [(0.0001, 100), (0.001, 60), (0.5, 3)],  # at most, by the share of the time, at least
)
def test_a_queue_is_as_long_as_its_share_of_the_time(call_s, calls):
    queued = []

    def queue(count):
        queued.append(count)
        return count * call_s / 2

    assert time_queue(queue, call_s, Budget(max_time_s=2.0, min_rounds=5)) == pytest.approx(call_s / 2)
    assert queued == [calls]


NOISY = (0.9, 1.1, 1.0, 0.95, 1.05)


@pytest.mark.parametrize("max_time_s", [30.0, 40.0, 100.0])
def test_rounds_stay_within_the_time(max_time_s):
    pilot = blocks_of(*NOISY)
    rounds = rounds_for(pilot, Budget(max_time_s, min_rounds=1))
    assert rounds == max_time_s // 4 < ratios_for(pilot.ratios()) / 2


def test_rounds_are_no_more_than_the_wished_interval_takes():
    pilot = blocks_of(*NOISY)
    assert rounds_for(pilot, PLENTY) == math.ceil(ratios_for(pilot.ratios()) / 2)


@pytest.mark.parametrize(
    ("min_rounds", "rounds"), [(1, FEWEST_BLOCKS), (FEWEST_BLOCKS, FEWEST_BLOCKS), (17, 17)]
)
def test_rounds_are_min_rounds_at_least_and_enough_for_an_interval(min_rounds, rounds):
    assert rounds_for(blocks_of(*NOISY), Budget(0.001, min_rounds)) == rounds
    assert rounds_for(blocks_of(1.0, 1.0), Budget(4000.0, min_rounds)) == rounds


@pytest.mark.parametrize("was_on", [True, False])
def test_the_garbage_collector_is_off_while_timing_and_then_as_it_was(was_on):
    states = []
    replay = Replay(lambda number, now: states.append(gc.isenabled()) or 0.5, constant(0.5))
    (gc.enable if was_on else gc.disable)()
    try:
        timed(replay)
        assert gc.isenabled() is was_on
    finally:
        gc.enable()
    assert set(states) == {False}


def test_the_garbage_collector_is_on_again_after_an_exception():
    def explode(number, now):
        if number > 15:
            raise MemoryError("planted")
        return 0.5

    with pytest.raises(MemoryError, match="planted"):
        timed(Replay(explode, constant(0.5)))
    assert gc.isenabled()


# --- instances ---


def instances_of(ratios: list[float], made: list[int], seconds: float = 0.1):
    """The first pair and the others, whose subjects take so many times the baseline's second."""

    def pair(number: int):
        return (lambda: ratios[number]), (lambda: 1.0)

    def make(numbers: range):
        made.extend(numbers)
        return [pair(number) for number in numbers]

    return pair(0), Instances(make, seconds)


def test_the_interval_is_over_instances_and_not_over_their_blocks():
    """Every block of an instance says the same: over blocks the interval would be a point."""
    made: list[int] = []
    ratios = [1.0, 1.0, 1.2, 1.2, 1.0, 1.2, 1.0, 1.2]
    timed = time_instances(*_first(instances_of(ratios, made)))
    timing = summarise(timed, "train")
    assert made == [1, 2, 3, 4, 5, 6, 7]
    assert timing.instances == pytest.approx(ratios)
    assert timing.ratio.value == pytest.approx(1.2**0.5)
    assert timing.ratio.low < 1.02 and timing.ratio.high > 1.17
    assert timing.instance_spread == pytest.approx(
        0.0975, abs=1e-3
    )  # of log 1.2, four times there and four times not
    assert timing.rounds == sum(blocks.count for blocks in timed)


def _first(instances, budget: Budget = PLENTY):
    first, more = instances
    return first, plain_rounds, budget, more


def test_fewer_than_three_instances_are_the_programs_alone():
    timed = [blocks_of(0.9, 1.0, 1.1), blocks_of(0.9, 1.0, 1.1)]
    assert summarise(timed, "train").instance_spread is None
    assert summarise(timed, "train").ratio == Interval(1.0, 0.9, 1.1)


@pytest.mark.parametrize(
    ("instance_s", "instances"),
    [
        (None, 1),
        (0.01, blocks.MOST_INSTANCES),
        (0.4, 4),
        (1.0, 4),
        (1.1, FEWEST_INSTANCES),
        (4.0, FEWEST_INSTANCES),
        (4.1, 1),
    ],
)
def test_a_trace_that_takes_long_is_made_seldom(instance_s, instances):
    plan = plan_for(blocks_of(*NOISY, seconds=0.01), Budget(1.0, 1), instance_s)
    assert plan.instances == instances


@pytest.mark.parametrize(("call_s", "instances"), [(0.01, blocks.MOST_INSTANCES), (0.02, 6), (0.1, 4)])
def test_instances_that_take_nothing_are_no_more_than_have_time_for_their_blocks(call_s, instances):
    assert plan_for(blocks_of(*NOISY, seconds=call_s), Budget(1.0, 1), 0.0).instances == instances


def test_the_blocks_that_the_time_allows_are_spread_over_the_instances():
    pilot = blocks_of(*NOISY)
    rounds = rounds_for(pilot, Budget(100.0, 1))
    plan = plan_for(pilot, Budget(100.0, 1), 1.0)
    assert plan.instances == 8 and plan.blocks % 2 == 0
    assert abs(8 * plan.blocks - rounds) <= 8  # half of the blocks that one more of each order would be
    assert plan_for(pilot, Budget(0.001, 1), 0.0).blocks == blocks.LEAST_IN_INSTANCE


@pytest.mark.parametrize("instance_s", [None, 2.0, 0.4, 0.0])
@pytest.mark.parametrize("min_rounds", range(1, 70, 3))
def test_there_are_never_fewer_blocks_than_the_fewest(instance_s, min_rounds):
    plan = plan_for(blocks_of(*NOISY), Budget(0.001, min_rounds), instance_s)
    assert plan.instances * plan.blocks >= max(min_rounds, blocks.FEWEST_BLOCKS)


def test_instances_take_turns_block_by_block():
    calls: list[str] = []

    def pair(number):
        return tuple(lambda name=name: calls.append(f"{name}{number}") or 1.0 for name in "SB")

    time_planned([pair(0), pair(1)], 4, plain_rounds)
    assert "".join(calls) == "B0S0S0B0B1S1S1B1S0B0B0S0S1B1B1S1" * 2


def test_each_instance_has_all_its_blocks():
    assert [number for number, _ in turns(3, 4)] == [0, 1, 2] * 4
    assert [number for number, _ in turns(1, 3)] == [0, 0, 0]


def test_a_burst_of_other_work_falls_on_all_instances():
    """While it lasts, the subject takes twice as long: no instance stands out."""
    calls = [0]

    def subject():
        calls[0] += 1
        return 2.0 if calls[0] < 25 else 1.0

    timing = summarise(time_planned([(subject, lambda: 1.0)] * 4, 12, plain_rounds), "train")
    assert timing.instances == (1.0, 1.0, 1.0, 1.0)


BENCHMARK = """
    from functools import partial

    from bench.timing.blocks import Budget, time_call, time_pair

    def test_pair(benchmark):
        calls, now = [], [0.0]

        def program(name, seconds):
            def run():
                calls.append(name)
                now[0] += seconds
            return partial(time_call, run, lambda: now[0])

        legs = program("S", 0.5), program("B", 0.25)
        timing = time_pair(*legs, benchmark.pedantic, Budget(4000.0, 10), "infer")
        print("legs", "".join(calls[18:]))
        print("timing", timing.ratio.value, timing.rounds, timing.median_s)
        print("stats", benchmark.stats.stats.rounds)
"""


@pytest.mark.parametrize(
    ("options", "profiled"),
    [
        ([], ""),
        (["--benchmark-disable-gc", "--benchmark-warmup=on"], ""),
        (["--benchmark-cprofile=tottime"], "BSSB"),
        (["--benchmark-cprofile=tottime", "--benchmark-cprofile-loops=3"], "BSSBSSBSSB"),
    ],
)
def test_a_block_is_a_round_of_pytest_benchmark(pytester, options, profiled):
    """The profiled calls come after the rounds, and do not count."""
    pytester.makepyfile(BENCHMARK)
    result = pytester.runpytest_inprocess("-s", "-p", "no:cacheprovider", *options)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"*legs {'BSSBSBBS' * 5}{profiled}", "timing 2.0 10 0.5", "stats 10"])
