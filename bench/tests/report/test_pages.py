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


def words(text: str) -> str:
    """A text without its line ends and its figures, which another machine may give otherwise."""
    return re.sub(r"\d[\d.e-]*", "N", " ".join(text.split()))


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


def test_the_check_that_the_readme_quotes_fails_in_these_words(tmp_path):
    from bench.contract.check_cell import check_cell
    from bench.contract.checks import CHECKS
    from bench.contract.load_cell import load_target

    text = (ROOT / "README.md").read_text()
    (cell,) = re.findall(r"^```python\n(# my_cells.py\n.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    (added,) = re.findall(r"With `(h = [^`]+)` before", text)
    (tmp_path / "my_cells.py").write_text(
        cell.replace("        return h", f"        {added}\n        return h")
    )
    target = load_target(f"{tmp_path}/my_cells.py:MyCell")
    (check,) = (check for check in CHECKS if check.name == "independent_samples")
    (result,) = check_cell(target, checks=[check]).checks
    assert result.status == "failed"
    quoted = words(text)
    for part in (f"failed independent_samples: {check.question}", result.message, result.hint):
        assert words(part.replace(f"{tmp_path}/", "")) in quoted


def test_every_page_of_results_stands_in_the_list():
    listed = (ROOT / "results" / "README.md").read_text()
    assert all(f"]({page.name})" in listed for page in (ROOT / "results").glob("[a-z]*.md"))


def test_the_blocks_are_those_of_their_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert main(["readme", "--check"]) == 0, capsys.readouterr().err
