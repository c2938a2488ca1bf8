"""Reads the command line's texts: shapes, modes, options of cases, sweeps.

Each reader returns a value, or raises `ChoiceError` with the option, the text and what is allowed.
"""

import argparse
import difflib
import math
import types
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from bench.cases.case import MODES, SHAPE, TASK_MODES, Case, CaseError
from bench.cases.sweeps import BASE, SWEEPS, Shape, Sweep, SweepError, check_form
from bench.contract.load_cell import TargetError, load_object
from bench.records import options


class ChoiceError(ValueError):
    """An option that cannot be heeded: the message names it, its text and what is allowed."""


def read_shape(text: str) -> Shape:
    """The four sizes of `16,120,40,96`: batch size, timesteps, features, units.

    Raises:
        ChoiceError: there are not four, or one is no positive integer.
    """
    sizes = text.split(",")
    if len(sizes) != len(SHAPE) or not all(size.isascii() and size.isdecimal() for size in sizes):
        raise ChoiceError(f"--shape {text!r}: must be {','.join(SHAPE)}, such as 16,120,40,96")
    batch_size, timesteps, features, units = map(int, sizes)
    try:
        Case("any", "any", "infer", batch_size, timesteps, features, units)
    except CaseError as error:
        raise ChoiceError(f"--shape {text!r}: {error}") from None
    return batch_size, timesteps, features, units


def read_modes(text: str) -> tuple[str, ...]:
    """The modes of `infer,train`.

    Raises:
        ChoiceError: one is no mode.
    """
    for mode in (modes := text.split(",")):
        if mode not in MODES + TASK_MODES:
            raise ChoiceError(f"--mode {mode!r}: must be one of {', '.join(MODES + TASK_MODES)}")
    return tuple(modes)


def read_option(text: str) -> dict[str, Any]:
    """The fields of `Case` in `bidirectional,depth=2,dtype=mixed_bfloat16`; a word of an id is one too.

    Raises:
        ChoiceError: a field that `Case` does not have, a value that it cannot have, or fields that mean
            nothing beside each other.
    """
    given: dict[str, Any] = {}
    for part in text.split(","):
        name, value = _read_part(text, part)
        if name in given:
            raise ChoiceError(f"--option {text}: {name} stands there twice")
        given[name] = value
    try:
        Case("any", "any", "infer", *BASE, **given)
    except CaseError as error:
        raise ChoiceError(f"--option {text}: {error}") from None
    return given


def _read_part(text: str, part: str) -> tuple[str, Any]:
    name, has_value, value = part.partition("=")
    if name in options.FIELDS and (has_value or _kinds(name)[0] is bool):
        return name, _read_value(text, name, value if has_value else "True")
    try:
        return options.read(part)
    except options.UnknownOption:
        pass
    if name in options.FIELDS:
        raise ChoiceError(f"--option {text}: {name} needs a value: {name}=…")
    near = difflib.get_close_matches(name, options.FIELDS, n=3) or options.FIELDS
    raise ChoiceError(f"--option {text}: no option {name!r}; there are {', '.join(near)}")


def _kinds(name: str) -> tuple[type, ...]:
    """The types that a field of `Case` may have."""
    (kind,) = (field.type for field in fields(Case) if field.name == name)
    return get_args(kind) if isinstance(kind, types.UnionType) else (kind,)  # type: ignore[return-value]


def _read_value(text: str, name: str, value: str) -> Any:
    """The value of a field as Python writes it; what it may be is for `Case` to say."""
    *_, last = kinds = _kinds(name)
    if value == "None" and last is types.NoneType:
        return None
    try:
        return {"True": True, "False": False}[value] if kinds[0] is bool else kinds[0](value)
    except (KeyError, ValueError):
        expected = {bool: "True or False", int: "an integer", float: "a number"}[kinds[0]]
        raise ChoiceError(f"--option {text}: {name} {value!r}: must be {expected}") from None


def read_sweep(text: str) -> tuple[str, Sweep]:
    """A sweep and its name: one of `SWEEPS`, or, from `path/to/file.py:name`, a user's.

    Raises:
        ChoiceError: there is no such sweep, or the name stands for something else.
    """
    if text in SWEEPS:
        return text, SWEEPS[text]
    if ":" not in text:
        raise ChoiceError(
            f"--sweep: invalid choice: {text!r} (choose from {', '.join(sorted(SWEEPS))}, or "
            "path/to/my_sweeps.py:name)"
        )
    name = text.rpartition(":")[2]
    if name in SWEEPS:
        raise ChoiceError(f"--sweep {text}: there is a sweep {name!r} already; give yours another name")
    try:
        found = load_object(text)
    except TargetError as error:
        raise ChoiceError(f"--sweep {text}: {error}\n{error.details}".rstrip()) from error
    if not isinstance(found, Sweep):
        raise ChoiceError(f"--sweep {text}: expected a bench.cases.sweeps.Sweep, got {found!r}")
    try:
        check_form(found)
    except SweepError as error:
        raise ChoiceError(f"--sweep {text}: {error}") from None
    return name, found


def path(text: str) -> Path:
    """For argparse: reads the name of a file or a folder; none, as an empty variable gives, is no name."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r}: must name a file or a folder")
    return Path(text)


def positive(kind: type) -> Callable[[str], Any]:
    """For argparse: reads a number of the kind, `int` or `float`, above zero."""
    called = {int: "an integer", float: "a number"}[kind]

    def read(text: str) -> Any:
        try:
            number = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}: must be {called}") from None
        if not 0 < number < math.inf:
            raise argparse.ArgumentTypeError(f"{text}: must be above zero")
        return number

    return read
