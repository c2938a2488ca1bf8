"""What a run ran on: machine, system, versions, commit. Nothing here imports TensorFlow."""

import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.records.text import counted, one_line

# those that change what TensorFlow computes or how fast; TF_ alone would take Terraform's
_VARIABLES = (
    *("TF_ENABLE_", "TF_DISABLE_", "TF_XLA_", "TF_NUM_", "TF_GPU_", "TF_FORCE_", "TF_CPP_", "TF_CUDNN_"),
    *("XLA_", "KERAS_BACKEND", "OMP_", "CUDA_VISIBLE_", "NVIDIA_TF32"),
)
_PACKAGES = (
    *("tensorflow", "keras", "numpy", "scipy", "pytest", "pytest-benchmark", "h5py"),
    *("nvidia-cuda-runtime-cu12", "nvidia-cudnn-cu12", "nvidia-ml-py"),
)


def timestamp() -> str:
    """Now, UTC, ISO 8601, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_run_ids: set[str] = set()  # of this process


def new_run_id() -> str:
    """A name for a run that no other run has: the time, and the process. A process has one a second."""
    while (run_id := f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}") in _run_ids:
        time.sleep(0.02)
    _run_ids.add(run_id)
    return run_id


REHEARSAL = "a rehearsal on "  # how the hardware key of a rehearsal's rows begins


def machine_key(gpu: str | None = None, rehearsal: bool = False) -> str:
    """The hardware key: rows with different keys do not compare.

    A GPU's names the processor too, which launches all that the GPU computes; a rehearsal's is that of no
    machine. The cores are those that this process may use: one that is pinned to some of them is another
    machine.
    """
    cores = usable_cores()
    count = counted(cores, "core")
    model = f"{gpu} with {cpu_model()}" if gpu else cpu_model()
    mark = REHEARSAL if rehearsal else ""
    return f"{mark}{model}, {count}, {platform.system()} {platform.machine()}"


def usable_cores() -> int:
    """The number of cores that this process may use."""
    there = os.cpu_count() or 1
    return min(there, len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else there


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    return _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def memory_bytes() -> int | None:
    """The machine's memory, bytes."""
    total = _field("/proc/meminfo", "MemTotal")
    return int(total.split()[0]) * 1024 if total else None


def _field(file: str, name: str) -> str | None:
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def git_commit(folder: Path | None = None) -> str | None:
    """The commit of the code, with `-dirty` where tracked files have changed; None outside a checkout."""
    folder = folder or Path(__file__).parent
    head = _git(folder, "rev-parse", "--short=12", "HEAD")
    if not head or _git(folder, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return f"{head}-dirty" if _git(folder, "status", "--porcelain", "--untracked-files=no") else head


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def describe(**more: Any) -> dict[str, Any]:
    """The environment that stands beside a run's CSV, with what the caller adds."""
    return {
        "machine": {
            "cpu": cpu_model(),
            "cores": os.cpu_count(),
            "usable_cores": usable_cores(),
            "memory_bytes": memory_bytes(),
            "system": platform.platform(),
            "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
        },
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := version_of(name))},
        "commit": git_commit(),
        "environment_variables": {
            name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)
        },
        **more,
    }


def flat(environment: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """The facts of an environment under names such as `machine.cores`; a list of facts becomes one text.

    What is empty, and lists of anything else, are left out.
    """
    for name, value in environment.items():
        name = one_line(f"{within}{name}", longest=None)
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}.")
        elif isinstance(value, list) and value and all(isinstance(each, _FACT) for each in value):
            yield name, one_line(", ".join(map(str, value)), longest=None)
        elif isinstance(value, str) and value:
            yield name, one_line(value, longest=None)
        elif isinstance(value, _FACT) and value != "":
            yield name, value


_FACT = (str, int, float, bool)


def version_of(package: str) -> str | None:
    """A package's version; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
