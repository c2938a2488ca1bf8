"""The machine's C++ compiler, and the libraries that it makes, kept in the user's cache folder."""

import atexit
import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import tensorflow as tf

from cells.engines.native.translation import Unavailable

_FOLDER = Path(__file__).parent
_FLAGS = (
    *("-std=c++17", "-O2", "-march=native", "-fno-math-errno", "-fno-trapping-math"),
    *("-fno-exceptions", "-fno-rtti", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread"),
)


@functools.cache
def compiler():
    """(path, version) of the machine's C++ compiler, or None: that of CXX, or the first that is there."""
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        path = name and shutil.which(name)
        if path:
            version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
            return path, version.stdout
    return None


def _processor():
    """What `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine(), platform.processor()
    names = ("flags", "Features", "model name")
    return platform.machine(), *sorted({line for line in lines if line.startswith(names)})


@functools.cache
def _cache_folder():
    """The user's folder for the compiled libraries; one of this process alone if that cannot be written."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recurrent-cell-benchmark"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_uid == os.getuid() and os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # no such folder, or no home
        pass
    temporary = tempfile.TemporaryDirectory(prefix="cells-")
    atexit.register(temporary.cleanup)
    return Path(temporary.name)


@functools.cache
def operations(header, source="recurrence"):
    """(forward, backward): the TensorFlow operations that a source file makes of a "cell.h".

    Their names begin with a namespace, "FusedRNN>", which who loads a SavedModel with one of them is told.

    Raises:
        Unavailable: there is no compiler, or it failed, or what it made cannot be loaded.
    """
    if compiler() is None:
        raise Unavailable("there is no C++ compiler: none of c++, g++, clang++ or what CXX names")
    digest = _digest(header)
    try:
        both = [
            _Library("support", "", _digest("")),
            _Library(source, f'#define NAME "FusedRNN>{digest}"\n{header}', digest),
        ]
        said = [library.wait() for library in both]
        if any(said):
            raise Unavailable(f"{compiler()[0]} failed: {''.join(filter(None, said))}")
        return _load(*both)
    except (OSError, AttributeError, tf.errors.OpError) as error:
        raise Unavailable(f"its library cannot be made or loaded: {error}") from error


def checked(header, fault_of):
    """What `fault_of()` finds in the library of a "cell.h"; it is asked once where that is None."""
    note = _cache_folder() / f"checked-{_digest(header)}"
    fault = None if note.exists() else fault_of()
    if fault is None:
        note.touch()
    return fault


def _load(support, recurrence):
    try:
        ctypes.CDLL(str(support.path), ctypes.RTLD_GLOBAL)  # the other finds its functions there
        module = tf.load_op_library(str(recurrence.path))
    except (OSError, tf.errors.OpError):
        for library in (support, recurrence):  # to be made anew
            library.path.unlink(missing_ok=True)
        raise
    return tuple(
        next(getattr(module, name) for name in dir(module) if re.fullmatch(f"fused_rnn_.*_{direction}", name))
        for direction in ("forward", "backward")
    )


def _digest(header):
    """A library's name: all that it is made from, in a few letters."""
    sources = [path.read_text() for pattern in ("*.cc", "*.h") for path in sorted(_FOLDER.glob(pattern))]
    everything = [*sources, header, *_FLAGS, *compiler(), *_processor(), tf.__version__]
    return "X" + hashlib.sha256("\0".join(everything).encode()).hexdigest()[:16]


class _Library:
    """A library of the cache folder, on its way there if it is new.

    Attributes:
        path: where it is, after `wait`.
    """

    def __init__(self, source, header, digest):
        folder = _cache_folder()
        self.path = folder / f"{source}-{digest}.so"
        self._compiling = None
        if self.path.exists():
            return
        self._scratch = tempfile.TemporaryDirectory(dir=folder)
        scratch = self._scratch.name
        Path(scratch, "cell.h").write_text(header)
        command = [compiler()[0], *_FLAGS, *tf.sysconfig.get_compile_flags(), f"-I{scratch}"]
        command += [str(_FOLDER / f"{source}.cc"), "-o", f"{scratch}/made.so", *tf.sysconfig.get_link_flags()]
        self._compiling = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def wait(self):
        """Waits for the compiler; what it said if it failed."""
        if self._compiling is None:
            return None
        with self._scratch as scratch:
            said, _ = self._compiling.communicate()
            if self._compiling.returncode:
                return said.strip()[-1000:] or "without a word"
            Path(scratch, "made.so").replace(self.path)  # whole, for another process may look for it
        return None
