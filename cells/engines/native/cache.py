"""The user's cache folder of compiled libraries: what it gives is whole, and the user's own.

A library that others can write could run anything as this user, and one that was cut kills the process that
maps it. Each one's name ends with the digest of its content, which is compared before it is loaded.
"""

import atexit
import functools
import hashlib
import os
import shutil
import stat
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SCRATCH, _UNLOCKED = "compiling-", "new-"  # how the names of scratch folders begin
_STALE_S = 3600.0  # no compiler takes as long


@functools.cache
def folder():
    """The user's folder; one of this process alone where that cannot be written, or by others too."""
    try:
        own = _caches() / "recurrent-cell-benchmark"
        own.mkdir(parents=True, exist_ok=True, mode=0o700)
        if _is_own(own.lstat(), stat.S_ISDIR) and os.access(own, os.W_OK):
            _sweep(own)
            return own
    except (OSError, RuntimeError):  # no such folder, or no home
        pass
    temporary = tempfile.TemporaryDirectory(prefix="cells-")
    atexit.register(temporary.cleanup)
    return Path(temporary.name)


def _caches():
    """The folder of all programs' caches; a path from the folder one is in means another one everywhere.

    Raises:
        RuntimeError: there is none.
    """
    told = Path(os.environ.get("XDG_CACHE_HOME", ""))
    path = told if told.is_absolute() else Path.home() / ".cache"
    if not path.is_absolute():
        raise RuntimeError(f"{path} is not absolute")
    return path


def _is_own(status, is_of_kind):
    """Whether a file or folder is of the kind, and this user's, and nobody else can write it."""
    others = stat.S_IWGRP | stat.S_IWOTH
    return is_of_kind(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & others


def find(name):
    """The path of the library that was kept under a name, or None; what must not be loaded is removed."""
    for path in folder().glob(f"{name}-*.so"):
        if _is_sound(path):
            return path
        remove(path)
    return None


def keep(made, name):
    """Moves a library into the folder; its path there.

    Raises:
        OSError: it cannot be moved, or is not whole: mapped, it would kill the process.
    """
    content = Path(made).read_bytes()
    if not _is_whole(content):
        raise OSError("what the compiler made ends too early")
    Path(made).chmod(0o700)
    path = folder() / f"{name}-{hashlib.sha256(content).hexdigest()}.so"
    return Path(made).replace(path)  # in one step, for another process may look for it


def remove(path):
    """Removes a file, or whatever stands there, if it can be removed."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_sound(path):
    """Whether a file is the user's own, no link, and has the content that its name tells."""
    try:
        with open(path, "rb", opener=_open_itself) as file:
            if not _is_own(os.fstat(file.fileno()), stat.S_ISREG):
                return False
            return path.stem.endswith("-" + hashlib.file_digest(file, "sha256").hexdigest())
    except OSError:
        return False


def _open_itself(path, flags):
    """Opens a file and not what it links to; does not wait where it is a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _is_whole(content):
    """Whether a 64-bit ELF file has all segments that its headers name; of others the loader says so."""
    if content[:5] != b"\x7fELF\x02":
        return bool(content)
    order = ">" if content[5:6] == b"\x02" else "<"
    try:
        (start,) = struct.unpack_from(f"{order}Q", content, 32)
        size, count = struct.unpack_from(f"{order}HH", content, 54)
        for number in range(count):
            # type, flags, place in the file, two addresses, bytes in the file
            _, _, place, _, _, length = struct.unpack_from(f"{order}IIQQQQ", content, start + number * size)
            if place + length > len(content):
                return False
    except struct.error:
        return False
    return count > 0


@contextmanager
def scratch() -> Iterator[Path]:
    """A new folder in the cache folder, for a compiler; removed at the end, and swept if this process is
    killed."""
    made = Path(tempfile.mkdtemp(prefix=_UNLOCKED, dir=folder()))
    held = None
    try:
        held = _locked(made)
        made = made.rename(made.with_name(_SCRATCH + made.name.removeprefix(_UNLOCKED)))
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        if held is not None:
            os.close(held)


def _locked(path):
    """A descriptor that holds a lock on a folder, which ends with the process.

    Raises:
        OSError: another process holds it.
    """
    import fcntl  # not on Windows

    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _sweep(own):
    """Removes the scratch folders whose processes have ended, and what else is no library and an hour old."""
    for path in own.iterdir():
        if path.name.startswith(_SCRATCH):
            with suppress(OSError):
                os.close(_locked(path))
                remove(path)
        elif path.name.startswith((_UNLOCKED, "tmp")):
            with suppress(OSError):
                if time.time() - path.lstat().st_mtime > _STALE_S:
                    remove(path)
