"""The worker: what it answers, what stops it, and that nothing of it is left behind."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import bench
from bench.processes import worker
from bench.processes.worker import MemoryLimit, Nursery, TimeLimit, Worker, WorkerDied, WorkerError
from bench.timing.memory import memory_mark

ROOT = Path(bench.__file__).parent.parent
MEGABYTE = 1 << 20


class Service:
    """What the workers of these tests run; `from_main` is known to nobody but its process."""

    def __init__(self, greeting: str = "hello"):
        if greeting == "refuse":
            raise ValueError("no such greeting")
        self.greeting = greeting
        self.kept: list[bytearray] = []

    def greet(self, name):
        return f"{self.greeting} {name}"

    def variable(self, name):
        return os.environ.get(name)

    def collector(self):
        return gc.isenabled()

    def path(self):
        return sys.path

    def sleep(self, seconds):
        time.sleep(seconds)
        return seconds

    def spin(self):
        while True:
            pass

    def take(self, megabytes, every_s=0.0):
        for _ in range(megabytes):
            self.kept.append(bytearray(b"x") * MEGABYTE)
            time.sleep(every_s)
        return len(self.kept)

    def rise(self, megabytes):
        mark = memory_mark()
        bytearray(b"x") * (megabytes * MEGABYTE)
        return mark()

    def fail(self, kind):
        raise {
            "known": ValueError("a wrong\nvalue"),
            "unknown": _local_error()("of no module"),
            "odd": Odd(1, 2),
        }[kind]

    def leave(self, how):
        os._exit(7) if how == "exit" else os.kill(os.getpid(), signal.SIGKILL)

    def leave_python(self):
        raise SystemExit(3)


class Odd(Exception):
    """An error that can be pickled, but not read again."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def _local_error() -> type[Exception]:
    class LocalError(Exception):
        pass

    return LocalError


@pytest.fixture(scope="module")
def nursery():
    made = Nursery(__name__)
    yield made
    made.close()


@pytest.fixture(params=["fresh", "forked"])
def start(request):
    """start(...): a worker of `Service`, ended with the test."""
    started: list[Worker] = []
    forked = {"nursery": request.getfixturevalue("nursery")} if request.param == "forked" else {}

    def start(*arguments, **options) -> Worker:
        options = options if "environment" in options else {**forked, **options}
        started.append(Worker(f"{__name__}:Service", arguments, **options))
        return started[-1]

    yield start
    for each in started:
        each.close()


def is_running(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pid: int, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while is_running(pid):
        assert time.monotonic() < end, f"process {pid} is still there"
        time.sleep(0.02)


def test_it_answers_calls_one_after_another(start):
    made = start("good day")
    assert [made.call("greet", name) for name in ("a", "b")] == ["good day a", "good day b"]
    assert made.pid != os.getpid()


def test_it_imports_what_this_process_does_and_has_its_variables_and_the_given_ones(start, monkeypatch):
    monkeypatch.setenv("FROM_THE_PARENT", "1")
    monkeypatch.syspath_prepend("/nowhere/in/particular")
    made = start(environment={"FOR_THE_WORKER": "2"})
    assert made.call("variable", "FROM_THE_PARENT") == "1"
    assert made.call("variable", "FOR_THE_WORKER") == "2"
    assert made.call("path") == sys.path
    assert "FOR_THE_WORKER" not in os.environ


def test_its_garbage_collector_never_runs_by_itself(start):
    assert start().call("collector") is False


def test_an_error_keeps_its_type_and_text_and_tells_where_it_was_raised(start):
    made = start()
    with pytest.raises(ValueError) as raised:
        made.call("fail", "known")
    assert str(raised.value) == "a wrong\nvalue"
    assert "in fail" in raised.value.__notes__[0]
    assert made.call("greet", "again") == "hello again"


@pytest.mark.parametrize(("kind", "text"), [("unknown", "LocalError: of no module"), ("odd", "Odd: 1 and 2")])
def test_an_error_that_cannot_travel_is_a_worker_error_with_its_name(start, kind, text):
    made = start()
    with pytest.raises(WorkerError) as raised:
        made.call("fail", kind)
    assert str(raised.value) == text and type(raised.value) is WorkerError
    assert made.call("greet", "again") == "hello again"


def test_what_is_no_method_is_an_attribute_error(start):
    with pytest.raises(AttributeError, match="no_such"):
        start().call("no_such")


def test_a_service_that_cannot_be_made_says_why_at_the_first_call(start):
    made = start("refuse")
    with pytest.raises(ValueError, match="no such greeting"):
        made.call("greet", "you")
    missing = Worker("bench.no_such_module:Service")
    with missing, pytest.raises(ModuleNotFoundError, match="no_such_module"):
        missing.ready()


@pytest.mark.parametrize("method, arguments", [("sleep", (60,)), ("spin", ())])
def test_a_call_that_takes_too_long_ends_the_worker(start, method, arguments):
    made = start()
    made.ready()
    began = time.monotonic()
    with pytest.raises(TimeLimit, match=r"the limit is 0\.3 s") as raised:
        made.call(method, *arguments, time_limit_s=0.3)
    assert 0.3 <= raised.value.seconds <= time.monotonic() - began < 5
    assert not is_running(made.pid)
    with pytest.raises(TimeLimit):
        made.call("greet", "nobody")


def test_making_the_service_does_not_count_towards_the_limit(start):
    assert start().call("greet", "a", time_limit_s=0.05) == "hello a"  # a Python takes longer to start


def test_the_limit_is_for_one_call(start):
    made = start()
    assert [made.call("sleep", 0.2, time_limit_s=0.5) for _ in range(4)] == [0.2] * 4


def test_too_much_memory_ends_the_worker_and_tells_how_much_it_had(start):
    limit = 150 * MEGABYTE
    made = start(memory_limit_bytes=limit)
    assert made.call("take", 20) == 20
    with pytest.raises(MemoryLimit, match=f"the limit is {limit:,} bytes") as raised:
        made.call("take", 1000, 0.002)
    assert limit < raised.value.bytes < 600 * MEGABYTE
    assert not is_running(made.pid)


def test_without_a_limit_it_may_take_what_it_likes(start):
    assert start().call("take", 200) == 200


@pytest.mark.parametrize(
    ("how", "exit_code", "text"), [("exit", 7, "exit code 7"), ("kill", -signal.SIGKILL, "SIGKILL")]
)
def test_a_worker_that_dies_is_an_error_with_its_exit(start, how, exit_code, text):
    made = start()
    with pytest.raises(WorkerDied, match=text) as raised:
        made.call("leave", how)
    assert raised.value.exit_code == exit_code
    with pytest.raises(WorkerDied):
        made.call("greet", "nobody")


def test_one_killed_between_calls_is_an_error_too(start):
    made = start()
    made.ready()
    os.kill(made.pid, signal.SIGKILL)
    wait_until_gone(made.pid)
    with pytest.raises(WorkerDied, match="SIGKILL"):
        made.call("greet", "nobody")


def test_an_exit_of_what_it_runs_is_the_end_of_it(start):
    with pytest.raises(WorkerDied, match="exit code 3"):
        start().call("leave_python")


def test_closing_ends_it_and_twice_is_once(start):
    made = start()
    made.ready()
    made.close()
    made.close()
    assert not is_running(made.pid)
    with pytest.raises(WorkerError, match="closed"):
        made.call("greet", "nobody")


@pytest.fixture
def interruptible():
    """Ctrl-C raises here, also where a shell started pytest in the background, which makes it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_is_the_parents_and_ends_the_worker(start):
    made = start()
    made.ready()
    os.kill(made.pid, signal.SIGINT)
    assert made.call("greet", "still") == "hello still"
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        made.call("sleep", 60)
    assert not is_running(made.pid)


PARENT = """
import sys
from bench.timing.memory import memory_mark
from bench.processes.worker import Nursery, Worker
nursery = Nursery("bench.tests.processes.test_worker") if {forked} else None
made = Worker("bench.tests.processes.test_worker:Service", nursery=nursery)
made.ready()
print(made.pid, nursery._process.pid if nursery else made.pid, flush=True)
made.call("{method}", *{arguments})
"""


@pytest.mark.parametrize("forked", [False, True])
@pytest.mark.parametrize("method, arguments", [("sleep", (60,)), ("spin", ())])
def test_it_ends_with_its_parent_however_that_ends(forked, method, arguments):
    program = PARENT.format(forked=forked, method=method, arguments=arguments)
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert all(is_running(pid) for pid in pids)
        parent.kill()
    for pid in pids:
        wait_until_gone(pid)


def test_a_second_worker_does_not_keep_the_first_alive():
    """It must not have inherited the pipe by whose end the first knows that it shall end."""
    service = f"{__name__}:Service"
    with Worker(service) as first, Worker(service) as second:
        first.ready(), second.ready()
        first._process.stdin.close()
        wait_until_gone(first.pid)
        assert second.call("greet", "you") == "hello you"


def test_a_worker_of_a_dead_nursery_cannot_be_had_and_says_so():
    made = Nursery(__name__)
    os.kill(made._process.pid, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="SIGKILL"):
        Worker(f"{__name__}:Service", nursery=made)
    made.close()


def test_the_memory_mark_sees_what_is_taken_and_given_back(start):
    made = start()
    assert made.call("rise", 0) < 8 * MEGABYTE
    assert 60 * MEGABYTE <= made.call("rise", 64) < 80 * MEGABYTE  # the system counts it in batches
    assert made.call("rise", 1) < 16 * MEGABYTE  # not that of the call before


def test_short_calls_are_not_watched(start, monkeypatch):
    """The caller wakes up for nothing but the answer, as long as that takes less than a tenth of a second."""
    made = start()
    made.ready()
    looks = []
    monkeypatch.setattr(worker.Worker, "resident_bytes", lambda self: looks.append(1))
    assert made.call("sleep", 0.03) == 0.03 and looks == []
    assert made.call("sleep", 0.25) == 0.25 and 1 <= len(looks) <= 3
