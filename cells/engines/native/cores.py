"""How many cores a process may use."""

import functools
import math
import os
from pathlib import Path


def usable_cores():
    """Those that the process may run on, and no more than its control group has the time of; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = cpu_quota()
    return max(1, min(cores or 1, math.ceil(quota) if quota else math.inf))


@functools.cache
def cpu_quota(groups="/proc/self/cgroup", root="/sys/fs/cgroup"):
    """How many cores' time the process's control group may take, as a container's limit says; None for any.

    The limit of every group counts that the process's own is in.

    Args:
        groups: the file that names the groups, one of a hierarchy a line: "number:controllers:path".
        root: the folder of the hierarchies.
    """
    quotas = (
        _quota_of(folder)
        for controllers, path in _groups(groups)
        for hierarchy in _hierarchies(Path(root), controllers)
        for folder in _folders(hierarchy, path)
    )
    return min(filter(None, quotas), default=None)


def _groups(file):
    """(controllers, path) of each group that has to do with CPUs; of version 2 there are no controllers."""
    try:
        lines = [line.split(":", 2) for line in Path(file).read_text().splitlines()]
    except OSError:
        return []
    return [each[1:] for each in lines if len(each) == 3 and (not each[1] or "cpu" in each[1].split(","))]


def _hierarchies(root, controllers):
    """The folders that a hierarchy may have: of version 2 the root, or one beside those of version 1, which
    are named after their controllers, in an order of their own."""
    if not controllers:
        return root, root / "unified"
    return [folder for folder in root.glob("*cpu*") if "cpu" in folder.name.split(",")]


def _folders(hierarchy, path):
    """The folders of a group and of those that it is in. A container may see them without the first of their
    names, as its own group is the root there."""
    names = [name for name in path.split("/") if name not in ("", "..")]
    return {
        hierarchy.joinpath(*names[first:last])
        for first in range(len(names) + 1)
        for last in range(first, len(names) + 1)
    }


def _quota_of(folder):
    """The quota of a group: of version 2, or of version 1."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")
            )
        return float(quota) / float(period) if quota not in ("max", "-1") else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
