"""A room of bench imports only rooms to its left; what reads records imports no TensorFlow."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import bench

ROOT = Path(bench.__file__).parent.parent
HEAVY = {"tensorflow", "keras", "pandas", "matplotlib", "cells"}
MOST_MODULES = 12  # of a folder, beside its __init__

FIRST = {"timing", "records", "contract"}
# a room: the rooms it may import
ROOMS: dict[str, set[str]] = {
    **{room: set() for room in FIRST},
    "cases": FIRST,
    "backend": FIRST | {"cases"},
    "proof": FIRST | {"cases", "backend"},
    "processes": FIRST | {"cases", "backend", "proof"},
    "runner": FIRST | {"cases", "backend", "proof", "processes"},
    "cluster": FIRST | {"cases", "backend", "proof", "processes", "runner"},
    "report": {"timing", "records", "cases"},
    "history": {"timing", "records", "cases", "report"},
    "gate": {"timing", "records", "cases", "report"},
    "benchmarks": FIRST | {"cases", "cluster"},
}
ON_TOP = {"api", "selftest", "commands", "session", "plugin", "__main__"}
READING = ("records", "report", "history", "gate")


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


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    module_name(file): file
    for file in sorted((ROOT / "bench").rglob("*.py"))
    if "tests" not in file.relative_to(ROOT).parts
}


def of_bench(name: str) -> set[str]:
    """The other modules of bench that a module imports."""
    found = set()
    for dotted in imported(FILES[name]):
        module = dotted if dotted in FILES else dotted.rpartition(".")[0]
        if module in FILES:
            found.add(module)
    return found - {name}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_room_is_in_the_rule():
    assert {room_of(name) for name in FILES} - {""} == {*ROOMS, *ON_TOP}


def test_no_module_imports_itself_by_way_of_others():
    assert set(TopologicalSorter({name: of_bench(name) for name in FILES}).static_order()) >= set(FILES)


@pytest.mark.parametrize("name", [name for name in FILES if room_of(name) in ROOMS])
def test_a_room_imports_only_rooms_to_its_left(name):
    room = room_of(name)
    assert {room_of(other) for other in of_bench(name)} - {room} <= ROOMS[room]


@pytest.mark.parametrize("name", [name for name in FILES if room_of(name) in READING])
def test_what_reads_records_never_imports_tensorflow(name):
    assert not {root.partition(".")[0] for root in imported(FILES[name])} & {"tensorflow", "keras", "cells"}


_OF_CELLS = {file.parent for file in (ROOT / "cells").rglob("*.py")} - {ROOT / "cells" / "tests"}


@pytest.mark.parametrize(
    "folder", sorted({file.parent for file in FILES.values()} | _OF_CELLS), ids=lambda path: path.name
)
def test_a_folder_holds_at_most_a_dozen_modules(folder):
    modules = [file.name for file in folder.glob("*.py") if file.name != "__init__.py"]
    assert len(modules) <= MOST_MODULES


_OF_CELLS = {file.parent for file in (ROOT / "cells").rglob("*.py")} - {ROOT / "cells" / "tests"}


@pytest.mark.parametrize(
    "folder", sorted({file.parent for file in FILES.values()} | _OF_CELLS), ids=lambda path: path.name
)
def test_each_folder_says_what_lives_there(folder):
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))


@pytest.mark.parametrize(
    "file", [pytest.param(file, id=file.stem) for file in sorted((ROOT / "cells").rglob("*.py"))]
)
def test_cells_never_import_bench(file):
    assert "bench" not in {name.partition(".")[0] for name in imported(file)}


def test_importing_the_plugin_and_what_reads_records_is_light():
    modules = ["bench.plugin", *(name for name in FILES if room_of(name) in READING)]
    program = f"import {', '.join(modules)}, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "bench" in loaded
    assert not loaded & HEAVY


_PLURALS = (
    *(
        "cases",
        "rows",
        "runs",
        "workers",
        "processes",
        "columns",
        "traces",
        "blocks",
        "instances",
        "features",
    ),
    *("units", "timesteps", "steps", "cores", "calls", "fits", "weights", "variables", "states", "files"),
    *("charts", "minutes", "seconds", "hours", "days"),
)


@pytest.mark.parametrize("name", FILES)
def test_what_may_be_one_is_counted(name):
    """`f"{len(rows)} rows"` would say `1 rows`."""
    assert not re.findall(rf"\{{len\([^{{}}]+\}} (?:{'|'.join(_PLURALS)})\b", FILES[name].read_text())
