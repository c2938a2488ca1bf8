"""Say what a cluster costs: its scheduling, and the loss of a worker.

The figures are those of `bench/benchmarks/cluster.py`.
"""

from pathlib import Path
from statistics import median
from typing import Any

from bench.records.files import read_json
from bench.records.schema import RecordError
from bench.records.text import counted
from bench.report import formatting
from bench.report.markdown import plain, table

FILE = "cluster.json"
_MANY = 1000  # workers


def scheduling(folder: Path) -> str:
    """The figures that stand in a folder's `cluster.json`, in Markdown; raises RecordError."""
    file = folder / FILE
    found = read_json(file)
    try:
        return "\n\n".join((_where(found), _costs(found), _reach(found), _losses(found)))
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise RecordError(f"{file}: is not what bench/benchmarks/cluster.py writes: {error!r}") from None


def _where(found: dict[str, Any]) -> str:
    return (
        f"{plain(found['machine'])} · distributed {plain(found['distributed'])} · "
        f"commit `{found['commit']}` · {found['timestamp'][:10]}"
    )


def _costs(found: dict[str, Any]) -> str:
    header = (
        "workers",
        "comparisons",
        "time",
        "processor, a comparison",
        f"of the {found['stand_in_s']:g} s it takes",
        "memory added",
    )
    rows = [
        (
            str(cost["workers"]),
            f"{cost['comparisons']:,}",
            formatting.seconds(cost["wall_s"]),
            formatting.seconds(_processor_s(cost)),
            f"{_processor_s(cost) / found['stand_in_s']:.2%}",
            formatting.memory(cost["memory_bytes"]),
        )
        for cost in found["costs"]
    ]
    return table(header, rows, right=0)


def _reach(found: dict[str, Any]) -> str:
    """Says what follows for a thousand workers, from the cost with the most."""
    most = max(found["costs"], key=lambda cost: cost["workers"])
    least_s = _processor_s(most)
    return (
        f"So one processor schedules {1 / least_s:.0f} comparisons a second for "
        f"{counted(most['workers'], 'worker')}. "
        f"If it is no dearer for {_MANY:,}, they are kept busy where a comparison takes "
        f"{_MANY * least_s:.0f} s or more; where it takes less, some wait: run several clusters, each with "
        "sweeps of its own."
    )


def _losses(found: dict[str, Any]) -> str:
    losses = found["losses_s"]
    typical, longest = (formatting.seconds(value) for value in (median(losses), max(losses)))
    return (
        f"A worker killed in mid-case, of two: the other began with the case {typical} later, at most "
        f"{longest} (of {len(losses)}; what it was measuring itself, of {found['stand_in_s']:g} s, it ended "
        "first)."
    )


def _processor_s(cost: dict[str, Any]) -> float:
    """Seconds of the processor that client and scheduler take for a comparison."""
    return cost["busy_s"] / cost["comparisons"]
