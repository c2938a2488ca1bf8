"""`ComparisonReport`: the ratio of two subjects' times, and what may be concluded of it. No TensorFlow."""

import html
import math
import numbers
import warnings
from dataclasses import dataclass

from bench.cases.case import SHAPE
from bench.report import formatting
from bench.report.labels import option_name

# what `proof` says, for people
_PROVEN = {
    "exact": "proven against a reference in float64",
    "consistent": "proven against itself, run eagerly in float64",
    "statistical": "proven against itself in float64, with the dropout that it drew",
}
WITHIN, BEYOND, UNSURE = "within", "beyond", "cannot tell"


class CannotTell(UserWarning):
    """A limit lies inside of a ratio's interval: the timing neither reaches it nor keeps below it."""


@dataclass(frozen=True)
class ComparisonReport:
    """What a comparison came to: proven first, then timed in turns.

    Attributes:
        name, baseline: what was compared with what, as people call them.
        mode: `infer` or `train`.
        shape: batch size, timesteps, features, units.
        options: the words of the options that are not the default, as ids have them.
        ratio: the time of `name` / the time of `baseline`; below 1 is faster.
        interval: of the ratio, 95%: its low and its high end.
        medians: seconds of a call of each of the two.
        proof: what the answer of `name` was compared with, before it was timed: `exact`, a reference;
            `consistent`, itself run eagerly in float64; `statistical`, itself with the dropout inferred.
        error, tolerance: the largest error of its outputs, and what was allowed.
        kernel, baseline_kernel: what ran the steps: `while`, `unrolled`, `native`, `cudnn`, `block`.
        rounds: blocks of four calls that were timed.
        in_keras_loop: of the two, those that stand in `FusedRNN` and that no engine of it runs.
    """

    name: str
    baseline: str
    mode: str
    shape: tuple[int, int, int, int]
    options: tuple[str, ...]
    ratio: float
    interval: tuple[float, float]
    medians: tuple[float, float]
    proof: str
    error: float
    tolerance: float
    kernel: str
    baseline_kernel: str
    rounds: int
    in_keras_loop: tuple[str, ...] = ()

    def verdict(self, limit: float) -> str:
        """`within` where the whole interval lies at or below the limit, `beyond` where it lies above, else
        `cannot tell`.

        Raises:
            ValueError: a limit that is no positive number.
        """
        if not isinstance(limit, numbers.Real) or isinstance(limit, bool) or not 0 < limit < math.inf:
            raise ValueError(f"limit {limit!r}: must be a positive number, such as 1.2")
        low, high = self.interval
        return BEYOND if low > limit else WITHIN if high <= limit else UNSURE

    def assert_at_most(self, limit: float, strict: bool = False) -> None:
        """Fails where `name` takes more than `limit` times the time of `baseline`.

        Args:
            strict: whether to fail, too, where the interval holds the limit; else that is a warning.

        Raises:
            AssertionError: the whole interval lies beyond the limit; or, if strict, some of it.
            ValueError: a limit that is no positive number.

        Warns:
            CannotTell: the interval holds the limit.
        """
        verdict = self.verdict(limit)
        if verdict == BEYOND:
            raise AssertionError(f"slower than {limit:g}x: {self}")
        if verdict == UNSURE:
            message = f"cannot tell whether it is at most {limit:g}x, give it more seconds: {self}"
            if strict:
                raise AssertionError(message)
            warnings.warn(message, CannotTell, stacklevel=2)

    @property
    def times(self) -> str:
        """The ratio and its interval, `1.34x [1.23, 1.62]`."""
        low, high = self.interval
        return f"{self.ratio:.2f}x [{low:.2f}, {high:.2f}]"

    @property
    def proven(self) -> str:
        """Says what the answer of `name` was compared with before it was timed."""
        return _PROVEN[self.proof]

    @property
    def notes(self) -> tuple[str, ...]:
        """Says what was not run as its name may make one think."""
        return tuple(f"no engine runs {name}: in Keras' loop" for name in self.in_keras_loop)

    @property
    def where(self) -> str:
        """Mode, shape and options, `train b16 t120 f40 u96, bidirectional`."""
        shape = " ".join(f"{letter}{size}" for letter, size in zip(SHAPE.values(), self.shape, strict=True))
        return ", ".join((f"{self.mode} {shape}", *map(option_name, self.options)))

    def __str__(self) -> str:
        mine, theirs = map(formatting.seconds, self.medians)
        said = (
            f"{self.name}, {self.where}: {self.times} the time of {self.baseline}; {mine} and {theirs}",
            f"{self.proven}, kernel {self.kernel}",
        )
        return "; ".join((*said, *self.notes))

    def _repr_html_(self) -> str:
        """The comparison as a table, for notebooks."""
        mine, theirs = map(formatting.seconds, self.medians)
        rows = (
            ("", self.name, self.baseline),
            ("time of a call", mine, theirs),
            ("ratio, 95% interval", self.times, "1"),
            ("kernel", self.kernel, self.baseline_kernel),
            *(("note", note, "") for note in self.notes),
            ("answer", f"{self.proven}: error {self.error:.1g}, allowed {self.tolerance:.1g}", ""),
        )
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
        )
        return f"<table><caption>{html.escape(self.where)}</caption><tbody>{body}</tbody></table>"
