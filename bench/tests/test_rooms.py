"""Who imports whom: the arrows run one way, and what reads records needs neither TensorFlow nor pandas."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from itertools import takewhile
from pathlib import Path

import pytest

import bench

ROOT = Path(bench.__file__).parent.parent
HEAVY = {"tensorflow", "keras", "pandas", "matplotlib", "cells"}

# The way of a case: a file imports from the rows above its own alone, at its top or in a function. Every
# other file of bench reads records, and may import others that do, and the files of READABLE.
TIERS = (
    {"case", "records", "stats", "environment", "gpu", "chatter", "target", "corpus", "sampling"}
    | {"worker", "memory", "dropout_masks", "flops", "block", "unrolled", "projected", "stack"},
    {"measure", "specimen", "composition"},
    {"runtime"},
    {"peers"},
    {"subjects"},
    {"problem", "questions"},
    {"dropout"},
    {"verify", "tasks", "contract", "remote"},
    {"guests", "check"},
    {"sweeps", "apart"},
    {"estimates"},
    {"session", "timing_selftest"},
    {"plugin"},
    {"__main__", "test_cost", "test_tasks"},
)
READABLE = {"case", "records", "stats", "environment", "subjects", "sweeps"}
LEAD_TO_REPORTS = {"plugin", "timing_selftest", "__main__"}


def imported(file: Path) -> Iterator[str]:
    """The dotted names that a file imports anywhere in it, but for those only the type checker needs."""
    for node in _nodes(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from _nodes(node)


def of_bench(file: Path) -> set[str]:
    """The other files of bench that a file, or those of a folder, import."""
    files = file.rglob("*.py") if file.is_dir() else [file]
    parts = (name.split(".") for each in files for name in imported(each))
    return {part[1] for part in parts if part[0] == "bench" and len(part) > 1} - {file.stem}


FILES = {file.stem: file for file in sorted((ROOT / "bench").glob("*.py")) if file.stem != "__init__"}
FILES["peers"] = ROOT / "bench" / "peers"
READERS = sorted(set(FILES).difference(*TIERS))


def test_no_file_imports_itself_by_way_of_others():
    order = TopologicalSorter({name: of_bench(file) for name, file in FILES.items()})
    assert set(order.static_order()) == set(FILES)


@pytest.mark.parametrize("name", [name for tier in TIERS for name in sorted(tier)])
def test_arrows_run_one_way(name):
    above = takewhile(lambda tier: name not in tier, TIERS)
    allowed = set().union(*above, READERS if name in LEAD_TO_REPORTS else [])
    assert of_bench(FILES[name]) <= allowed


@pytest.mark.parametrize("name", READERS)
def test_reports_read_records_alone(name):
    assert of_bench(FILES[name]) <= READABLE.union(READERS)
    assert not {root.partition(".")[0] for root in imported(FILES[name])} & {"tensorflow", "keras", "cells"}


@pytest.mark.parametrize(
    "file", [pytest.param(file, id=file.stem) for file in sorted((ROOT / "cells").rglob("*.py"))]
)
def test_cells_never_import_bench(file):
    assert "bench" not in {name.partition(".")[0] for name in imported(file)}


def test_importing_the_plugin_and_what_reads_records_is_light():
    modules = ["bench.plugin", *(f"bench.{name}" for name in (*READABLE, *READERS))]
    program = f"import {', '.join(modules)}, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "bench" in loaded
    assert not loaded & HEAVY
