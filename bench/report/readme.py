"""README blocks: the tables that READMEs take from runs, written between two marker lines.

A block stands between two lines, `<!-- bench:NAME RUN -->` and `<!-- /bench:NAME -->`; RUN, the run's
folder as seen from the README, is written by this command, so that a check needs no argument.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.records.environment import REHEARSAL
from bench.records.files import read_text, write_whole
from bench.records.frame import load, rows
from bench.records.schema import RecordError
from bench.records.text import counted
from bench.report.blocks import Block
from bench.report.labels import Record

_MARKER = re.compile(r"<!-- (?P<end>/?)bench:(?P<name>\S+?)(?: (?P<run>.+?))? -->")

_PICTURE = re.compile(r"!\[[^]]*\]\(([^)]+)\)")


class ReadmeError(ValueError):
    """A README whose blocks cannot be made; the message names the file and the line."""


@dataclass(frozen=True)
class _Place:
    """A block as it stands in a file: the numbers of its marker lines, counted from 0."""

    name: str
    run: str | None
    start: int
    end: int


def read(file: Path) -> str:
    try:
        return read_text(file)
    except RecordError as error:
        raise ReadmeError(str(error)) from error


def remade(file: Path, text: str, run: Path | None, blocks: Mapping[str, Block]) -> str:
    """The file's text with every block made anew, from `run` or from the run that the block names.

    Raises ReadmeError for a block that is not one of `blocks`, and RecordError for a run that cannot be read.
    """
    lines = text.splitlines()
    known: dict[Path, list[Record]] = {}
    for block in reversed(list(_blocks(file, lines))):
        if block.name not in blocks:
            where = f"{file}:{block.start + 1}"
            raise ReadmeError(f"{where}: unknown block {block.name}: must be one of {', '.join(blocks)}")
        lines[block.start : block.end + 1] = _made(file, block, blocks[block.name], run, known)
    return "\n".join(lines) + "\n"


def write_block(file: Path, name: str, text: str, heading: str) -> bool:
    """Writes the text of one block that needs no run; at the file's end, under a heading, where it has none.

    Returns:
        whether the file changed.
    """
    before = read(file) if file.exists() else ""
    lines = before.splitlines()
    places = [(block.start, block.end + 1) for block in _blocks(file, lines) if block.name == name]
    made = [f"<!-- bench:{name} -->", *text.splitlines(), f"<!-- /bench:{name} -->"]
    if not places:
        lines += [*([""] if lines else []), f"## {heading}", ""]
        places = [(len(lines), len(lines))]
    for start, end in reversed(places):
        lines[start:end] = made
    after = "\n".join(lines) + "\n"
    if after != before:
        write_whole(file, after)
    return after != before


def _made(
    file: Path, block: _Place, maker: Block, run: Path | None, known: dict[Path, list[Record]]
) -> list[str]:
    """The lines of one block, its markers included; `known` keeps the runs that have been read."""
    marker = f"bench:{block.name}"
    if maker.takes == "runs":
        pair = _two_runs_of(file, block)
        marker += f" {block.run}"
        text = maker.make(*(_records(folder, known) for folder in pair))
    elif maker.needs_run:
        folder = _run_of(file, block, run, known)
        shown = Path(os.path.relpath(folder, file.parent)).as_posix()
        marker += f" {shown}"
        text = maker.make(shown if maker.takes == "picture" else _records(folder, known))
        _check_pictures(file, block, text)
    else:
        text = maker.make(*([file.parent] if maker.takes == "folder" else []))
    return [f"<!-- {marker} -->", *text.splitlines(), f"<!-- /bench:{block.name} -->"]


def _check_pictures(file: Path, block: _Place, text: str) -> None:
    """Raises ReadmeError for a picture that is not there."""
    for picture in _PICTURE.findall(text):
        if not (file.parent / picture).is_file():
            raise ReadmeError(f"{file}:{block.start + 1}: block {block.name}: no file {picture}")


def _run_of(file: Path, block: _Place, run: Path | None, known: dict[Path, list[Record]]) -> Path:
    """`run`, for the blocks that show a run of the same sweeps or none yet; else the run the block names."""
    if run is None:
        return _named_run(file, block)
    if block.run is None:
        return run
    try:
        shown = _sweeps(_records(file.parent / block.run, known))
    except RecordError:
        return run
    return run if shown == _sweeps(_records(run, known)) else file.parent / block.run


def _records(folder: Path, known: dict[Path, list[Record]]) -> list[Record]:
    if folder not in known:
        known[folder] = list(rows(load(folder)))
        if any(str(record["machine"]).startswith(REHEARSAL) for record in known[folder]):
            raise ReadmeError(f"{folder}: is of a rehearsal, whose figures say nothing")
    return known[folder]


def _sweeps(records: list[Record]) -> set[object]:
    return {record["sweep"] for record in records}


def _two_runs_of(file: Path, block: _Place) -> list[Path]:
    """The two runs that a block names, a blank between them."""
    names = (block.run or "").split()
    if len(names) != 2:
        raise ReadmeError(
            f"{file}:{block.start + 1}: block {block.name} names {counted(len(names), 'run')}, not 2: "
            f"<!-- bench:{block.name} RUN RUN -->"
        )
    return [file.parent / name for name in names]


def _named_run(file: Path, block: _Place) -> Path:
    if block.run is None:
        raise ReadmeError(f"{file}:{block.start + 1}: block {block.name} names no run yet: give RUN")
    return file.parent / block.run


def _blocks(file: Path, lines: Sequence[str]) -> Iterator[_Place]:
    """The blocks of a file, from its first line to its last; raises ReadmeError at what is no block."""
    opened: tuple[int, re.Match[str]] | None = None
    for number, line in enumerate(lines):
        marker = _MARKER.fullmatch(line.strip())
        if marker is None:
            continue
        where, name = f"{file}:{number + 1}", marker["name"]
        if not marker["end"]:
            if opened:
                break
            opened = number, marker
        elif opened is None or opened[1]["name"] != name:
            raise ReadmeError(f"{where}: block {name} ends but did not begin")
        else:
            yield _Place(name, opened[1]["run"], opened[0], number)
            opened = None
    if opened:
        raise ReadmeError(f"{file}:{opened[0] + 1}: block {opened[1]['name']} has no end marker")


def differences(file: Path, text: str, made: str) -> Iterator[str]:
    """A line for each block whose text is not the one made."""
    old, new = text.splitlines(), made.splitlines()
    for before, after in zip(_blocks(file, old), _blocks(file, new), strict=True):
        if old[before.start : before.end + 1] != new[after.start : after.end + 1]:
            yield f"{file}:{before.start + 1}: block {before.name} differs: run `python -m bench readme`"
