"""What is committed under results/: it is light, and every picture that a page shows can be drawn again."""

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

import bench
from bench.records.csv_file import read_records
from bench.report.charts.run_charts import CHARTS

ROOT = Path(bench.__file__).parent.parent
MOST_BYTES = 25_000_000
RUN = re.compile(r"\d{8}-\d{6}-\d+")


@cache
def committed(under: str) -> list[Path]:
    """The files that git knows of, as paths from the root."""
    done = subprocess.run(["git", "ls-files", "-z", under], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a checkout", allow_module_level=True)
    return [Path(name) for name in done.stdout.split("\0") if name and (ROOT / name).exists()]


def pages() -> list[Path]:
    """The pages that show results."""
    return [file for file in committed(".") if file.suffix == ".md"]


def pictures() -> list[Path]:
    """The charts of runs that the pages show, as paths from the root."""
    found = set()
    for page in pages():
        for link in re.findall(r"!\[[^]]*\]\(([^)]+)\)", (ROOT / page).read_text("utf-8")):
            path = (ROOT / page.parent / link).resolve()
            if path.is_relative_to(ROOT / "results"):
                found.add(path.relative_to(ROOT))
    return sorted(found)


def test_the_results_are_light():
    weight = sum((ROOT / file).stat().st_size for file in committed("results"))
    assert weight <= MOST_BYTES


def test_a_picture_is_kept_in_one_format():
    drawn = [file for file in committed("results") if file.suffix in (".png", ".svg", ".pdf", ".jpg")]
    assert drawn
    assert {file.suffix for file in drawn} == {".png"}


def test_charts_are_kept_of_runs_that_a_page_names():
    with_charts = {file.parts[1] for file in committed("results/*/charts/*")} - {"charts"}
    named = {run for page in pages() for run in RUN.findall((ROOT / page).read_text("utf-8"))}
    assert with_charts
    assert with_charts <= named


def test_every_run_keeps_its_records_and_its_environment():
    files = {file for file in committed("results") if RUN.fullmatch(file.parent.name)}
    runs = {file.parent for file in files}
    assert runs
    for run in runs:
        assert {run / "records.csv", run / "environment.json"} <= files


def test_every_picture_that_a_page_shows_is_committed():
    assert pictures()
    assert set(pictures()) <= set(committed("results"))


@pytest.mark.parametrize(
    "picture", [picture for picture in pictures() if RUN.fullmatch(picture.parts[1])], ids=str
)
def test_a_picture_that_a_page_shows_can_be_drawn_again(picture):
    records = read_records(ROOT / picture.parent.parent)
    assert CHARTS[picture.stem].draw(records) is not None
