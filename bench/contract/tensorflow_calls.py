"""Finds the places where a user's code calls TensorFlow: on another back end of Keras it may not.

There a call may fail, or, which is worse, give the right numbers by way of NumPy and lose the gradient.
"""

import linecache
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import FrameType
from typing import Any

from bench.contract.report import short_path

ADVICE = "write it with keras.ops, which runs on every back end"
_MOST = 3  # places that are named
_LOOK_UPS = ("__getattr__", "__getattribute__", "__dir__", "<module>")
_TRACED = "__autograph_generated_file"  # in the name of the file that tf.function makes of a function
_PYTHON = os.path.dirname(os.__file__) + os.sep


class TensorflowCalls(list[str]):
    """The places, `file:line: source`, each once."""

    def in_words(self) -> str:
        """Names the first places and how many more there are."""
        more = len(self) - _MOST
        return "; ".join(self[:_MOST]) + (f"; and {more} more" if more > 0 else "")


@contextmanager
def noted() -> Iterator[TensorflowCalls]:
    """Notes, in this thread, the lines that call TensorFlow.

    Its own lines, Keras', Python's and ours do not count, nor does looking up a name: `tf.keras` is Keras on
    any back end.
    """
    calls, tensorflow = TensorflowCalls(), _folder("tensorflow")
    libraries = (tensorflow, _folder("keras"), _folder("bench"), "<frozen")

    def note(frame: FrameType, event: str, _: Any) -> None:
        caller = _written(frame.f_back)
        code = frame.f_code
        if event != "call" or caller is None or not code.co_filename.startswith(tensorflow):
            return
        file, line = caller.f_code.co_filename, caller.f_lineno
        if code.co_name in _LOOK_UPS or file.startswith(libraries) or _is_pythons(file):
            return
        place = f"{short_path(file)}:{line}: {linecache.getline(file, line).strip()}"
        if _TRACED in file:
            place = f"tf.function of {caller.f_code.co_name.removeprefix('tf__')}"
        if place not in calls:
            calls.append(place)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(before)


def _written(frame: FrameType | None) -> FrameType | None:
    """The frame, or the nearest behind it whose code stands in a file: a library makes some as it runs."""
    while frame is not None and frame.f_code.co_filename == "<string>":
        frame = frame.f_back
    return frame


def _is_pythons(file: str) -> bool:
    """True for a module of Python's own, which importing TensorFlow goes through."""
    return file.startswith(_PYTHON) and "-packages" not in file


def _folder(package: str) -> str:
    """The folder of a package, which is not imported; where there is none, a text that begins no path."""
    spec = find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return places[0] + os.sep if places else "\0"
