"""Records such as runs of the sweeps write, with made-up figures, for tests of what reads them."""

import zlib
from collections.abc import Mapping
from typing import Any

from bench.cases.case import Case
from bench.cases.comparisons import comparisons
from bench.records.schema import Value, make_record

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
    return make_record(**{**values, **_completed(figures or {}, values)})


def default_run() -> list[dict[str, Value]]:
    """All cases of the sweep `default`; those with an option against their own default too."""
    rows = _default_rows()
    own = {str(row["case"]): row for row in rows}
    return [*rows, *(pair for row in rows for pair in _against_own_default(row, own))]


def _against_own_default(
    row: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The row of an option, or of XLA, against the same case without it."""
    case = Case.from_id(row["case"])
    default = rows.get("-".join((case.mode, case.subject, case.shape)))
    if not case.options or default is None or default["case"] == row["baseline"]:
        return []
    if case.cell.startswith("keras_"):
        return []
    ratio = row["median_s"] / default["median_s"]
    figures = {"ratio": ratio, "ratio_low": 0.98 * ratio, "ratio_high": 1.02 * ratio}
    return [{**row, **_completed({**figures, "baseline": default["case"]}, row)}]


def _default_rows() -> list[dict[str, Value]]:
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


def options_run() -> list[dict[str, Value]]:
    """All cases of the sweep `options` as a machine without a GPU ends them: some skipped, one failed."""
    rows = []
    for row in comparisons(["options"]):
        fate: dict[str, Any] = {"ratio": _price(row.case)}
        if row.case.use_cudnn == "True":
            fate = {"status": "skipped", "reason": "no_device"}
        elif row.case.subject == "slstm-fused" and row.case.masked:
            fate = {"status": "skipped", "reason": "unsupported"}
        elif row.case.unroll and row.case.jit_compile and row.case.mode == "train":
            fate = {"status": "skipped", "reason": "compile_timeout"}
        rows.append(of("options", row.case, row.baseline, **fate))
    return rows


_PRICES: dict[str, float] = {
    **{"unroll": 0.85, "xla": 0.6, "impl1": 1.6, "stateful": 1.01, "last_output": 0.97, "backwards": 1.02},
    **{
        "mask": 1.35,
        "zero": 1.04,
        "dropout0.5": 1.12,
        "recurrent": 1.9,
        "act": 1.05,
        "no": 0.97,
        "reset": 1.1,
    },
    **{"bidirectional": 2.0, "merge": 1.02, "backward": 1.01, "depth2": 2.1, "depth3": 3.2, "float64": 1.7},
    **{"mixed": 2.4, "any": 1.03},
}


def _price(case: Case) -> float:
    wobble = 0.94 + zlib.crc32(case.id.encode()) % 100 / 800
    for word in case.options:
        wobble *= next((p for name, p in _PRICES.items() if word.startswith(name)), 1.0) ** (
            0.8 if case.mode == "infer" else 1.1
        )
    return wobble


def static_dynamic_run() -> list[dict[str, Value]]:
    """All cases of the sweep `static_dynamic`; what takes more than a minute to compile was stopped."""
    return [_way(row.case, row.baseline) for row in comparisons(["static_dynamic"])]


def _way(case: Case, baseline: Case) -> dict[str, Value]:
    unrolled = case.unroll or case.layer.startswith("static")
    per_step = 0.3 if unrolled and case.jit_compile else 0.011 if unrolled else 0.0002 * case.jit_compile
    seconds = 0.3 + per_step * case.timesteps * (2 if case.mode == "train" else 1)
    if seconds > 60:
        figures: dict[str, Value] = {"message": "60 s and not compiled"}
        return of(
            "static_dynamic", case, baseline, status="skipped", reason="compile_timeout", figures=figures
        )
    figures = {
        "trace_s": 0.1 * seconds,
        "compile_s": 0.9 * seconds,
        "graph_nodes": 400 + (40 * case.timesteps if unrolled else 0),
        "peak_bytes": int(4e5 * case.timesteps * (1.3 if unrolled else 1)),
    }
    ratio = (0.8 if unrolled else 1.0) * (0.7 if case.jit_compile else 1.0) + len(case.layer) / 200
    return of("static_dynamic", case, baseline, ratio=ratio, figures=figures)


def scaling_run() -> list[dict[str, Value]]:
    """All cases of the sweep `scaling`; the widest at the largest batch grow faster than a line."""
    rows = []
    for row in comparisons(["scaling"]):
        case = row.case
        weight = (1 + len(case.subject) % 5 / 3) * (1 if case.mode == "infer" else 2.5)
        wobble = 1 + zlib.crc32(case.id.encode()) % 100 / 2000
        seconds = weight * wobble * (5e-4 + case.timesteps * (2e-5 + 3e-11 * case.batch_size * case.units**2))
        if case.batch_size * case.units == 32 * 256:
            seconds *= 1 + case.timesteps / 200
        figures: dict[str, Value] = {
            "median_s": seconds,
            "iqr_s": seconds / 20,
            "peak_bytes": 8 * case.batch_size * case.units * case.timesteps,
        }
        rows.append(of("scaling", case, row.baseline, figures=figures))
    return rows


def deepbench_run() -> list[dict[str, Value]]:
    """All cases of the sweep `deepbench`, the larger of which do not fit."""
    rows = []
    for row in comparisons(["deepbench"]):
        fate: dict[str, Any] = {}
        if row.case.units > 2048 or row.case.timesteps > 400:
            fate = {
                "status": "skipped",
                "reason": "too_large",
                "figures": {"message": "takes 9.1 GB of 4.2 GB"},
            }
        rows.append(of("deepbench", row.case, row.baseline, **fate))
    return rows


def char_shape_run() -> list[dict[str, Value]]:
    """All cases of the sweep `char_shape`."""
    return [
        of("char_shape", row.case, row.baseline, ratio=1.0 if row.case == row.baseline else 0.6 + number / 5)
        for number, row in enumerate(comparisons(["char_shape"]))
    ]


def peers_run() -> list[dict[str, Value]]:
    """All cases of the sweep `peers`, where one package is not installed."""
    absent: dict[str, Any] = {"status": "skipped", "reason": "not_installed"}
    return [
        of(
            "peers",
            row.case,
            row.baseline,
            **(absent if row.case.layer == "keras2" else {"ratio": 0.4 + len(row.case.subject) / 20}),
        )
        for row in comparisons(["peers"])
    ]


def backends_run() -> list[dict[str, Value]]:
    """All cases of the sweep `backends`, where PyTorch is not installed."""
    absent: dict[str, Any] = {"status": "skipped", "reason": "not_installed"}
    return [
        of(
            "backends",
            row.case,
            row.baseline,
            **(absent if row.case.layer == "keras_torch" else {"ratio": 0.4 + len(row.case.id) / 60}),
        )
        for row in comparisons(["backends"])
    ]


def fused_run() -> list[dict[str, Value]]:
    """All cases of the sweep `fused` against each of its baselines, with their memory."""
    return [
        of(
            "fused",
            row.case,
            row.baseline,
            ratio=0.4 + number % 7 / 6,
            figures={"peak_bytes": row.case.batch_size * row.case.timesteps * row.case.units * 40},
        )
        for number, row in enumerate(comparisons(["fused"]))
    ]


def of(
    sweep: str,
    case: Case,
    baseline: Case,
    *,
    ratio: float | None = None,
    status: str = "ok",
    figures: Mapping[str, Value] | None = None,
    reason: str | None = None,
) -> dict[str, Value]:
    """The record of a case of any sweep, with its operations counted."""
    fields = {name: getattr(case, name) for name in Case.__dataclass_fields__}
    for name in ("cell", "layer", "mode"):
        del fields[name]
    made = record(case.subject, case.mode, status=status, reason=reason, **fields)
    own: dict[str, Value] = {"sweep": sweep, "baseline": baseline.id}
    if status == "ok":
        own |= _counted(case, made)
        if ratio is not None:
            wide = zlib.crc32(case.id.encode()) % 7 / 60
            own |= {"ratio": ratio, "ratio_low": ratio * (0.98 - wide), "ratio_high": ratio * (1.02 + wide)}
    return {**made, **_checked(_completed({**own, **(figures or {})}, made))}


def _completed(figures: Mapping[str, Value], made: Mapping[str, Value]) -> dict[str, Value]:
    """The figures, and what goes with a median or a ratio among them: the shortest time, the baseline's."""
    given = {**made, **figures}
    median, ratio, more = given.get("median_s"), given.get("ratio"), {}
    if "median_s" in figures and isinstance(median, float):
        more["min_s"] = 0.95 * median
    if figures.keys() & {"median_s", "ratio"} and isinstance(median, float) and isinstance(ratio, float):
        more["baseline_median_s"] = median / ratio if ratio else median
    return {**more, **figures}


def _checked(values: Mapping[str, Value]) -> dict[str, Value]:
    """The values, refused where a record would refuse them."""
    checked = make_record(status="ok", **{name: value for name, value in values.items() if name != "status"})
    return {name: checked[name] for name in values}


def _counted(case: Case, made: Mapping[str, Value]) -> dict[str, Value]:
    gates = {"lstm": 4, "gru": 3, "slstm": 2}.get(case.cell.removeprefix("keras_"), 1)
    work = 2.0 * gates * (case.features + case.units) * case.units * case.batch_size * case.timesteps
    work *= 3 if case.mode == "train" else 1
    rate = work / float(str(made["median_s"])) / 1e9
    rate = 90 * rate / (90 + rate)  # below a peak of 95
    return {"flops": work, "gflops_per_s": rate, "roofline_fraction": rate / 95}


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
