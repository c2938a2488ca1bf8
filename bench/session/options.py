"""The options of the command line."""

import difflib
from collections.abc import Iterable

from bench.cases.case import DEVICES
from bench.cases.read_options import path, positive
from bench.cases.sweeps import SWEEPS
from bench.cases.user_cells import BASELINES
from bench.contract.load_cell import FORM
from bench.processes.worker import DEFAULT_LIMITS

_GROUP = "recurrent cells"


def hint_at_misspelt(parser, arguments: Iterable[object]) -> None:
    """Has pytest say below its error what a misspelt option may be: ours, or one of pytest-benchmark's."""
    options = [option for name in (_GROUP, "benchmark") for option in parser.getgroup(name).options]
    known = [name for option in options for name in option.names()]
    for argument in map(str, arguments):
        name = argument.partition("=")[0]
        near = difflib.get_close_matches(name, known, n=2, cutoff=0.8) if name.startswith("--") else []
        if near and name not in known:
            parser.extra_info[f"{name}: did you mean"] = f"{' or '.join(near)}?"


def add_options(parser) -> None:
    """Adds the options to pytest's parser."""
    group = parser.getgroup(_GROUP)
    group.addoption(
        "--sweep",
        action="append",
        default=[],
        metavar="NAME",
        help=f"which cases to measure; may repeat. One of {', '.join(sorted(SWEEPS))}, or "
        "path/to/my_sweeps.py:name (default: default).",
    )
    group.addoption(
        "--subject",
        action="append",
        default=[],
        metavar="NAME",
        help="measure this subject, cell-layer: lstm-builtin, slstm-rnn, ...; of a --sweep, its cases alone; "
        "may repeat.",
    )
    group.addoption(
        "--shape",
        action="append",
        default=[],
        metavar="B,T,F,U",
        help="the batch size, timesteps, features and units of all cases, instead of a sweep's; may repeat.",
    )
    group.addoption(
        "--option",
        action="append",
        default=[],
        metavar="NAME[=VALUE],...",
        help="the options of all cases, instead of a sweep's: bidirectional,depth=2,dtype=mixed_bfloat16; "
        "may repeat, one variant each.",
    )
    group.addoption(
        "--mode", metavar="MODE,...", help="cases in these modes alone: infer, train (default: all)."
    )
    group.addoption(
        "--cell",
        action="append",
        default=[],
        metavar="TARGET",
        help=f"your own cell joins the sweeps as a subject; with --shape or --option it alone is measured; "
        f"{FORM}; may repeat.",
    )
    group.addoption(
        "--layer",
        action="append",
        default=[],
        metavar="TARGET",
        help="the same for a whole layer or model of your own: a class, or a function that makes one; may "
        "repeat.",
    )
    group.addoption(
        "--kwargs",
        metavar="JSON",
        default="{}",
        help="the other arguments of --cell and --layer, a JSON object: '{\"alpha\": 0.5}'.",
    )
    group.addoption(
        "--step-shape",
        metavar="N,N,N",
        help="the shape of a step for a --cell whose steps are images: 8,8,1; their product is the features.",
    )
    group.addoption(
        "--features",
        metavar="N",
        type=positive(int),
        help="the features of all cases, instead of a sweep's, for a --cell or --layer that takes so many.",
    )
    group.addoption(
        "--baseline",
        metavar="NAME",
        help=f"what --cell is compared with: {', '.join(BASELINES)} or a TARGET (default: lstm).",
    )
    group.addoption(
        "--corpus",
        metavar="PATH",
        type=path,
        help="the text that character models learn, UTF-8, a blank line after each speech "
        "(default: Shakespeare).",
    )
    group.addoption(
        "--full",
        action="store_true",
        help="training tasks at the tutorials' size, not in the short form: hours without a GPU.",
    )
    group.addoption(
        "--budget",
        metavar="MINUTES",
        type=positive(float),
        help="how long the run takes: three quarters of it at most before some are measured again; a fifth "
        "of the rest for ratios wider than ±5%%, the others where it brings most within ±2%% (default: until "
        "60%% of the ratios are known to ±2%% and then none is wider than ±5%%, but at most 6 s a row, with "
        "--seconds=1).",
    )
    group.addoption(
        "--seconds",
        metavar="S",
        type=positive(float),
        help="for timing each row, the calls of both sides; pytest-benchmark calls it --benchmark-max-time "
        "(default: 1).",
    )
    group.addoption(
        "--processes",
        metavar="N",
        type=positive(int),
        help="measure all in so many processes, 3 or more, every second one from the last case to the first: "
        "ratios and intervals are then over processes. With --workers or --scheduler these share them.",
    )
    group.addoption(
        "--reversed",
        action="store_true",
        help="measure from the last case to the first, as every second of --processes does.",
    )
    group.addoption("--case", metavar="ID", help="measure the one case with this id, in a sweep or not.")
    group.addoption(
        "--results", metavar="DIR", type=path, help="where the run's folder is made (default: results)."
    )
    group.addoption(
        "--device",
        choices=("auto", *DEVICES),
        default="auto",
        help="where to compute; auto takes a GPU if there is one (default: auto).",
    )
    group.addoption(
        "--compile-limit",
        metavar="SECONDS",
        type=positive(float),
        default=DEFAULT_LIMITS.compile_s,
        help="how long a case that runs in a process of its own may trace and compile; beyond, it is skipped "
        f"(default: {DEFAULT_LIMITS.compile_s:g}).",
    )
    group.addoption(
        "--memory-limit",
        metavar="BYTES",
        type=positive(int),
        help="how much memory such a process may take; beyond, the case fails (default: half of all).",
    )
    group.addoption(
        "--rehearse",
        action="store_true",
        help="choose a GPU's cases, and compute a few of them on the CPU, small: shows that the way is open; "
        "the rows are marked, and no reader mixes them with others.",
    )
    group.addoption(
        "--workers",
        metavar="N",
        type=positive(int),
        help="measure in so many Dask workers on this machine, each on cores of its own.",
    )
    group.addoption(
        "--scheduler", metavar="tcp://HOST:PORT", help="measure on the workers of this Dask scheduler."
    )
    group.addoption(
        "--each-machine",
        action="store_true",
        help="with --scheduler: all cases once on every kind of machine, a run each.",
    )
    group.addoption(
        "--resume",
        metavar="RUN",
        type=path,
        help="with --scheduler or --workers: go on with the run in this folder, whose client or "
        "scheduler was lost.",
    )
    group.addoption(
        "--require-gpu",
        action="store_true",
        help="fail where there is no GPU, and where no built-in layer ran on cuDNN though one could.",
    )
