"""Runs native programs by another compiler, on another machine, by a sanitizer's rules: without TensorFlow.

    calls = recorded(monkeypatch, lambda: layer(inputs))  # what the native operations were given, and gave
    executable = compiled(calls[0].program, compiler, folder)  # the same C++, linked with `replay.cc`
    results = replayed(executable, compiler, calls)

`replay.cc` has of TensorFlow's C interface what the programs ask of it. A file of calls is 64-bit integers
and what they count: the number of calls; of each the operation, attributes by name, and inputs. Text is a
length and bytes, a tensor the bytes of a number, the rank, the shape and the numbers. A file of results has
the outputs of each call, behind their number.
"""

import hashlib
import io
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from cells.engines import native
from cells.engines.native import library

_SOURCES = Path(library.__file__).parent
_OF_A_LIBRARY = ("-march=native", "-shared", "-fPIC", "-fvisibility=hidden")
_WARNINGS = ("-Wall", "-Werror", "-Wno-unused-function")  # a cell need not use all that it may
_DTYPES = {4: np.float32, 8: np.float64}


class Program(NamedTuple):
    """What a native library is made of.

    Attributes:
        header: the text of "cell.h".
        source: "recurrence" or "stages".
        bits: of a number, 32 or 64.
    """

    header: str
    source: str
    bits: int


class Call(NamedTuple):
    """A call of a native operation.

    Attributes:
        program: the `Program` that has the operation.
        direction: "Forward" or "Backward".
        attributes: dict of integers.
        inputs, outputs: lists of arrays.
    """

    program: Program
    direction: str
    attributes: dict
    inputs: list
    outputs: list


class Compiler(NamedTuple):
    """How a program is compiled and run.

    Attributes:
        command: the compiler, and options of its own.
        runner: what runs the program, as an emulator does; may be empty.
        needs: the programs that must be installed besides.
    """

    command: tuple[str, ...]
    runner: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


# --- recording


def recorded(monkeypatch, function):
    """The calls of native operations that a function makes, in order, without the trials of libraries."""
    calls: list[Call] = []
    operations, checked = native.operations, native.checked

    def watched(header, source, bits, meanwhile):
        program = Program(header, source, bits)
        both = zip(("Forward", "Backward"), operations(header, source, bits, meanwhile), strict=True)
        return tuple(_Watched(program, *each, calls) for each in both)

    def unwatched_trial(header, fault_of):
        fault = checked(header, fault_of)
        calls.clear()
        return fault

    monkeypatch.setattr(native, "operations", watched)
    monkeypatch.setattr(native, "checked", unwatched_trial)
    function()
    return calls


class _Watched:
    def __init__(self, program, direction, operation, calls):
        self.program, self.direction, self.operation, self.calls = program, direction, operation, calls

    def __call__(self, *inputs, **attributes):
        results = self.operation(*inputs, **attributes)
        outputs = list(results) if isinstance(results, (list, tuple)) else [results]

        def note(*arrays):
            copies = list(map(np.array, arrays))  # what is given may be overwritten later
            given, made = copies[: len(inputs)], copies[len(inputs) :]
            self.calls.append(Call(self.program, self.direction, attributes, given, made))

        tf.numpy_function(note, [*inputs, *outputs], [])
        return results


# --- replaying


def compiled(program, compiler, folder):
    """The path of an executable that replays calls of a program.

    Args:
        folder: where it and its parts are; what all programs share is compiled there once for a compiler.

    Raises:
        AssertionError: the compiler failed, or warned.
    """
    own = Path(tempfile.mkdtemp(dir=folder))
    (own / "cell.h").write_text(f'#define NAME ""\n{program.header}')
    flags = [flag for flag in library._FLAGS if flag not in _OF_A_LIBRARY]
    flags += [
        *_WARNINGS,
        f"-DBITS={program.bits}",
        f"-I{tf.sysconfig.get_include()}",
        f"-I{_SOURCES}",
        f"-I{own}",
    ]
    command, *options = compiler.command
    parts = []
    for source in (_SOURCES / "support.cc", Path(__file__).with_name("replay.cc")):
        digest = hashlib.sha256(repr((compiler, program.bits)).encode()).hexdigest()
        parts.append(folder / f"{source.stem}-{digest}.o")
        if not parts[-1].exists():
            _run([command, *flags, *options, "-c", str(source), "-o", str(parts[-1])])
    sources = map(str, (_SOURCES / f"{program.source}.cc", *parts))
    _run([command, *flags, *options, *sources, "-o", str(own / "replay")])
    return own / "replay"


def replayed(executable, compiler, calls, **changed):
    """The outputs of calls, lists of arrays, as an executable computes them.

    Args:
        changed: attributes to be changed; `in_place` says whether outputs may take the place of inputs.
    """
    folder = executable.parent
    (folder / "calls").write_bytes(_bytes_of(calls, changed))
    _run([*compiler.runner, str(executable), str(folder / "calls"), str(folder / "results")])
    file = io.BytesIO((folder / "results").read_bytes())
    return [[_tensor_from(file) for _ in range(_integer_from(file))] for _ in calls]


def _run(command):
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def _bytes_of(calls, changed):
    file = io.BytesIO()

    def put(*numbers):
        file.write(np.array(numbers, np.int64).tobytes())

    def put_text(text):
        put(len(text))
        file.write(text.encode())

    put(len(calls))
    for call in calls:
        attributes = {"in_place": False, **call.attributes, **changed}
        put_text(call.direction)
        put(len(attributes))
        for name, value in attributes.items():
            put_text(name)
            put(int(value))
        put(len(call.inputs))
        for each in call.inputs:
            put(each.itemsize, each.ndim, *each.shape)
            file.write(np.ascontiguousarray(each).tobytes())
    return file.getvalue()


def _integer_from(file):
    return int(np.frombuffer(file.read(8), np.int64)[0])


def _tensor_from(file):
    dtype = np.dtype(_DTYPES[_integer_from(file)])
    shape = [_integer_from(file) for _ in range(_integer_from(file))]
    return np.frombuffer(file.read(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)
