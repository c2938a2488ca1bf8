"""Write files whole or not at all."""

import os
import stat
from pathlib import Path


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
