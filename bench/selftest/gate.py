"""Measure how often the gate is wrong, and what it finds.

It counts false alarms, and planted slowdowns that are found, over pairs of sides. Each figure says what its
pairs are: simulated; observed (as they were measured); or resampled (the same processes dealt out anew,
within the turns that they took; a slowdown is planted by multiplication).
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cases.comparisons import comparisons as rows_of
from bench.gate.output import ALLOWED_INCONCLUSIVE
from bench.gate.revisions import (
    BASELINE_TIME,
    FIGURES,
    HARDWARE,
    RATIO,
    TIME,
    VERSIONS,
    Process,
    Side,
    read_side,
)
from bench.gate.verdicts import FASTER, PROCESSES, SLOWER, Outcome, compare
from bench.records.files import read_text, write_whole
from bench.records.text import counted
from bench.report.markdown import plain, table
from bench.selftest.statistics import share_interval

if TYPE_CHECKING:
    import numpy as np

Pair = tuple[Side, Side]
SLOWDOWNS = (1.05, 1.10, 1.15)  # the first is the threshold: found there is a false alarm
_SLOWED = "gru-rnn"  # the subject that a slowdown is planted in
_MOST_DEALS = 64  # of one series of real processes


@dataclass(frozen=True)
class Rate:
    """In how many of the pairs something happened.

    Attributes:
        pairs: what the pairs were: simulated, observed or resampled, and of what.
        event: what is counted.
        hits, trials: in how many pairs, of how many.
        independent: how many of the pairs share no process: the interval is that of so many.
    """

    pairs: str
    event: str
    hits: int
    trials: int
    independent: int

    @property
    def in_words(self) -> tuple[str, str]:
        """The share, and its 95% interval."""
        share = self.hits / self.trials
        interval = share_interval(round(share * self.independent), self.independent)
        return f"{share:.1%}", f"[{interval.low:.1%}, {interval.high:.1%}]"


def as_table(rates: Iterable[Rate]) -> str:
    """The figures as a Markdown table."""
    rows = [
        (plain(rate.pairs), plain(rate.event), *rate.in_words, f"{rate.hits} of {rate.trials}")
        for rate in rates
    ]
    return table(("pairs", "what happened", "share", "95% interval", "count"), rows, right=2)


def write_between(file: Path, text: str, name: str) -> None:
    """Puts the text between the file's marker lines of that name; raises ValueError where there are none."""
    markers = f"<!-- selftest:{name} -->", f"<!-- /selftest:{name} -->"
    before, start, rest = read_text(file).partition(f"{markers[0]}\n")
    _, end, after = rest.partition(markers[1])
    if not start or not end:
        raise ValueError(f"{file}: has no lines {' and '.join(markers)}")
    write_whole(file, f"{before}{start}{text}\n{end}{after}")


# --- what is counted ---

EVENTS: dict[str, Callable[[Outcome], bool]] = {
    "a case SLOWER: exit code 1": lambda outcome: bool(outcome.of_word(SLOWER)),
    "a case FASTER": lambda outcome: bool(outcome.of_word(FASTER)),
    "too many INCONCLUSIVE: exit code 3": lambda outcome: outcome.exit_code(ALLOWED_INCONCLUSIVE) == 3,
}


def _found(outcome: Outcome) -> bool:
    """Says whether a case of the slowed subject is SLOWER."""
    return any(_SLOWED in verdict.key[1] for verdict in outcome.of_word(SLOWER))


def _slowed_events(factor: float) -> dict[str, Callable[[Outcome], bool]]:
    return {f"{_SLOWED} slowed by {factor - 1:.0%}: found": _found}


def _rates(
    pairs: str,
    made: Sequence[Pair],
    independent: int,
    events: Mapping[str, Callable[[Outcome], bool]],
    in_session: bool | None = True,
) -> Iterator[Rate]:
    outcomes = [compare(*pair, in_session=in_session) for pair in made]
    for event, happened in events.items():
        yield Rate(pairs, event, sum(map(happened, outcomes)), len(outcomes), independent)


# --- simulated pairs ---


@dataclass(frozen=True)
class Noise:
    """The scatter of one revision's figures from process to process, as standard deviations of logarithms.

    Attributes:
        ratio: of a case's ratio, the median over the cases.
        by_case: of that deviation's logarithm, from case to case.
        time: of what all times of a process have in common.
        drift: of all times, from the session's first process to its last; a slope, no deviation.
        tail: degrees of freedom of Student's t, which the ratios follow; few are heavy tails.
    """

    ratio: float
    by_case: float = 0.4
    time: float = 0.03
    drift: float = 0.0
    tail: float = 5.0


NOISES = {
    "simulated, ratios ±1%": Noise(0.01),
    "simulated, ratios ±2%": Noise(0.02),
    "simulated, ratios ±4%, drifting 10%": Noise(0.04, time=0.06, drift=0.10),
}


def simulated_rates(pairs: int) -> Iterator[Rate]:
    """False alarms of equal sides, and what is found of a slowed subject, for each kind of noise."""
    import numpy as np

    for name, noise in NOISES.items():
        generator = np.random.default_rng(0)
        equal = [simulated_pair(noise, generator) for _ in range(pairs)]
        yield from _rates(name, equal, pairs, EVENTS)
        for factor in SLOWDOWNS:
            slowed = [slow_down(pair, factor) for pair in equal]
            yield from _rates(name, slowed, pairs, _slowed_events(factor))


def simulated_pair(noise: Noise, generator: "np.random.Generator", processes: int = PROCESSES) -> Pair:
    """Two equal sides of the sweep `gate`, whose processes took turns."""
    comparisons = rows_of(["gate"])
    spreads = noise.ratio * (math.e ** (noise.by_case * generator.standard_normal(len(comparisons))))
    turns = [
        _simulated_process(number, comparisons, spreads, noise, number / (2 * processes), generator)
        for number in range(2 * processes)
    ]
    return _dealt(turns, [number % 4 in (1, 2) for number in range(0, 2 * processes, 2)])


def _simulated_process(number, comparisons, spreads, noise: Noise, progress: float, generator) -> Process:
    import numpy as np

    common = math.exp(noise.time * generator.standard_normal() + noise.drift * progress)
    own = spreads * generator.standard_t(noise.tail, len(comparisons)) * math.sqrt(1 - 2 / noise.tail)
    ratios, baseline_s = np.exp(own), np.full(len(comparisons), 0.01 * common)
    figures = {RATIO: ratios, TIME: baseline_s * ratios, BASELINE_TIME: baseline_s}
    keys = [(row.sweep, row.case.id, row.baseline.id) for row in comparisons]
    return Process(f"simulated-{number}", _FACTS, keys, np.stack([figures[name] for name in FIGURES], axis=1))


_FACTS = dict.fromkeys((*HARDWARE, *VERSIONS, "commit"), "simulated")


def slow_down(pair: Pair, factor: float, subject: str = _SLOWED) -> Pair:
    """The pair with every case of the subject slower on the current side."""
    baseline, current = pair
    return baseline, replace(
        current, processes=tuple(_slower(process, factor, subject) for process in current.processes)
    )


def _slower(process: Process, factor: float, subject: str) -> Process:
    figures = process.figures.copy()
    rows = [row for row, (_, case, _) in enumerate(process.keys) if subject in case]
    for figure in (RATIO, TIME):
        figures[rows, FIGURES.index(figure)] *= factor
    return replace(process, figures=figures)


# --- pairs of real processes ---


def real_rates(path: Path) -> Iterator[Rate]:
    """The same for real processes of one revision: the pair as measured, and the turns dealt out anew."""
    folders = [path / "base", path / "head"]
    measured = all(folder.is_dir() for folder in folders)
    if measured:
        pair = read_side("baseline", folders[:1]), read_side("current", folders[1:])
        yield from _rates(f"observed, {path.name}", [pair], 1, EVENTS, in_session=None)
    processes = read_side("current", folders if measured else [path]).processes
    turns = sorted(processes, key=lambda process: process.started)
    made = [_dealt(turns, deal) for deal in _deals(len(turns) // 2)]
    name = f"resampled, {path.name}: {counted(len(turns), 'process')}"
    yield from _rates(name, made, 1, EVENTS)
    for factor in SLOWDOWNS:
        yield from _rates(name, [slow_down(pair, factor) for pair in made], 1, _slowed_events(factor))


def _deals(turns: int) -> list[tuple[bool, ...]]:
    """Ways to deal out so many twos of processes: all of them, or some at random where they are many."""
    if 2**turns <= _MOST_DEALS:
        return list(product((False, True), repeat=turns))
    generator = random.Random(0)
    return [tuple(generator.random() < 0.5 for _ in range(turns)) for _ in range(_MOST_DEALS)]


def _dealt(turns: Sequence[Process], swapped: Sequence[bool]) -> Pair:
    """Two sides of processes in their order, one of each two to each side."""
    sides: tuple[list[Process], list[Process]] = ([], [])
    for first, second, swap in zip(turns[::2], turns[1::2], swapped, strict=False):  # an odd last one is left
        sides[swap].append(first)
        sides[not swap].append(second)
    return Side("baseline", tuple(sides[0])), Side("current", tuple(sides[1]))
