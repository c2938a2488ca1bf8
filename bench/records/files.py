"""Write files whole or not at all; read files that may be anything, and end with a record error or a text."""

import json
import math
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from bench.records.schema import RecordError

_MOST_BYTES = 2**31
_MOST_TEXT = 2**26  # of JSON and other texts: ours have a few million bytes at most
_DEEPEST = 50  # levels of a JSON file: ours have 4
_LONGEST_INTEGER = 19  # digits: 64 bits


def write_whole(path: Path, content: str | bytes) -> None:
    """Replaces a file by one with this content, in one step: a reader finds the old file or the new one.

    The content goes into a temporary file beside it, is forced to the disk, and takes the file's place.
    Links to the file and its permissions stay. If anything goes wrong, the old file is untouched and the
    temporary file is removed. A path that is no regular file (`/dev/stdout`, a pipe) is written to directly.

    Args:
        content: bytes, or a text, which is written as UTF-8; what UTF-8 cannot hold is escaped.

    Raises:
        OSError: it cannot be written; the error names the file.
    """
    path = Path(path)
    content = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    try:
        mode = _mode(path)
        if mode is None or stat.S_ISREG(mode):
            _replace(Path(os.path.realpath(path)), content, mode)
        else:
            path.write_bytes(content)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _replace(file: Path, content: bytes, mode: int | None) -> None:
    new = file.with_name(f".{os.getpid()}.new")  # of this process: another may be writing the same file
    new.unlink(missing_ok=True)
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as opened:
            if mode is not None:
                os.fchmod(opened.fileno(), stat.S_IMODE(mode))
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(new, file)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def open_regular(path: Path) -> BinaryIO:
    """A regular file, opened to be read.

    Raises:
        RecordError: it cannot be opened, or is something else: a folder, a device, a pipe, which could keep a
            reader waiting for ever.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        why = getattr(error, "strerror", None) or error
        raise RecordError(f"{path}: cannot be read: {why}") from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "folder" if stat.S_ISDIR(mode) else "pipe or a device"
        raise RecordError(f"{path}: is a {kind}, not a file")
    return open(descriptor, "rb")


def read_bytes(path: Path, most: int = _MOST_BYTES) -> bytes:
    """A regular file's content; raises RecordError where it cannot be read or has more than `most` bytes."""
    with open_regular(path) as opened:
        size = os.fstat(opened.fileno()).st_size
        if size > most:
            raise RecordError(f"{path}: is too large: {size:,} bytes, at most {most:,} are read")
        try:
            return opened.read()
        except (OSError, MemoryError) as error:
            raise RecordError(f"{path}: cannot be read: {error}") from None


def read_text(path: Path) -> str:
    """A regular file's content as text; raises RecordError where it cannot be read or is no UTF-8."""
    try:
        return read_bytes(path, _MOST_TEXT).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}: cannot be read: not text: {error}") from None


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        RecordError: it cannot be read, is no JSON, is nested deeper than 50 levels, or holds a number that no
            computer word can: such a file breaks whoever walks through it or counts with it.
    """
    try:
        return parse_json(read_text(path))
    except RecordError:
        raise
    except ValueError as error:
        raise RecordError(f"{path}: cannot be read: {error}") from None


def parse_json(text: str) -> Any:
    """What a text of JSON says; raises ValueError where it is none, or as `read_json` does."""
    try:
        found = json.loads(text, parse_int=_integer, parse_float=_finite, parse_constant=_finite)
        deep = _is_deep(found)
    except RecursionError:
        deep = True
    if deep:
        raise ValueError(f"nested deeper than {_DEEPEST} levels")
    return found


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > _LONGEST_INTEGER:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not finite")
    return number


def _is_deep(found: Any) -> bool:
    level = [found]
    for _ in range(_DEEPEST):
        level = [
            value
            for each in level
            if isinstance(each, (dict, list))
            for value in (each.values() if isinstance(each, dict) else each)
        ]
    return bool(level)
