"""Records such as a run of the sweep `default` writes, with made-up figures, for tests of what reads them."""

import zlib
from collections.abc import Mapping
from typing import Any

from bench.case import Case
from bench.records import Value, make_record

BASE: dict[str, Any] = {"batch_size": 32, "timesteps": 50, "features": 64, "units": 128}
RUN_ID = "20250102-030405-abcdef"
SUBJECTS = {
    # subject: baseline, milliseconds of an inference at the base shape
    "simple_rnn-builtin": ("simple_rnn-builtin", 3.1),
    "keras_simple_rnn-rnn": ("simple_rnn-builtin", 3.2),
    "simple_rnn-rnn": ("simple_rnn-builtin", 3.3),
    "minimal-rnn": ("simple_rnn-builtin", 2.6),
    "lstm-builtin": ("lstm-builtin", 9.4),
    "keras_lstm-rnn": ("lstm-builtin", 9.5),
    "lstm-rnn": ("lstm-builtin", 8.6),
    "slstm-rnn": ("lstm-builtin", 6.2),
    "gru-builtin": ("gru-builtin", 9.9),
    "keras_gru-rnn": ("gru-builtin", 10.0),
    "gru-rnn": ("gru-builtin", 9.0),
}
OPTION_FACTORS: dict[str, Any] = {
    "unroll": (True, 0.62),
    "implementation": (1, 1.9),
    "stateful": (True, 1.01),
}
WITH_OPTIONS = ("lstm-builtin", "gru-builtin", "lstm-rnn", "slstm-rnn")
LINES: dict[str, Any] = {
    "timesteps": (10, 50, 100, 200),
    "batch_size": (1, 8, 32, 128),
    "units": (32, 64, 128, 256),
}
WITH_LINES = ("lstm-builtin", "gru-builtin", "slstm-rnn")


def record(
    subject: str = "slstm-rnn",
    mode: str = "infer",
    *,
    baseline: str | None = None,
    status: str = "ok",
    reason: str | None = None,
    figures: Mapping[str, Value] | None = None,
    **fields: Any,
) -> dict[str, Value]:
    """The record of one case; `fields` are its shape and options, `figures` overrides any column."""
    cell, layer = subject.rsplit("-", 1)
    case = Case(cell.replace("-", "_"), layer, mode, **{**BASE, **fields})
    compared = baseline or SUBJECTS.get(subject, ("lstm-builtin", 0.0))[0]
    values: dict[str, Value] = {
        "run_id": RUN_ID,
        "timestamp": "2025-01-02T03:04:05+00:00",
        "commit": "0123456789abcdef",
        "machine": "Xeon @ 2.20GHz, 2 cores, Linux",
        "device": "cpu",
        "backend": "tensorflow",
        "tensorflow": "2.21.0",
        "keras": "3.15.0",
        "sweep": "default",
        "case": case.id,
        "subject": case.subject,
        "baseline": _baseline_id(case, compared),
        "status": status,
        "reason": reason,
        **{name: getattr(case, name) for name in Case.__dataclass_fields__},
    }
    if status == "ok":
        values.update(_figures(case, compared))
    return make_record(**{**values, **(figures or {})})


def default_run() -> list[dict[str, Value]]:
    """All cases of the sweep `default`."""
    modes = ("infer", "train")
    return [
        *(record(s, m, jit_compile=x) for s in SUBJECTS for x in (False, True) for m in modes),
        *(
            record(s, m, **dict[str, Any]({name: value}))
            for name, (value, _) in OPTION_FACTORS.items()
            for s in WITH_OPTIONS
            for m in modes
        ),
        *(
            record(s, m, **dict[str, Any]({axis: value}))
            for axis, points in LINES.items()
            for value in points
            if value != BASE[axis]
            for s in WITH_LINES
            for m in modes
        ),
    ]


def _baseline_id(case: Case, subject: str) -> str:
    cell, layer = subject.split("-")
    shape = {name: getattr(case, name) for name in BASE}
    return Case(cell, layer, case.mode, **shape, jit_compile=case.jit_compile).id


def _milliseconds(case: Case, subject: str, options: bool = True) -> float:
    time = SUBJECTS.get(subject, ("", 7.0))[1] * (3.1 if case.mode == "train" else 1)
    time *= case.timesteps / 50 * (0.45 + 0.55 * case.batch_size / 32 * (case.units / 128) ** 1.4)
    time *= (0.55 if case.mode == "infer" else 0.38) if case.jit_compile else 1
    for name, (value, factor) in OPTION_FACTORS.items():
        if options and getattr(case, name) == value:
            time *= factor
    return time + 0.1


def _figures(case: Case, baseline: str) -> dict[str, Value]:
    wobble = 1 + zlib.crc32(case.id.encode()) % 100 / 2500
    median = _milliseconds(case, case.subject) * wobble / 1e3
    reference = _milliseconds(case, baseline, options=False) / 1e3
    ratio = median / reference
    return {
        "median_s": median,
        "min_s": median * 0.95,
        "iqr_s": median * (0.03 + (wobble - 1) * 2),
        "rounds": 20,
        "baseline_median_s": reference,
        "ratio": ratio,
        "ratio_low": ratio * (0.985 - (wobble - 1) / 4),
        "ratio_high": ratio * (1.012 + (wobble - 1) / 4),
        "converged": wobble < 1.03,
        "sequences_per_s": case.batch_size / median,
        "timesteps_per_s": case.batch_size * case.timesteps / median,
    }
