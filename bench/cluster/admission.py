"""Which workers may measure: all of one kind, known by name, and asked before anything is timed."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from bench.cluster.station import About


class ClusterError(RuntimeError):
    """A cluster that cannot be used, or has been lost; the message names the worker and what to do."""


_ADDRESS = re.compile(r"(tcp|tls|ucx|ws|wss)://[^\s/:]+:(\d+)")
_LAST_PORT = 65535


def check_address(address: str) -> None:
    """Raises ClusterError for what is no address of a scheduler."""
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found[2]) <= _LAST_PORT:
        raise ClusterError(f"--scheduler {address or repr(address)}: must be tcp://HOST:PORT")


RESOURCE = "bench"  # a worker has one of it, so that it measures one comparison at a time
_START = "start it with: dask worker HOST:PORT --nthreads=1 --resources bench=1"


def check_resources(workers: Iterable[Mapping]) -> None:
    """Raises ClusterError unless every worker says that it measures one comparison at a time.

    Args:
        workers: for each what the scheduler knows: `name` and `resources`.
    """
    for worker in workers:
        count = worker["resources"].get(RESOURCE, 0)
        if count != 1:
            raise ClusterError(
                f"worker {worker['name']}: its resource {RESOURCE} is {count:g}, not 1; {_START}"
            )


def differences(about: About, expected: Mapping[str, str | None]) -> list[str]:
    """In what a worker's versions are not those expected, in words."""
    return [
        f"{name} {about.versions.get(name) or 'unknown'} instead of {wanted or 'unknown'}"
        for name, wanted in expected.items()
        if about.versions.get(name) != wanted
    ]


def check_versions(workers: Sequence[About], expected: Mapping[str, str | None]) -> None:
    """Raises ClusterError, naming the workers, unless all have the versions expected: those of the client."""
    wrong = {about.name: found for about in workers if (found := differences(about, expected))}
    if wrong:
        named = "; ".join(f"worker {name} has {', '.join(found)}" for name, found in sorted(wrong.items()))
        raise ClusterError(f"{named}: rows of different code do not compare; install the same on each")


def check_cores(workers: Sequence[About]) -> None:
    """Raises ClusterError, naming both, where two workers of one machine would measure on the same cores."""
    for one, other in combinations(sorted(workers, key=lambda about: about.name), 2):
        shared = sorted(set(one.cores) & set(other.cores))
        if one.host == other.host and shared:
            cores = ", ".join(map(str, shared))
            raise ClusterError(
                f"workers {one.name} and {other.name} of {one.host} would both measure on the cores {cores}: "
                "pin each to its own (taskset, --cpu-bind), or start one a machine"
            )


def by_machine(workers: Sequence[About], each_machine: bool) -> dict[str, list[About]]:
    """The workers by their hardware key.

    Raises:
        ClusterError: there are several keys, and not each is to be measured.
    """
    found: dict[str, list[About]] = {}
    for about in sorted(workers, key=lambda about: about.name):
        found.setdefault(about.machine, []).append(about)
    if len(found) > 1 and not each_machine:
        kinds = "; ".join(f"{key}: {', '.join(each.name for each in of)}" for key, of in found.items())
        raise ClusterError(
            f"the workers are {len(found)} kinds of machine ({kinds}), whose rows do not compare: "
            "--each-machine measures on each of them; or start workers of one"
        )
    return found
