"""Ask git for revisions, for what is not committed, and for work trees of revisions."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_OF_A_HOOK = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")  # would lead git elsewhere


class CannotMeasure(Exception):
    """Two revisions that cannot be measured; the message is one line that says why."""


@dataclass(frozen=True)
class Repository:
    """The git repository whose work tree is the folder `root`."""

    root: Path

    @classmethod
    def around(cls, folder: Path) -> "Repository":
        """The repository that a folder stands in; raises CannotMeasure where it stands in none."""
        found = cls(folder)._ask("rev-parse", "--show-toplevel")
        if not found:
            raise CannotMeasure(f"{folder}: is in no work tree of git; go into the repository to measure")
        return cls(Path(os.path.realpath(found.strip())))

    def commit(self, revision: str) -> str:
        """The full id of a revision's commit; raises CannotMeasure where there is none."""
        found = self._ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        if not found:
            raise CannotMeasure(
                f"{revision}: no such revision in {self.root}; is it fetched? (git fetch; in a workflow, "
                "actions/checkout with fetch-depth: 0)"
            )
        return found.strip()

    def text(self, commit: str, file: str) -> str | None:
        """A file's text in a commit; None where it is not there. `file` is relative to `root`."""
        return self._ask("show", f"{commit}:{file}")

    def has(self, commit: str, path: str) -> bool:
        """Says whether a commit has a file or folder."""
        return path in ("", ".") or self._ask("cat-file", "-e", f"{commit}:{path}") is not None

    def uncommitted(self) -> list[str]:
        """The tracked files that differ from the commit that is checked out."""
        return (self._ask("diff", "--name-only", "-z", "HEAD") or "").split("\0")[:-1]

    @contextmanager
    def work_tree(self, commit: str, folder: Path) -> Iterator[Path]:
        """A work tree of a commit in `folder`, which is removed whatever happens.

        Raises:
            CannotMeasure: git cannot make it.
        """
        self._remove(folder)  # a killed session's
        try:
            done = self._run("worktree", "add", "--quiet", "--force", "--detach", str(folder), commit)
            if done.returncode:
                raise CannotMeasure(
                    f"{folder}: git makes no work tree of {commit[:12]}: {_last(done.stderr)}"
                )
            yield folder
        finally:
            self._remove(folder)

    def _remove(self, folder: Path) -> None:
        self._run("worktree", "remove", "--force", str(folder))
        shutil.rmtree(folder, ignore_errors=True)
        self._run("worktree", "prune")

    def _ask(self, *arguments: str) -> str | None:
        """What git prints; None where it fails."""
        done = self._run(*arguments)
        return done.stdout if done.returncode == 0 else None

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name not in _OF_A_HOOK}
        try:
            return subprocess.run(
                ["git", *arguments],
                cwd=self.root,
                env=environment,
                capture_output=True,
                text=True,
                errors="surrogateescape",
                check=False,
            )
        except OSError as error:
            raise CannotMeasure(f"git cannot be run in {self.root}: {error.strerror or error}") from None


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["it does not say why"])[-1]
