"""The charts of a run as files, a PNG each, from its records alone.

What they show is said in `bench.report.studies`, how they look in `bench.report.charts.drawing`. What failed
or was skipped is not drawn but counted under the chart.
"""

from collections.abc import Sequence
from pathlib import Path

from bench.report.blocks import CHARTS_FOLDER
from bench.report.charts.drawing import SETTINGS, Style, round_values, style
from bench.report.charts.files import SUFFIX, save_figure
from bench.report.labels import Record
from bench.report.studies import CHARTS

__all__ = ["CHARTS", "CHARTS_FOLDER", "SETTINGS", "Style", "draw", "round_values", "style"]

_DPI = 170


def draw(run_folder: Path, records: Sequence[Record]) -> list[Path]:
    """Draws every chart that the records have something for into `<run_folder>/charts/`.

    Returns:
        the files written, a PNG a chart.
    """
    import matplotlib

    folder = Path(run_folder) / CHARTS_FOLDER
    written = []
    with matplotlib.rc_context(SETTINGS):
        for name, chart in CHARTS.items():
            figure = chart.draw(records)
            if figure is not None:
                folder.mkdir(exist_ok=True)
                written.append(folder / f"{name}{SUFFIX}")
                save_figure(figure, written[-1], dpi=_DPI)
    return written
