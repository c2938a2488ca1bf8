"""The machine's C++ compiler, and the libraries that it makes.

The compiler is a stranger: it may not be there, may never end, print anything, and make half a library. All
that ends as `Unavailable`, with the reason.
"""

import ctypes
import functools
import hashlib
import os
import platform
import re
import selectors
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import tensorflow as tf

from cells.engines.native import cache
from cells.engines.native.cache import folder as _cache_folder
from cells.engines.native.translation import Unavailable

COMPILE_S = 30.0  # a library takes 2 s on one core, and a case of a benchmark has 60 s to begin
_VERSION_S = 10.0
_MOST_SAID = 1 << 16  # bytes of a compiler's output that are kept
_MOST_TOLD = 300  # characters of it in a message
_FOLDER = Path(__file__).parent
_FLAGS = (
    *("-std=c++17", "-O2", "-march=native", "-fno-math-errno", "-fno-trapping-math"),
    *("-fno-exceptions", "-fno-rtti", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread"),
)
_out_of_time: set[tuple[str, str]] = set()  # compilers that did not end; they are not waited for again


@functools.cache
def compiler():
    """(path, version) of the machine's C++ compiler, or None: that of CXX, or the first that is there."""
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        path = name and shutil.which(name)
        with suppress(OSError):  # no program, or one that does not end
            if path:
                with _started([path, "--version"]) as process:
                    return path, _said(process, time.monotonic() + _VERSION_S)
    return None


@contextmanager
def _started(command, **environment):
    """Starts a compiler, which is killed, and what it has started, if it is still there at the end."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        with process:  # waits, and closes its output
            pass


def _said(process, deadline):
    """The end of what a process prints, once it has ended.

    Args:
        deadline: of `time.monotonic`.

    Raises:
        TimeoutError: it has not ended by then.
    """
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            block = os.read(process.stdout.fileno(), _MOST_SAID) if selector.select(left) else b""
            if not block:
                break
            said = (said + block)[-_MOST_SAID:]
    try:
        process.wait(max(deadline - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        raise TimeoutError("it did not end") from None
    return said.decode(errors="replace")


def _told(said):
    """The end of a compiler's output as a message holds it: on one line, control characters shown."""
    line = " ".join(said.split())[-_MOST_TOLD:]
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in line)


def _processor():
    """What `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine(), platform.processor()
    names = ("flags", "Features", "model name")
    return platform.machine(), *sorted({line for line in lines if line.startswith(names)})


loaded: dict = {}  # what `operations` has made, by its arguments


def operations(header, source="recurrence", bits=32, meanwhile=lambda: None):
    """(forward, backward): the TensorFlow operations that a source file makes of a "cell.h".

    Args:
        header: the text of "cell.h".
        source: "recurrence" or "stages".
        bits: of the numbers that it computes with, 32 or 64.
        meanwhile: called while the compiler runs; not at all where the library is in the cache.

    Their names begin with a namespace, "FusedRNN>", which who loads a SavedModel with one of them is told.

    Raises:
        Unavailable: there is no compiler, or it failed, or what it made cannot be loaded.
    """
    key = header, source, bits
    if key not in loaded:
        with _failures_told():
            loaded[key] = _load(*_libraries(header, source, bits, meanwhile))
    return loaded[key]


@contextmanager
def _failures_told():
    """Raises what may go wrong with a library as `Unavailable`."""
    if compiler() is None:
        raise Unavailable("there is no C++ compiler: none of c++, g++, clang++ or what CXX names")
    try:
        yield
    except (OSError, AttributeError, ValueError, ImportError, tf.errors.OpError) as error:
        raise Unavailable(f"its library cannot be made or loaded: {_told(str(error))}") from error


def checked(header, fault_of):
    """What `fault_of()` finds in the library of a "cell.h"; it is asked once where that is None."""
    note = _note(header)
    fault = None if note.exists() else fault_of()
    if fault is None:
        with suppress(OSError):  # then it is asked again
            note.touch()
    return fault


def _note(header):
    return _cache_folder() / f"checked-{_digest(header)}"


def _libraries(header, source="recurrence", bits=32, meanwhile=lambda: None):
    """The paths of the two libraries, support and the cell's; what is not in the cache is compiled."""
    names = {each: f"{each}-{_digest(text)}" for each, text in (("support", str(bits)), (source, header))}
    paths = {source: cache.find(name) for source, name in names.items()}
    missing = [source for source, path in paths.items() if path is None]
    if missing:
        _note(header).unlink(missing_ok=True)  # it is of the library that there was
        with cache.scratch() as scratch:
            namespace = f'#define NAME "FusedRNN>{_digest(header)}"\n'
            Path(scratch, "cell.h").write_text(namespace + header)
            with _compiling(missing, scratch, bits):
                meanwhile()
            paths |= {source: cache.keep(scratch / f"{source}.so", names[source]) for source in missing}
    return paths.values()


@contextmanager
def _compiling(sources, scratch, bits):
    """Has the compiler make "SOURCE.so" in a folder of each source, all at once, while the context lasts.

    Raises:
        Unavailable: it failed.
    """
    path, _ = compiler()
    if compiler() in _out_of_time:
        raise Unavailable(f"{path} did not end within {COMPILE_S:g} s before")
    deadline = time.monotonic() + COMPILE_S
    with ExitStack() as stack:
        started = [
            stack.enter_context(_started(_command(source, scratch, bits), TMPDIR=str(scratch)))
            for source in sources
        ]
        yield
        for source, process in zip(sources, started, strict=True):
            try:
                said = _said(process, deadline)
            except TimeoutError:
                _out_of_time.add(compiler())
                raise Unavailable(f"{path} did not end within {COMPILE_S:g} s") from None
            if process.returncode:
                raise Unavailable(f"{path} failed: {_told(said) or 'without a word'}")
            if not (scratch / f"{source}.so").is_file():
                raise Unavailable(f"{path} made no library: {_told(said) or 'without a word'}")


def _command(source, scratch, bits):
    files = [str(_FOLDER / f"{source}.cc"), "-o", str(scratch / f"{source}.so")]
    includes = [*tf.sysconfig.get_compile_flags(), f"-I{scratch}"]
    # To read TensorFlow's symbols takes the linker 0.4 s, half of its time: support brings them.
    links = ["-Wl,--no-as-needed", *tf.sysconfig.get_link_flags()] if source == "support" else []
    return [compiler()[0], *_FLAGS, f"-DBITS={bits}", *includes, *files, *links]


def _load(support, recurrence):
    try:
        ctypes.CDLL(str(support), ctypes.RTLD_GLOBAL)  # the other finds its functions there, and TensorFlow's
        module = tf.load_op_library(str(recurrence))
        return tuple(_operation(module, direction) for direction in ("forward", "backward"))
    except (OSError, AttributeError, tf.errors.OpError):
        for path in (support, recurrence):  # to be made anew
            cache.remove(path)
        raise


def _operation(module, direction):
    """Raises AttributeError where a library has no such operation."""
    names = [name for name in dir(module) if re.fullmatch(f"fused_rnn_.*_{direction}", name)]
    return getattr(module, names[0] if names else f"fused_rnn_{direction}")


def _digest(header):
    """A library's name: all that it is made from, in a few letters."""
    sources = [path.read_text() for pattern in ("*.cc", "*.h") for path in sorted(_FOLDER.glob(pattern))]
    everything = [*sources, header, *_FLAGS, *compiler(), *_processor(), tf.__version__]
    return "X" + hashlib.sha256("\0".join(everything).encode(errors="backslashreplace")).hexdigest()[:16]
