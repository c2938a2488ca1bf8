"""What disturbs measuring on this machine: how it is set up, and what else runs. Of Linux; elsewhere unknown.

Everything is read below a root, `/`, from `/proc` and `/sys`. What is not there, or cannot be read, is
unknown and never an error: containers hide some, kernels have others.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
N = TypeVar("N", int, float)

UNKNOWN = "unknown"
ROOT = Path("/")
_TICKS = 100.0  # a second of `/proc/stat`; the kernel's USER_HZ is 100 on every platform that TensorFlow has
_BUSY = 0.05  # of a core, from which a process, or what all others take of the machine, disturbs
_STOLEN = 0.01  # of the time
_QUIET_LOAD = 0.3  # a core


@dataclass(frozen=True)
class Finding:
    """What was found of one thing that can disturb.

    Attributes:
        name: what was looked at.
        found: in words; `unknown` where it cannot be read.
        advice: what to change, with the command; empty where nothing is to be changed.
    """

    name: str
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Counters:
    """The machine's counters at one moment; None where unknown.

    Attributes:
        busy_s, stolen_s: seconds of all cores that were spent on something, or taken by the hypervisor.
        own_s: seconds of this process and its children that have ended.
        context_switches, page_faults: of this process; switches that it did not ask for, and faults that
            took the disk.
        processes: the seconds of each process, by its id, with its name.
    """

    busy_s: float | None
    stolen_s: float | None
    own_s: float
    context_switches: int | None
    page_faults: int | None
    processes: dict[int, tuple[str, float]]


def read_counters(root: Path = ROOT, with_processes: bool = False) -> Counters:
    """The counters now."""
    busy_s, stolen_s = _cpu_seconds(_read(root, "proc/stat"))
    times = os.times()
    switches, faults = _own_counts()
    return Counters(
        busy_s,
        stolen_s,
        times.user + times.system + times.children_user + times.children_system,
        switches,
        faults,
        _process_seconds(root) if with_processes else {},
    )


def load(root: Path = ROOT) -> float | None:
    """The load of the last minute: how many processes ran, or waited to; None where unknown."""
    try:
        return float((_read(root, "proc/loadavg") or "").split()[0])
    except (IndexError, ValueError):
        return None


@dataclass(frozen=True)
class Disturbance:
    """What disturbed one measurement; None where unknown.

    Attributes:
        load: of the last minute, at its end, on the cores that this process may use: their share of the
            machine's.
        stolen: share of the time of all cores that the hypervisor took.
        context_switches, page_faults: of this process meanwhile, as in `Counters`.
    """

    load: float | None
    stolen: float | None
    context_switches: int | None
    page_faults: int | None


def watch(measurement: Callable[[], T], root: Path = ROOT) -> tuple[T, Disturbance]:
    """Makes a measurement; returns what it returns, and what disturbed it."""
    before, start = read_counters(root), time.monotonic()
    result = measurement()
    core_s = (time.monotonic() - start) * (os.cpu_count() or 1)
    after = read_counters(root)
    stolen_s = _more(before.stolen_s, after.stolen_s)
    of_all = load(root)
    return result, Disturbance(
        None if of_all is None else round(of_all * _share_of_cores(), 2),
        None if stolen_s is None else min(1.0, stolen_s / core_s),
        _more(before.context_switches, after.context_switches),
        _more(before.page_faults, after.page_faults),
    )


def _share_of_cores() -> float:
    """The share of the machine's cores that this process may use: who runs on the others is no neighbour."""
    if not hasattr(os, "sched_getaffinity"):
        return 1.0
    return min(1.0, len(os.sched_getaffinity(0)) / (os.cpu_count() or 1))


def _more(before: N | None, after: N | None) -> N | None:
    return None if before is None or after is None else after - before


def _cpu_seconds(stat: str | None) -> tuple[float | None, float | None]:
    """Seconds that all cores were busy, and that were stolen."""
    try:
        name, *words = (stat or "").splitlines()[0].split()[:9]
        ticks = [float(word) for word in words if name == "cpu"]
        user, nice, system, _, _, irq, soft, steal = ticks
    except (IndexError, ValueError):
        return None, None
    return (user + nice + system + irq + soft) / _TICKS, steal / _TICKS


def _own_counts() -> tuple[int | None, int | None]:
    try:
        import resource
    except ImportError:  # Windows
        return None, None
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_nivcsw, usage.ru_majflt


def _process_seconds(root: Path) -> dict[int, tuple[str, float]]:
    found = {}
    for folder in (root / "proc").glob("[0-9]*"):
        stat = _read(root, f"proc/{folder.name}/stat") or ""
        name, _, rest = stat.partition("(")[2].rpartition(")")
        try:
            user, system = rest.split()[11:13]
            found[int(folder.name)] = (name, (float(user) + float(system)) / _TICKS)
        except ValueError:  # it has ended
            continue
    return found


def _read(root: Path, path: str) -> str | None:
    try:
        return (root / path).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


# --- what runs beside us ---


def disturbances(before: Counters, after: Counters, seconds: float, root: Path = ROOT) -> list[Finding]:
    """What ran beside us between two moments."""
    cores = os.cpu_count() or 1
    return [
        _load(load(root), cores),
        _stolen(before, after, seconds * cores),
        _busy_processes(before, after, seconds),
    ]


def _cores(number: float) -> str:
    return f"{number:g} core" if number == 1 else f"{number:g} cores"


def _load(value: float | None, cores: int) -> Finding:
    if value is None:
        return Finding("load", UNKNOWN)
    advice = "end what else runs, or wait: ps aux --sort=-%cpu | head"
    return Finding("load", f"{value:g} on {_cores(cores)}", advice if value > _QUIET_LOAD * cores else "")


def _stolen(before: Counters, after: Counters, core_s: float) -> Finding:
    if before.stolen_s is None or after.stolen_s is None:
        return Finding("steal time", UNKNOWN)
    share = (after.stolen_s - before.stolen_s) / core_s
    advice = (
        "the host gives this machine's cores to others: take one with cores of its own, or measure at night"
    )
    return Finding("steal time", f"{share:.1%} of the cores", advice if share > _STOLEN else "")


def _busy_processes(before: Counters, after: Counters, seconds: float) -> Finding:
    if not after.processes:
        return Finding("busy processes", UNKNOWN)
    busy = {}
    for number, (name, until) in after.processes.items():
        share = (until - before.processes.get(number, (name, 0.0))[1]) / seconds
        if share > _BUSY and number != os.getpid():
            busy[f"{name} ({number})"] = share
    if not busy:
        return Finding("busy processes", "none")
    said = ", ".join(f"{name} {share:.0%}" for name, share in sorted(busy.items(), key=lambda b: -b[1])[:3])
    return Finding("busy processes", said, "end them: kill the number in brackets, if it is yours")


# --- how the machine is set up ---


def settings(root: Path = ROOT) -> list[Finding]:
    """How the machine is set up."""
    return [Finding(name, *_setting(look(root))) for name, look in _SETTINGS.items()]


Setting = tuple[str, str] | None  # what was found, and what to change; None: unknown


def _setting(found: Setting) -> tuple[str, str]:
    return (UNKNOWN, "") if found is None else found


def _quota(root: Path) -> Setting:
    words = (_read(root, "sys/fs/cgroup/cpu.max") or "").split()
    if len(words) != 2:
        words = [
            (_read(root, f"sys/fs/cgroup/cpu/cpu.cfs_{name}_us") or "").replace("-1", "max")
            for name in ("quota", "period")
        ]
    if words[0] == "max":
        return "none", ""
    try:
        cores = float(words[0]) / float(words[1])
    except (ValueError, ZeroDivisionError):
        return None
    return _cores(cores), "a container that is over its quota stands still: docker update --cpus=0 NAME"


def _governor(root: Path) -> Setting:
    governor = _read(root, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if not governor:
        return None
    slow = governor != "performance"
    return governor, "sudo cpupower frequency-set -g performance" if slow else ""


def _turbo(root: Path) -> Setting:
    """Intel's driver says whether there is none, others whether there is a boost."""
    for path, off in (("intel_pstate/no_turbo", "1"), ("cpufreq/boost", "0")):
        value = _read(root, f"sys/devices/system/cpu/{path}")
        if value in ("0", "1"):
            command = f"echo {off} | sudo tee /sys/devices/system/cpu/{path}"
            return ("off", "") if value == off else ("on", f"the clock falls as the chip warms up: {command}")
    return None


def _threads(root: Path) -> Setting:
    active = _read(root, "sys/devices/system/cpu/smt/active")
    if active not in ("0", "1"):
        return None
    command = "two threads share a core: echo off | sudo tee /sys/devices/system/cpu/smt/control"
    return ("off", "") if active == "0" else ("on", command)


def _huge_pages(root: Path) -> Setting:
    text = _read(root, "sys/kernel/mm/transparent_hugepage/enabled") or ""
    chosen = text.partition("[")[2].partition("]")[0]
    if not chosen:
        return None
    command = "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"
    return chosen, f"pages are put together while we measure: {command}" if chosen == "always" else ""


def _swap(root: Path) -> Setting:
    sizes = {}
    for line in (_read(root, "proc/meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        if name in ("SwapTotal", "SwapFree") and rest.split()[:1] and rest.split()[0].isdigit():
            sizes[name] = int(rest.split()[0])
    if len(sizes) < 2:
        return None
    used = (sizes["SwapTotal"] - sizes["SwapFree"]) // 1024
    return (
        (f"{used} MB in use", "memory is short: end something, then sudo swapoff -a")
        if used
        else ("none", "")
    )


def _heat(root: Path) -> Setting:
    counts = [
        int(text)
        for folder in (root / "sys/devices/system/cpu").glob("cpu[0-9]*")
        if (text := _read(root, f"sys/devices/system/cpu/{folder.name}/thermal_throttle/core_throttle_count"))
        and text.isdigit()
    ]
    if not counts:
        return None
    if not any(counts):
        return "never since the start", ""
    return (
        f"since the start: {sum(counts)}",
        "the chip was too hot: clean its fan, or measure less at once",
    )


_SETTINGS: dict[str, Callable[[Path], Setting]] = {
    "cgroup quota": _quota,
    "frequency governor": _governor,
    "turbo": _turbo,
    "hyper-threads": _threads,
    "transparent huge pages": _huge_pages,
    "swap": _swap,
    "thermal throttle": _heat,
}
