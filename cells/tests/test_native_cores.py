"""The native engine's threads: no more than the process has cores, and its container has the time of."""

import math
import os

import pytest

from cells.engines.native import cores

BOTH = "0::/a/b\n4:cpu,cpuacct:/\n7:memory:/a\n"


def version_1(quota, folder="cpu,cpuacct", period=100_000):
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": f"{period}\n"}


# the groups of a process, the files of the hierarchies, and the quota
LIMITS = {
    "none": (BOTH, {}, None),
    "of the root": (BOTH, {"cpu.max": "150000 100000\n"}, 1.5),
    "the least of nested groups": (
        BOTH,
        {"cpu.max": "max 100000", "a/cpu.max": "300000 100000", "a/b/cpu.max": "400000 100000"},
        3,
    ),
    "of a group that it is not in": (BOTH, {"a/c/cpu.max": "100000 100000"}, None),
    "another period": ("0::/a\n", {"a/cpu.max": "50000 20000"}, 2.5),
    "without a period": ("0::/a\n", {"a/cpu.max": "50000"}, None),
    "of no time": ("0::/a\n", {"a/cpu.max": "100000 0"}, None),
    "nonsense": (BOTH, {"cpu.max": "nonsense"}, None),
    "below 1": (BOTH, version_1(50_000), 0.5),
    "version 1 without one": (BOTH, version_1(-1), None),
    "version 1 without a period": (BOTH, {"cpu,cpuacct/cpu.cfs_quota_us": "50000"}, None),
    "version 1 in another order": ("4:cpuacct,cpu:/\n", version_1(200_000), 2),
    "version 1 alone": ("1:cpu:/a\n2:cpuacct:/\n", version_1(200_000, "cpu/a"), 2),
    "version 1 of other controllers": ("3:cpuset:/\n", version_1(200_000, "cpuset"), None),
    "version 1 of a group of other controllers": ("3:cpuset:/a\n4:cpu:/b\n", version_1(1, "cpu/a"), None),
    "version 1 in a folder of other controllers": ("4:cpu:/a\n", version_1(1, "cpuset/a"), None),
    "the least of both versions": (BOTH, {"cpu.max": "300000 100000", **version_1(200_000)}, 2),
    "version 2 beside version 1": ("1:cpu:/\n0::/a\n", {"unified/a/cpu.max": "200000 100000"}, 2),
    "of a container that is the root": ("0::/docker/1\n", {"cpu.max": "200000 100000"}, 2),
    "nested in a container that is the root": (
        "4:cpu:/docker/1/a/b\n",
        {**version_1(300_000, "cpu"), **version_1(200_000, "cpu/a")},
        2,
    ),
    "beside the root of a container": ("0::/../a\n", {"cpu.max": "200000 100000"}, 2),
    "of a group with a colon": ("0::/a:b\n", {"a:b/cpu.max": "200000 100000"}, 2),
    "no groups": ("", {"cpu.max": "200000 100000"}, None),
    "groups of nonsense": ("nonsense\n", {"cpu.max": "200000 100000"}, None),
}


@pytest.mark.parametrize("case", LIMITS)
def test_heeds_the_quota_of_a_container(case, tmp_path, monkeypatch):
    groups, limits, quota = LIMITS[case]
    for name, text in limits.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "groups").write_text(groups)
    assert cores.cpu_quota(tmp_path / "groups", tmp_path) == quota


def test_no_control_groups_are_no_quota(tmp_path):
    assert cores.cpu_quota(tmp_path / "lacks", tmp_path / "lacks too") is None


@pytest.mark.parametrize("quota", [None, -1, 0.01, 0.5, 1, 1.5, 3, 100])
def test_a_part_of_a_core_is_a_thread(quota, monkeypatch):
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert cores.usable_cores() == (max(1, min(math.ceil(quota), 8)) if quota else 8)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
def test_heeds_the_cores_that_it_may_run_on(monkeypatch):
    """As `taskset` gives them; also where they change."""
    monkeypatch.setattr(cores, "cpu_quota", lambda: None)
    before = os.sched_getaffinity(0)
    assert cores.usable_cores() == len(before)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
