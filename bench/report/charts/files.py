"""Write a figure to a file. matplotlib makes the figure; nothing of it is imported here.

A chart is one PNG, which every README and editor shows. As SVG it stands in the report's page, which draws
the same charts from the same records.
"""

import io
from pathlib import Path

from bench.records.files import write_whole

SUFFIX = ".png"


def save_figure(figure, file: Path, *, dpi: float, **metadata: str) -> None:
    """Writes a figure whole: the same bytes for the same figure.

    Args:
        figure: of matplotlib.
        file: ends in `SUFFIX`.
        dpi: dots an inch.
        metadata: texts that stand in the file beside the picture.

    Raises:
        OSError: the file cannot be written.
    """
    content = io.BytesIO()
    figure.savefig(content, dpi=dpi, metadata={"Software": None, **metadata}, format="png")
    write_whole(file, content.getvalue())
