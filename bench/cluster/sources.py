"""The files of a user's cells as they travel: a worker never imports from the client's disk."""

import ast
import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench.cases.user_cells import UserCellError, UserCells

Files = tuple[tuple[str, bytes], ...]  # paths relative to the folder of a cell's file, and what they hold


def travelling(user_cells: UserCells) -> dict[str, Files]:
    """The files of each target: its own, and the modules beside it that it imports.

    Returns:
        The files by the target's place, the text before its colon.

    Raises:
        UserCellError: a target is named by its module, or its file cannot be read.
    """
    return {place: _files_of(place) for place in sorted(_places(user_cells))}


def unpacked(user_cells: UserCells, files: dict[str, Files]) -> UserCells:
    """The same user cells, of files that are written into a temporary folder here, each content once."""
    moved = {place: str(_written(place, of_place)) for place, of_place in files.items()}

    def moved_text(text: str) -> str:
        place, _, name = text.rpartition(":")
        return f"{moved[place]}:{name}" if place in moved else text

    return replace(
        user_cells,
        targets=tuple(map(moved_text, user_cells.targets)),
        baseline=None if user_cells.baseline is None else moved_text(user_cells.baseline),
    )


def _places(user_cells: UserCells) -> set[str]:
    texts = [*user_cells.targets, *filter(None, [user_cells.baseline])]
    return {text.rpartition(":")[0] for text in texts if ":" in text}


def _files_of(place: str) -> Files:
    path = Path(place).expanduser()
    if path.suffix != ".py":
        raise UserCellError(f"{place}: in a cluster a cell travels as its file: name it path/to/file.py:Name")
    folder, found, waiting = path.parent, dict[str, bytes](), [path]
    while waiting:
        file = waiting.pop()
        name = file.relative_to(folder).as_posix()
        if name in found:
            continue
        try:
            found[name] = file.read_bytes()
        except OSError as error:
            raise UserCellError(f"{file}: cannot be read: {error.strerror or error}") from None
        waiting += _modules_beside(folder, found[name])
    return tuple(sorted(found.items()))


def _modules_beside(folder: Path, source: bytes) -> Iterator[Path]:
    """The files, in the folder, of the modules and packages that a source imports."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # loading it says so
        return
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in names:
            first = name.partition(".")[0]
            module, package = folder / f"{first}.py", folder / first
            if module.is_file():
                yield module
            elif (package / "__init__.py").is_file():
                yield from sorted(package.rglob("*.py"))


def _written(place: str, files: Files) -> Path:
    """The cell's file in a folder whose name follows from all the contents."""
    digest = hashlib.sha256(repr(files).encode()).hexdigest()[:16]
    folder = _root() / digest
    for name, content in files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return folder / Path(place).name


def _root() -> Path:
    """This process's folder for what travelled here; made once."""
    global _made
    if _made is None or not Path(_made.name).is_dir():
        _made = tempfile.TemporaryDirectory(prefix="bench-cells-")
    return Path(_made.name)


_made: tempfile.TemporaryDirectory[str] | None = None
