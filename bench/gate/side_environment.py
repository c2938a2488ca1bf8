"""Give each side of a session its own code, and its own packages where they differ."""

import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.gate.repository import CannotMeasure, Repository

_READY = "ready"
# prints where each module that it is given comes from, a line each
_ORIGINS = """
import sys
from importlib.util import find_spec
for name in sys.argv[1:]:
    spec = find_spec(name)
    print(spec.origin or next(iter(spec.submodule_search_locations)) if spec else "")
"""


def declared_requirements(repository: Repository, commit: str) -> tuple[str, ...]:
    """The packages that a revision's pyproject.toml asks for; raises CannotMeasure where it is no TOML."""
    text = repository.text(commit, "pyproject.toml")
    try:
        project = tomllib.loads(text or "").get("project", {})
    except tomllib.TOMLDecodeError as error:
        raise CannotMeasure(f"{commit[:12]}: its pyproject.toml cannot be read: {error}") from None
    return tuple(sorted(project.get("dependencies", ())))


def search_path(root: Path, tree: Path, work: Path) -> str:
    """The PYTHONPATH of a side: its tree, and in it whatever this Python would import from the repository.

    Args:
        root: the repository's own work tree, whose files must not be imported.
        tree: the side's work tree.
        work: the session's folder, which may lie in the repository.
    """
    house = Path(__file__).parents[2]  # where `bench` lies
    given = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    entries = [tree, *_twins(root, tree, work), *(entry for entry in map(Path, given) if entry.is_absolute())]
    if not _is_installed(house):
        entries.append(house)
    outside = (
        str(entry) for entry in entries if entry.is_relative_to(tree) or not _is_code(entry, root, work)
    )
    return os.pathsep.join(dict.fromkeys(outside))


def _twins(root: Path, tree: Path, work: Path) -> Iterator[Path]:
    """In the side's tree, the folders of the repository that this Python imports from."""
    for entry in sys.path:
        folder = Path(os.path.realpath(entry or "."))
        # an editable install leaves the name of its hook there, which is no place
        if folder.exists() and _is_code(folder, root, work):
            yield tree / folder.relative_to(root)


def _is_code(folder: Path, root: Path, work: Path) -> bool:
    """True for a folder of the repository's own code, and not for packages that are installed within it."""
    folder = Path(os.path.realpath(folder))
    inside = folder.is_relative_to(root) and not folder.is_relative_to(os.path.realpath(work))
    return inside and not _is_installed(folder)


def _is_installed(folder: Path) -> bool:
    return any(
        folder.is_relative_to(os.path.realpath(sysconfig.get_path(name))) for name in ("purelib", "stdlib")
    )


def make_environment(folder: Path, requirements: Sequence[str]) -> Path:
    """An environment that has what this one has, and over it the requirements; made once.

    Returns:
        Its Python.

    Raises:
        CannotMeasure: it cannot be made, or pip cannot install a requirement.
    """
    python = folder / "bin" / "python"
    if (folder / _READY).exists():
        return python
    try:
        venv.create(folder, clear=True, with_pip=True, symlinks=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotMeasure(f"{folder}: no environment can be made: {error}") from None
    (packages,) = folder.glob("lib/python*/site-packages")
    inherited = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    (packages / "inherited.pth").write_text(inherited)
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--", *requirements],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it does not say why"])[-1]
        raise CannotMeasure(f"pip cannot install {' '.join(requirements)}: {said}")
    (folder / _READY).touch()
    return python


def check_origin(
    python: Path, tree: Path, place: Path, environment: Mapping[str, str], targets: Sequence[str]
) -> None:
    """Raises CannotMeasure where a side would not import its own code, but what both sides have."""
    modules = [target.rpartition(":")[0] for target in targets]
    own = [name for name in ("bench", "cells") if (tree / name / "__init__.py").is_file()]
    names = list(dict.fromkeys([*own, *(name for name in modules if not is_file(name))]))
    if not names:
        return
    done = subprocess.run(
        [python, "-c", _ORIGINS, *names],
        cwd=tree / place,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    origins = done.stdout.splitlines() if done.returncode == 0 else [""] * len(names)
    for name, origin in zip(names, origins, strict=True):
        if not Path(os.path.realpath(origin)).is_relative_to(os.path.realpath(tree)) or not origin:
            found = f"comes from {origin}" if origin else "is not found"
            raise CannotMeasure(f"{name}: {found}, not from the revision's work tree {tree}")


def is_file(place: str) -> bool:
    """True where what stands before a target's colon is a file, not a module."""
    return place.endswith(".py") or os.sep in place
