"""A process of its own for what may explode, or must not share ours: it answers calls, and can be killed.

A compile cannot be interrupted and the system kills a process that is out of memory; libraries with thread
pools of their own would fight TensorFlow's. Such work runs in a worker: a fresh Python that makes one
*service*, an object of ours, and calls its methods by name.

    with Worker("bench.programs:Programs", memory_limit_bytes=8 << 30) as worker:
        figures = worker.call("compile", "subject", case, data, time_limit_s=60.0)
        seconds = worker.call("time", "subject")

Arguments, results and errors travel by pickle: an error is raised here with its type and its text, and the
worker's traceback as a note. The worker ends with the `with` block, with a limit that is hit, and when this
process ends, however that happens. Nothing of it shares a clock: legs are timed by the service, inside of
the worker. Its garbage collector runs between calls only where the service says so, never by itself.

This module imports nothing but Python's own: what the worker imports is the service's affair.
"""

import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection, Pipe
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import Any

_END_S = 5.0  # how long a process that has closed its connection may take to end
_WATCH_S = 0.1  # how often the memory is looked at; what a worker can take in between is some 100 MB


@dataclass(frozen=True)
class Limits:
    """The limits of a worker; None is no limit.

    Attributes:
        compile_s: seconds of tracing, compiling and the first call of a program.
        memory_bytes: resident size.
    """

    compile_s: float | None = None
    memory_bytes: int | None = None


NO_LIMITS = Limits()
DEFAULT_LIMITS = Limits(compile_s=60.0)


class WorkerError(RuntimeError):
    """Something went wrong with a worker, or in it: an error whose type is not known here has its name in
    the text."""


class TimeLimit(WorkerError):
    """A call took longer than it may; the worker is killed.

    Attributes:
        seconds: how long it had been running.
    """

    def __init__(self, seconds: float, limit_s: float):
        super().__init__(f"stopped after {seconds:.1f} s, the limit is {limit_s:g} s")
        self.seconds = seconds


class MemoryLimit(WorkerError):
    """The worker took more memory than it may, and is killed.

    Attributes:
        bytes: its resident size when that was seen.
    """

    def __init__(self, size: int, limit: int):
        super().__init__(f"stopped at {size:,} bytes resident, the limit is {limit:,} bytes")
        self.bytes = size


class WorkerDied(WorkerError):
    """The worker's process ended by itself or was killed by somebody else.

    Attributes:
        exit_code: of the process, negative for a signal.
        cause: the exit code or the signal, for people.
        bytes: its resident size when last seen, None where it cannot be known.
    """

    def __init__(self, exit_code: int, size: int | None):
        seen = "" if size is None else f"; {size:,} bytes resident when last seen"
        self.cause = _cause(exit_code)
        super().__init__(f"the worker's process ended: {self.cause}{seen}")
        self.exit_code = exit_code
        self.bytes = size


def _cause(exit_code: int) -> str:
    try:
        return signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"
    except ValueError:
        return f"signal {-exit_code}"


class Worker:
    """A fresh process and the service in it.

    Starting takes no time here: the service is made while the caller goes on, and the first `call` (or
    `ready`) waits for it. An error of its constructor is raised there.

    Args:
        service: `module:Class`, the object whose methods are called.
        arguments: of the class.
        environment: environment variables beside this process's own.
        memory_limit_bytes: the resident size beyond which the worker is killed; None: none. Where the
            system does not tell the size (no /proc) there is no limit.
        nursery: forks the worker, which then has this process's environment.
    """

    def __init__(
        self,
        service: str,
        arguments: tuple[Any, ...] = (),
        environment: Mapping[str, str] | None = None,
        memory_limit_bytes: int | None = None,
        nursery: "Nursery | None" = None,
    ):
        self.memory_limit_bytes = memory_limit_bytes
        self._seen: int | None = None
        self._error: WorkerError | None = None
        self._connection, theirs = Pipe()
        with theirs:
            self._process = _start("serve", theirs, environment) if nursery is None else nursery.fork(theirs)
        self._started = False
        self._send((list(sys.path), service, arguments))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        """True where it can be called; one that has died by itself is found out by a call."""
        return self._error is None

    def ready(self) -> None:
        """Waits until the service is made."""
        if not self._started:
            self._started = True
            self._answer(None)

    def call(self, name: str, *arguments: Any, time_limit_s: float | None = None) -> Any:
        """Calls the service's method `name`; returns what it returns.

        Args:
            time_limit_s: seconds that the call may take, the making of the service not counted.

        Raises:
            TimeLimit, MemoryLimit, WorkerDied: the worker is gone, and each further call raises the same.
            Exception: what the method raised; a `WorkerError` where its type cannot be had here.
        """
        self.ready()
        self._send((name, arguments))
        return self._answer(time_limit_s)

    def resident_bytes(self) -> int | None:
        """The memory that the worker holds, bytes; None where the system does not tell."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_bytes().split()[1])
        except (OSError, IndexError):
            return None
        return pages * os.sysconf("SC_PAGESIZE") or self._seen  # a process that has ended has none

    def close(self) -> None:
        """Ends the worker at once; it holds nothing that anybody needs."""
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._error = self._error or WorkerError("the worker is closed")

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, message: Any) -> None:
        if self._error:
            raise self._error
        try:
            self._connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            raise self._died() from None

    def _answer(self, time_limit_s: float | None) -> Any:
        try:
            self._wait(time_limit_s)
            succeeded, result = self._connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._died() from None
        except BaseException:  # a limit, or Ctrl-C: what the worker does next nobody would read
            self.close()
            raise
        if succeeded:
            return result
        raise _error_of(*result)

    def _wait(self, time_limit_s: float | None) -> None:
        """Until there is an answer, or a limit is hit. While a short call runs, nothing wakes up here."""
        start = time.monotonic()
        while True:
            seconds = time.monotonic() - start
            left = _WATCH_S if time_limit_s is None else min(_WATCH_S, max(0.0, time_limit_s - seconds))
            if self._connection.poll(left):
                return
            self._seen = self.resident_bytes()
            seconds = time.monotonic() - start
            if self._seen and self.memory_limit_bytes and self._seen > self.memory_limit_bytes:
                self._error = MemoryLimit(self._seen, self.memory_limit_bytes)
            elif time_limit_s is not None and seconds >= time_limit_s:
                self._error = TimeLimit(seconds, time_limit_s)
            if self._error:
                raise self._error

    def _died(self) -> WorkerDied:
        straggler = threading.Timer(_END_S, self._process.kill)  # it closed the connection and goes on
        straggler.start()
        died = WorkerDied(self._process.wait(), self._seen)
        straggler.cancel()
        self._error = died
        self.close()
        return died


class _Process(subprocess.Popen):
    """A process of this module's; its standard input ends when this process does, by which it knows."""

    def wait(self, timeout=None):
        code = super().wait(timeout)
        if self.stdin:
            self.stdin.close()
        return code


def _start(task: str, connection: Connection, environment: Mapping[str, str] | None = None) -> _Process:
    return _Process(
        [sys.executable, "-P", "-m", "bench.processes.worker", task, str(connection.fileno())],
        stdin=subprocess.PIPE,
        pass_fds=[connection.fileno()],
        env={**os.environ, "PYTHONPATH": _import_path(), **(environment or {})},
    )


class Nursery:
    """A process that has imported a module and forks workers, which so have imported it: a fresh process in
    milliseconds, where importing TensorFlow takes seconds.

    The import must start no threads that a worker needs (TensorFlow starts its own when it first computes)
    and use no GPU.

    Args:
        module: what is imported.
        environment: environment variables beside this process's own, for it and its workers.
    """

    def __init__(self, module: str, environment: Mapping[str, str] | None = None):
        self._connection, theirs = Pipe()
        with theirs:
            self._process = _start("nurse", theirs, environment)
        self._connection.send((list(sys.path), module))

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def fork(self, connection: Connection) -> "_Forked":
        """A worker's process, which answers at the other end of `connection`.

        Raises:
            WorkerDied: the nursery is gone.
        """
        return _Forked(self, self._call("fork", connection))

    def wait(self, pid: int) -> int:
        """The exit code of a worker's process, once it has ended."""
        return self._call("wait", pid)

    def __enter__(self) -> "Nursery":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the nursery; its workers stay."""
        self._process.kill()
        self._process.wait()
        self._connection.close()

    def _call(self, task: str, argument: Any) -> int:
        try:
            if task == "fork":
                self._connection.send((task, None))
                send_handle(self._connection, argument.fileno(), self._process.pid)
            else:
                self._connection.send((task, argument))
            return self._connection.recv()
        except (OSError, EOFError):
            raise WorkerDied(self._process.wait(), None) from None


class _Forked:
    """A worker's process that is the nursery's child, with what `Worker` needs of `Popen`."""

    def __init__(self, nursery: Nursery, pid: int):
        self.pid = pid
        self._nursery = nursery
        self._code: int | None = None

    def kill(self) -> None:
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        if self._code is None:
            self._code = self._nursery.wait(self.pid)
        return self._code


def _import_path() -> str:
    """PYTHONPATH for a process that is to find this package before any other of its name."""
    house = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, (house, os.environ.get("PYTHONPATH"))))


def _error_of(pickled: bytes | None, text: str, trace: str) -> Exception:
    """The worker's error, as near as it can be had here."""
    error: Exception = WorkerError(text)
    if pickled is not None:
        with suppress(Exception):  # of a class that only the worker has
            error = pickle.loads(pickled)
    error.add_note(f"in the worker:\n{trace}")
    return error


# --- in the worker -----------------------------------------------------------------------------------


def serve(connection: Connection) -> None:
    """Makes the service that the first message names and answers calls until the connection ends."""
    try:
        sys.path[:], service, arguments = connection.recv()
        made = _attempt(lambda: _find(service)(*arguments))
        connection.send((made[0], None) if made[0] else made)
        while True:
            name, arguments = connection.recv()
            connection.send(_attempt(partial(_call, made[1], name, *arguments)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except KeyboardInterrupt:  # raised by what is called: Ctrl-C is ignored here
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except SystemExit:
        raise
    except BaseException:  # a user's own: it ends the process, and the parent says so
        os._exit(1)


def _call(service, name: str, *arguments):
    return getattr(service, name)(*arguments)


def _attempt(function) -> tuple[bool, Any]:
    """(True, the result), or (False, what `_error_of` takes)."""
    try:
        return True, function()
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        trace = "".join(traceback.format_exception(error)).rstrip()
        try:
            pickled = pickle.dumps(error)
            pickle.loads(pickled)  # some can be written and not read
        except Exception:
            pickled = None
        return False, (pickled, text, trace)


def _find(service: str):
    module, _, name = service.partition(":")
    return getattr(import_module(module), name)


def _end_with_parent() -> None:
    """Ends this process, whatever it is doing, as soon as the parent has ended: our standard input is then
    at its end."""

    def watch():
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def nurse(connection: Connection) -> None:
    """Imports the module that the first message names, and forks workers until the connection ends."""
    sys.path[:], module = connection.recv()
    import_module(module)
    gc.collect()
    gc.freeze()  # what is shared stays so
    while True:
        try:
            task, pid = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        if task == "wait":
            connection.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            continue
        handle = recv_handle(connection)
        pid = _fork()
        if pid == 0:
            connection.close()
            work(Connection(handle))
            os._exit(0)
        os.close(handle)
        connection.send(pid)


def _fork() -> int:
    with warnings.catch_warnings():  # Python warns of threads: NumPy's, which know of forks
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def work(connection: Connection) -> None:
    """Serves until the connection, or the parent, ends."""
    _end_with_parent()
    gc.disable()
    serve(connection)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then ends this process
    task, handle = sys.argv[1:]
    {"serve": work, "nurse": nurse}[task](Connection(int(handle)))


if __name__ == "__main__":
    main()
