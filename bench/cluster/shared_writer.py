"""Write a run's CSV while several of its cases are in flight, on several workers."""

import os
import time
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path

from bench.records.csv_file import RECORDS_FILE, line
from bench.records.run_folder import PROCESSES_FOLDER
from bench.records.schema import COLUMNS, Value

_SYNC_S = 1.0  # how often what was written is forced to the disk: a row is in the file at once all the same


def process_folders(run: Path, processes: int) -> list[Path]:
    """The folder of each process of a run: its own where there is one alone."""
    if processes == 1:
        return [run]
    return [run / PROCESSES_FOLDER / f"{process:02d}" for process in range(1, processes + 1)]


class SharedWriter:
    """Appends the rows of cases that have ended; after them stand those in flight, as `failed`/`killed`.

    Whatever kills this process leaves every row that had ended. A file of 10,000 rows is not written anew for
    each of them, as `RecordWriter` does, which has one case in flight.

    Args:
        folder: the run's, to be made.
        kept: the records of a run that goes on: its folder is there, and holds these from now on.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path, kept: Iterable[Mapping[str, Value]] | None = None):
        folder.mkdir(parents=True, exist_ok=kept is not None)
        self.path = folder / RECORDS_FILE
        header = line([column.name for column in COLUMNS])
        rows = b"".join(line(record[column.name] for column in COLUMNS) for record in kept or ())
        fresh = self.path.with_suffix(".csv.new")
        fresh.write_bytes(header + rows)
        fresh.replace(self.path)
        self._file = open(self.path, "r+b", buffering=0)  # noqa: SIM115 - open as long as the run goes on
        self._end = len(header + rows)
        self._in_flight: dict[Hashable, bytes] = {}
        self._synced = 0.0

    def begin(self, key: Hashable, record: Mapping[str, Value]) -> None:
        """Writes the row of a case in flight; what the record says of how it ended stands there until it has.

        Args:
            key: the case's, by which it is known until it ends.
        """
        self._in_flight[key] = line(record.values())
        self._write(b"")

    def withdraw(self, key: Hashable) -> None:
        """Takes away the row of a case that is in flight no more and has no record."""
        if self._in_flight.pop(key, None) is not None:
            self._write(b"")

    def finish(self, key: Hashable, record: Mapping[str, Value]) -> None:
        """Writes the row of a case that has ended."""
        self._in_flight.pop(key, None)
        self._write(line(record.values()))

    def close(self) -> None:
        """Closes the file; what is in flight stays there."""
        self._file.close()

    def _write(self, finished: bytes) -> None:
        """First the file is cut behind the rows that have ended: at each moment it can be read."""
        self._file.truncate(self._end)
        self._file.seek(self._end)
        self._file.write(finished + b"".join(self._in_flight.values()))
        self._end += len(finished)
        if time.monotonic() - self._synced > _SYNC_S:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()
