"""Keep the baseline that a machine's runs are compared with: its folder, and replacing it in one step."""

import re
import shutil
from pathlib import Path

from bench.gate.revisions import CannotCompare, Side
from bench.records.csv_file import RECORDS_FILE
from bench.records.files import write_whole
from bench.records.run_folder import ENVIRONMENT_FILE

PINNED = Path("results/baselines")


def pinned_baseline(root: Path, current: Side) -> Path:
    """The folder of the pinned baseline; raises CannotCompare where there is none."""
    folder = pinned_folder(root, current)
    if not folder.is_dir():
        raise CannotCompare("no pinned baseline", f"{folder}: is not there; --accept makes it")
    return folder


def pinned_folder(root: Path, side: Side) -> Path:
    """The folder of the baseline of the side's machine: of its name only letters and digits, as it is
    somebody's input."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", f"{side.fact('machine')} {side.fact('device')}").strip("-").lower()
    return root / (name[:100] or "unnamed")


def pin(folder: Path, side: Side) -> None:
    """Puts the side's runs in the folder's place, all of them or none.

    Raises:
        OSError: a file cannot be written; the folder is as it was.
    """
    new, old = (folder.with_name(f".{folder.name}.{word}") for word in ("new", "old"))
    for left_over in (new, old):
        shutil.rmtree(left_over, ignore_errors=True)
    try:
        for number, process in enumerate(side.processes, start=1):
            _copy(process.file, new / f"{number:02d}")
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _copy(file: Path | None, folder: Path) -> None:
    assert file is not None, "a simulated process is not pinned"
    folder.mkdir(parents=True)
    write_whole(folder / RECORDS_FILE, file.read_bytes())
    if file.with_name(ENVIRONMENT_FILE).is_file():
        write_whole(folder / ENVIRONMENT_FILE, file.with_name(ENVIRONMENT_FILE).read_bytes())
