"""The machine's C++ compiler, and the libraries that it makes, kept in the user's cache folder."""

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

from cells.native.translation import Unavailable

_FOLDER = Path(__file__).parent
_FLAGS = (
    *("-std=c++17", "-O2", "-march=native", "-fno-math-errno", "-fno-trapping-math"),
    *("-shared", "-fPIC", "-fvisibility=hidden", "-pthread"),
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
        lines = [platform.processor()]
    names = ("flags", "Features", "model name")
    return platform.machine(), *sorted({line for line in lines if line.startswith(names)})


@functools.cache
def _cache_folder():
    """The user's folder for the compiled libraries; one of this process alone if that cannot be written."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "recurrent-cell-benchmark"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_uid == os.getuid() and os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="cells-"))


@functools.cache
def operations(header):
    """(forward, backward): the TensorFlow operations of the cell that a "cell.h" describes.

    Their names begin with a namespace, "FusedRNN>", which who loads a SavedModel with one of them is told.

    Raises:
        Unavailable: there is no compiler, or it failed.
    """
    if compiler() is None:
        raise Unavailable("there is no C++ compiler: none of c++, g++, clang++ or what CXX names")
    support, digest = _Library("support"), _digest(header)
    cell = _Library("recurrence", f'#define NAME "FusedRNN>{digest}"\n{header}', digest)
    for library in (support, cell):
        library.wait()
    ctypes.CDLL(str(support.path), ctypes.RTLD_GLOBAL)  # the other finds its functions there
    module = tf.load_op_library(str(cell.path))
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

    def __init__(self, source, header="", digest=None):
        folder = _cache_folder()
        self.path = folder / f"{source}-{digest or _digest(header)}.so"
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
        """Waits for the compiler; raises Unavailable with its words if it failed."""
        if self._compiling is None:
            return
        with self._scratch as scratch:
            said, _ = self._compiling.communicate()
            if self._compiling.returncode:
                raise Unavailable(f"{compiler()[0]} failed: {said.strip()[-1000:]}")
            Path(scratch, "made.so").replace(self.path)  # whole, for another process may look for it
