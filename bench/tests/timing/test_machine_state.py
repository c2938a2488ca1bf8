"""What disturbs measuring: read from files as Linux has them, and unknown where they are not or are odd."""

import os
from pathlib import Path

import pytest

from bench.timing.machine_state import (
    UNKNOWN,
    Counters,
    disturbances,
    load,
    read_counters,
    settings,
    watch,
)

CPU = "sys/devices/system/cpu"
# the setting: its file, a text with which it is well, one with which it is not, and a word of the advice
SETTINGS = {
    "cgroup quota": ("sys/fs/cgroup/cpu.max", "max 100000", "150000 100000", "docker"),
    "frequency governor": (f"{CPU}/cpu0/cpufreq/scaling_governor", "performance", "powersave", "cpupower"),
    "turbo": (f"{CPU}/intel_pstate/no_turbo", "1", "0", "echo 1 | sudo tee"),
    "hyper-threads": (f"{CPU}/smt/active", "0", "1", "smt/control"),
    "transparent huge pages": (
        "sys/kernel/mm/transparent_hugepage/enabled",
        "always [madvise] never",
        "[always] madvise never",
        "echo madvise",
    ),
    "swap": (
        "proc/meminfo",
        "SwapTotal: 0 kB\nSwapFree: 0 kB",
        "SwapTotal: 9000 kB\nSwapFree: 0 kB",
        "swapoff",
    ),
    "thermal throttle": (f"{CPU}/cpu1/thermal_throttle/core_throttle_count", "0", "7", "too hot"),
}


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text + "\n")


def found(root: Path, name: str):
    (finding,) = [each for each in settings(root) if each.name == name]
    return finding


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_disturbs_has_its_command(tmp_path, name):
    path, well, ill, word = SETTINGS[name]
    write(tmp_path, path, well)
    assert found(tmp_path, name).found != UNKNOWN and not found(tmp_path, name).advice
    write(tmp_path, path, ill)
    assert word in found(tmp_path, name).advice


def test_older_kernels_and_other_drivers_are_read_too(tmp_path):
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000")
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    assert found(tmp_path, "cgroup quota").found == "0.5 cores"
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1")
    assert found(tmp_path, "cgroup quota").found == "none"
    write(tmp_path, f"{CPU}/cpufreq/boost", "1")
    assert "echo 0 | sudo tee" in found(tmp_path, "turbo").advice


@pytest.mark.parametrize("text", [None, "", "nonsense", "\x00", "1 2 3 4 5 6 7 8 9"])
def test_what_is_not_there_or_odd_is_unknown_and_no_error(tmp_path, text):
    paths = [path for path, *_ in SETTINGS.values()] + ["proc/stat", "proc/loadavg", "proc/77/stat"]
    for path in paths if text is not None else []:
        write(tmp_path, path, text)
    known = {finding.name: finding.found for finding in settings(tmp_path)}
    assert known["turbo"] == known["swap"] == known["thermal throttle"] == UNKNOWN
    before = read_counters(tmp_path, with_processes=True)
    said = disturbances(before, read_counters(tmp_path, with_processes=True), 1.0, tmp_path)
    assert {finding.found for finding in said[1:]} <= {UNKNOWN, "none"}
    if text != "1 2 3 4 5 6 7 8 9":
        assert said[0].found == UNKNOWN and load(tmp_path) is None


def counters(stolen_s: float, **processes: float) -> Counters:
    named = {number: (name, seconds) for number, (name, seconds) in enumerate(processes.items(), 10**7)}
    return Counters(0.0, stolen_s, 0.0, 0, 0, named)


def test_what_ran_beside_us_is_named(tmp_path):
    write(tmp_path, "proc/loadavg", "7.90 1 1 1/1 1")
    before, after = counters(0.0, mine=1.0, other=1.0), counters(1.0, mine=1.01, other=4.0)
    high, stolen, busy = disturbances(before, after, 10.0, tmp_path)
    assert high.found == f"7.9 on {os.cpu_count()} cores" and high.advice
    assert stolen.found == f"{1 / (10 * (os.cpu_count() or 1)):.1%} of the cores"
    assert "other (10000001) 30%" in busy.found and "mine" not in busy.found


def test_a_quiet_machine_has_nothing_to_change(tmp_path):
    write(tmp_path, "proc/loadavg", "0.01 1 1 1/1 1")
    still = counters(0.0, other=1.0)
    assert not any(finding.advice for finding in disturbances(still, still, 10.0, tmp_path))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no process can be pinned here")
def test_the_load_is_that_of_the_cores_that_the_process_may_use(tmp_path, monkeypatch):
    write(tmp_path, "proc/loadavg", "7.90 1 1 1/1 1")
    for usable, found in ((4, 7.9), (1, 1.98)):
        monkeypatch.setattr(os, "cpu_count", lambda: 4)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, usable=usable: set(range(usable)))
        assert watch(lambda: None, tmp_path)[1].load == found


def test_counters_are_those_of_this_machine():
    before = read_counters()
    after = read_counters(with_processes=True)
    assert after.own_s >= before.own_s > 0
    if Path("/proc/stat").exists():
        assert (after.busy_s or 0) >= (before.busy_s or 0) > 0
        assert os.getpid() in after.processes
