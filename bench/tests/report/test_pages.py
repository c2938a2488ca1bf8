"""The README and the pages as they are committed: their length, their links, their blocks."""

import re
from pathlib import Path

import pytest

import bench
from bench.__main__ import main

ROOT = Path(bench.__file__).parent.parent
PAGES = sorted(
    path for folder in (".", "bench", "cells", "results", "ci") for path in (ROOT / folder).glob("*.md")
)
MOST_LINES = 200  # of the README


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_of_results_stands_in_the_list():
    listed = (ROOT / "results" / "README.md").read_text()
    assert all(f"]({page.name})" in listed for page in (ROOT / "results").glob("[a-z]*.md"))


def test_the_blocks_are_those_of_their_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert main(["readme", "--check"]) == 0, capsys.readouterr().err
