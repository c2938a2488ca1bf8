"""What the hooks of a session keep in pytest's stash, by key."""

from typing import TYPE_CHECKING

import pytest

from bench.cases.choice import Choice
from bench.cases.comparisons import Row
from bench.processes.worker import Nursery

if TYPE_CHECKING:
    from bench.cluster.run import ClusterRun
    from bench.runner.refining import Rest
    from bench.runner.row import Record
    from bench.runner.run import Run
    from bench.runner.tasks import Settings

run: "pytest.StashKey[Run | ClusterRun]" = pytest.StashKey()
forking = pytest.StashKey[Nursery | None]()
choice = pytest.StashKey[Choice]()
wanted = pytest.StashKey[list[Row]]()
notes = pytest.StashKey[list[str]]()
left_out = pytest.StashKey[list[str]]()
may_use_cudnn = pytest.StashKey[bool]()
latest: "pytest.StashKey[tuple[str, Record]]" = pytest.StashKey()
settings: "pytest.StashKey[Settings]" = pytest.StashKey()
max_time_s = pytest.StashKey[float]()  # of a case's blocks, the first time
end_s = pytest.StashKey[float]()  # when the budget is spent, on the monotonic clock
rest: "pytest.StashKey[Rest]" = pytest.StashKey()  # what is still wide at the end
is_told = pytest.StashKey[bool]()
