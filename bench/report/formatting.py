"""Numbers as people read them: three digits and a unit. Charts and tables write theirs with these."""

import re

_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_COUNTS = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))


def number(value: float) -> str:
    """Three significant digits, never an exponent: 0.712, 1.20, 34.5, 678."""
    value = _rounded(value)
    if value and abs(value) < 1:
        return f"{value:.3g}" if abs(value) < 1e-3 else f"{value:.3f}".rstrip("0")
    return f"{value:.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"


def seconds(value: float) -> str:
    """A time: 1.20 ms, 345 µs."""
    return _scaled(value, _SECONDS)


def count(value: float) -> str:
    """A number of things, or of things a second: 12.3k, 4.56M, 789."""
    return _scaled(value, _COUNTS).replace(" ", "")


def memory(value: float) -> str:
    """Bytes: 12.3 MB."""
    return _scaled(value, _BYTES)


def ratio(value: float) -> str:
    """A ratio of times: 0.71×, 12.3×."""
    return f"{_hundredths(value)}×"


def interval(low: float, high: float) -> str:
    """The interval of a ratio: [0.69, 0.74]."""
    return f"[{_hundredths(low)}, {_hundredths(high)}]"


def tick(text: str) -> str:
    """A figure as an axis writes it, without the zeros that end it: 5 ms, not 5.00 ms."""
    return re.sub(r"(\.\d*?)0+(?=\D|$)", lambda found: found[1].rstrip("."), text)


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _scaled(value: float, units: tuple[tuple[float, str], ...]) -> str:
    value = _rounded(value)
    scale, unit = next((unit for unit in units if abs(value) >= unit[0]), units[-1])
    return f"{number(value / scale)} {unit}" if value else "0"


def _hundredths(value: float) -> str:
    """Two decimals, which is what ±2% can carry; three digits where that is more or the value is small."""
    return f"{value:.2f}" if 0.1 <= value < 10 else number(value)
