"""Write a figure to a file. matplotlib makes the figure; nothing of it is imported here."""

import io
from pathlib import Path
from typing import Any

from bench.records.files import write_whole

SUFFIXES = (".png", ".svg")
# what matplotlib would write of itself and of the day: without it, the same figure gives the same bytes
_UNWRITTEN: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
}


def save_figure(figure, file: Path, *, dpi: float, **metadata: str) -> None:
    """Writes a figure whole: the same bytes for the same figure.

    Args:
        figure: of matplotlib.
        file: ends in one of `SUFFIXES`.
        dpi: dots an inch.
        metadata: texts that stand in the file beside the picture.

    Raises:
        OSError: the file cannot be written.
    """
    content = io.BytesIO()
    written = {**_UNWRITTEN[file.suffix], **metadata}
    figure.savefig(content, dpi=dpi, metadata=written, format=file.suffix[1:])
    write_whole(file, content.getvalue())
