"""The compiler of the native engine, a stranger, and the cache folder of what it makes."""

import functools
import gc
import hashlib
import os
import re
import subprocess
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import cells
from cells import FusedRNN, GRUCell, LSTMCell
from cells.engines.native import cache, check, library
from cells.engines.native.translation import header_of
from cells.engines.recurrence import Equation
from cells.tests.test_native import engine_of

pytestmark = pytest.mark.skipif(library.compiler() is None, reason="there is no C++ compiler")


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    """No library, in the folder or in memory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(library, "loaded", {})
    caches = (library.compiler, library._cache_folder)
    for each in caches:
        each.cache_clear()
    yield tmp_path / "recurrent-cell-benchmark"
    for each in caches:
        each.cache_clear()


class OwnRNNCell(cells.MinimalRNNCell):
    """An equation that no other test has loaded: TensorFlow loads an operation once in a process."""

    factor = 0.0

    def update(self, gates, states):
        h = keras.ops.tanh(gates[0]) + self.factor * states[0]
        return h, [h]


def refusal(cell):
    cell.build((None, 3))
    return Equation(cell).recurrence.native


def test_compiles_an_equation_once(empty_cache, monkeypatch):
    monkeypatch.setattr(OwnRNNCell, "factor", 0.125)
    assert not isinstance(refusal(OwnRNNCell(3)), str)
    made = {path.name.partition("-")[0]: path.read_bytes() for path in empty_cache.iterdir()}
    assert sorted(made) == ["checked", "recurrence", "support"]
    # To link with TensorFlow is half of a compiler's time: what all cells share is, and brings it for theirs.
    assert [b"libtensorflow" in made[each] for each in ("recurrence", "support")] == [False, True]
    library.loaded.clear()
    monkeypatch.setattr(subprocess, "Popen", None)
    assert not isinstance(refusal(OwnRNNCell(5)), str)


def own(cell_class):
    """Its equation with another output, which no other test has loaded."""

    class OwnCell(cell_class):
        def call(self, sequence, states):
            output, states = super().call(sequence, states)
            return 0.84375 * output, states

    return OwnCell


def test_what_is_only_read_is_freed_at_once(empty_cache, monkeypatch):
    """Graphs, of some 10 KB an operation, wait for no garbage collector: neither traced steps nor trials."""
    monkeypatch.setattr(OwnRNNCell, "factor", 0.8125)

    def operations():
        return sum(isinstance(each, tf.Operation) for each in gc.get_objects())

    # in stages, of gates, a `GatedCell`
    makes = (own(cells.LayerNormGRUCell), own(cells.RHNCell), OwnRNNCell)
    layers = [FusedRNN(make(4)) for make in makes]
    for layer in layers:
        layer.build((None, 3, 2))
    gc.collect()
    gc.disable()
    try:
        before = operations()
        assert [layer.chosen_engine() for layer in layers] == ["native"] * len(layers)
        assert operations() - before < 500  # of 2,000; TensorFlow itself holds some
    finally:
        gc.enable()


def test_what_is_expected_is_computed_while_the_compiler_runs(empty_cache, monkeypatch):
    order = []
    said, expected = library._said, check.Trial.expected.func

    def waits(*arguments):
        order.append("waits for the compiler")
        return said(*arguments)

    def computes(trial):
        order.append("computes what is expected")
        return expected(trial)

    library.compiler()
    monkeypatch.setattr(library, "_said", waits)
    monkeypatch.setattr(check.Trial, "expected", property(functools.cache(computes)))
    monkeypatch.setattr(OwnRNNCell, "factor", 0.6875)
    assert not isinstance(refusal(OwnRNNCell(3)), str)
    assert order[:2] == ["computes what is expected", "waits for the compiler"]


def test_without_a_compiler_xla_does_the_work(empty_cache, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert "no C++ compiler" in refusal(LSTMCell(2))
    layer = FusedRNN(LSTMCell(2))
    assert engine_of(layer, tf.zeros([1, 2, 3])) == "xla"


@pytest.fixture
def use_compiler(empty_cache, monkeypatch):
    """use_compiler(lines): a shell script is the compiler; `$made` is the library that it is to make."""

    def use_compiler(lines):
        script = empty_cache.parent / "compiler"
        begin = 'test "$1" = --version && { echo 1.0; exit; }'
        begin += '\nfor made; do case "$made" in *.so) break; esac; done'
        script.write_text(f"#!/bin/bash\n{begin}\n{lines}\n")
        script.chmod(0o700)
        monkeypatch.setenv("CXX", str(script))

    return use_compiler


# what a compiler does, by what is said of it
STRANGERS = {
    "failed: it is broken": "echo it is broken; exit 1",
    "failed: without a word": "kill -9 $$",
    r"failed: \\x1b\[31m": "printf '\\033[31m' >&2; exit 1",
    "failed: \ufffd\ufffd": "printf '\\377\\376'; exit 1",
    "failed: .*ends here": "yes | head -c 1000000; echo ends here; exit 1",
    "made no library": "exit 0",
    "made no library: I did": "echo I did; mkdir $made",
    "ends too early": "printf '\\177ELF\\002\\001' > $made",
    "cannot be made or loaded": "echo no library > $made",
    "has no attribute": "echo 'int i;' > $made.c; gcc -shared -x c $made.c -o $made",
    "ends too early.": 'g++ "$@" && truncate -s $(($(stat -c %s $made) / 2)) $made',
    "did not end within 0.5 s": "sleep 100",
    "did not end within 0.5 s.": "yes",
    "did not end within 0.5 s..": "sleep 100 & exec sleep 100",
}


@pytest.mark.parametrize("said", STRANGERS)
def test_a_strange_compiler_is_quoted_and_leaves_nothing(said, empty_cache, use_compiler, monkeypatch):
    if "within" in said:
        monkeypatch.setattr(library, "COMPILE_S", 0.5)
    use_compiler(STRANGERS[said])
    found = refusal(LSTMCell(2))
    assert re.search(said.rstrip("."), found)
    assert found.isprintable()
    assert len(found) < 500
    assert list(empty_cache.iterdir()) == []


def test_a_compiler_that_does_not_end_is_waited_for_once(use_compiler, monkeypatch):
    monkeypatch.setattr(library, "COMPILE_S", 0.2)
    use_compiler("sleep 100")
    assert "did not end" in refusal(LSTMCell(2))
    monkeypatch.setattr(library, "COMPILE_S", 100.0)
    start = time.monotonic()
    assert "did not end" in refusal(GRUCell(2))
    assert time.monotonic() - start < 50


@pytest.mark.parametrize("lines", ["sleep 100", "yes", "kill -9 $$", "printf '\\377'"])
def test_a_compiler_that_does_not_say_its_version(lines, empty_cache, monkeypatch):
    monkeypatch.setattr(library, "_VERSION_S", 0.5)
    script = empty_cache.parent / "compiler"
    script.write_text(f"#!/bin/sh\n{lines}\n")
    script.chmod(0o700)
    monkeypatch.setenv("CXX", str(script))
    path, _ = library.compiler()
    assert (path != str(script)) == (lines in ("sleep 100", "yes"))  # then another does it


def test_a_compiler_that_is_no_program(empty_cache, monkeypatch):
    script = empty_cache.parent / "compiler"
    script.write_bytes(b"\x7fELF")
    script.chmod(0o700)
    monkeypatch.setenv("CXX", str(script))
    assert library.compiler()[0] != str(script)


def test_the_layer_says_why_the_native_engine_is_not_used(use_compiler):
    use_compiler("echo it is broken; exit 1")
    layer = FusedRNN(LSTMCell(2))
    layer.build((None, 2, 3))
    assert "No faster one: the native engine cannot: " in layer.explain()
    assert "it is broken" in layer.explain()
    assert "it is broken" in layer.why_no_faster()


def test_a_folder_that_cannot_be_written_does_not_stop_it(empty_cache, monkeypatch):
    """As on a disk that has become full: the note that a library is right cannot be kept."""

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "touch", full)
    assert library.checked("a header", lambda: None) is None


# --- the cache


CONTENT = b"a library"


def planted(folder, content=CONTENT, told=CONTENT):
    """A file in the cache folder; its name tells the digest of `told`."""
    path = folder / f"some-{hashlib.sha256(told).hexdigest()}.so"
    path.write_bytes(content)
    path.chmod(0o700)
    return path


def as_link(path):
    aside = path.with_name("aside.so")
    path.rename(aside)
    path.symlink_to(aside)


def as_pipe(path):
    path.unlink()
    os.mkfifo(path, 0o700)


def as_folder(path):
    path.unlink()
    path.mkdir(mode=0o700)
    (path / "inside").touch()


# what must not be loaded
UNSOUND = {
    "cut": lambda path: os.truncate(path, len(CONTENT) // 2),
    "empty": lambda path: os.truncate(path, 0),
    "longer": lambda path: path.write_bytes(CONTENT + b"!"),
    "another": lambda path: path.write_bytes(CONTENT[::-1]),
    "written by the group": lambda path: path.chmod(0o770),
    "written by all": lambda path: path.chmod(0o702),
    "not to be read": lambda path: path.chmod(0o000) if os.getuid() else path.unlink(),
    "a link": as_link,
    "a pipe": as_pipe,
    "a folder": as_folder,
}
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="gives files to another user")


def test_a_sound_library_is_found(empty_cache):
    path = planted(cache.folder())
    assert cache.find("some") == path
    assert cache.find("som") is None


@pytest.mark.parametrize("spoil", UNSOUND.values(), ids=UNSOUND)
def test_an_unsound_library_is_removed(spoil, empty_cache):
    path = planted(cache.folder())
    spoil(path)
    assert cache.find("some") is None
    assert not os.path.lexists(path)


@needs_root
def test_a_library_of_another_user_is_removed(empty_cache):
    path = planted(cache.folder())
    os.chown(path, 12345, -1)
    assert cache.find("some") is None
    assert not path.exists()


def test_of_several_libraries_a_sound_one_is_found(empty_cache):
    sound = planted(cache.folder())
    for number in range(5):
        planted(cache.folder(), b"cut", str(number).encode())
    assert cache.find("some") == sound
    assert cache.find("some") == sound


def elsewhere(path):
    other = path.with_name("other")
    other.mkdir(parents=True)
    path.symlink_to(other)


def folder_of_mode(mode):
    def make(path):
        path.mkdir()
        path.chmod(mode)

    return make


def of_another_user(path):
    path.mkdir()
    os.chown(path, 12345, -1)


UNSOUND_FOLDERS = {
    "a file": lambda path: path.write_text("stands in the way"),
    "a link": elsewhere,
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "written by the group": folder_of_mode(0o770),
    "written by all": folder_of_mode(0o707),
    "written by all, sticky": folder_of_mode(0o1777),
    "of another user": pytest.param(of_another_user, marks=needs_root),
}


@pytest.mark.parametrize("make", UNSOUND_FOLDERS.values(), ids=UNSOUND_FOLDERS)
def test_an_unsound_folder_is_done_without(make, empty_cache):
    make(empty_cache)
    found = cache.folder()
    assert found.resolve() != empty_cache.resolve()
    assert found.is_absolute()
    assert found.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("told", ["", ".", "caches", "../caches", "~/caches"])
def test_a_relative_cache_path_is_passed_over(told, empty_cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", told)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.folder() == tmp_path / "home" / ".cache" / "recurrent-cell-benchmark"
    cache.folder.cache_clear()
    monkeypatch.setenv("HOME", "home")
    found = cache.folder()
    assert found.is_absolute()
    assert not found.is_relative_to(tmp_path)


def test_libraries_that_were_cut_are_made_anew(empty_cache, monkeypatch):
    """Mapped, a cut one would kill the process."""
    monkeypatch.setattr(OwnRNNCell, "factor", 0.375)
    cell = OwnRNNCell(2)
    cell.build((None, 3))
    recurrence = Equation(cell).recurrence
    for path in library._libraries(header_of(recurrence)):
        os.truncate(path, path.stat().st_size // 2)
    assert not isinstance(recurrence.native, str)


def test_the_umask_does_not_make_a_library_unsound(empty_cache, use_compiler):
    use_compiler("echo library > $made")
    before = os.umask(0o002)
    try:
        name = library._libraries("a header")
    finally:
        os.umask(before)
    assert all(map(cache._is_sound, name))


def test_a_killed_compile_is_swept(empty_cache):
    """What a process that lives is at stays; what was left goes."""
    folder = cache.folder()
    with cache.scratch() as at_work:
        left = folder / "compiling-left"
        left.mkdir()
        (left / "cell.h").touch()
        old, young = folder / "tmpold", folder / "new-young"
        old.mkdir()
        young.mkdir()
        os.utime(old, (0, 0))
        kept = planted(folder)
        cache.folder.cache_clear()
        assert cache.folder() == folder
        assert sorted(folder.iterdir()) == sorted([at_work, young, kept])
    assert not at_work.exists()


def test_a_compile_that_is_interrupted_leaves_nothing(empty_cache, use_compiler, monkeypatch):
    use_compiler("sleep 100")
    assert library.compiler()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(library, "_said", interrupt)
    with pytest.raises(KeyboardInterrupt):
        library._libraries("a header")
    assert list(empty_cache.iterdir()) == []


def test_a_cache_folder_that_cannot_be_written_is_done_without(empty_cache, monkeypatch):
    Path(empty_cache).write_text("a file stands in the way")
    monkeypatch.setattr(OwnRNNCell, "factor", 0.25)
    assert not isinstance(refusal(OwnRNNCell(2)), str)


class RootCell(cells.MinimalRNNCell):
    """No number where the state is below 0, as half of the numbers of a trial are."""

    def update(self, gates, states):
        h = keras.ops.tanh(gates[0]) + keras.ops.sqrt(states[0]) + keras.ops.log(states[0])
        return h, [h]


def test_an_equation_that_has_no_number_for_some_states_runs(empty_cache):
    """A wrong library is found out all the same."""
    cell = RootCell(3)
    cell.build((None, 3))
    recurrence = Equation(cell).recurrence
    assert not isinstance(recurrence.native, str)
    nan, inf = np.nan, np.inf
    assert check._all_close([[nan, 1.0, inf]], [[nan, 1.0, inf]])
    for wrong in ([nan, 2.0, inf], [nan, nan, inf], [1.0, 1.0, inf], [nan, 1.0, 1.0], [nan, 1.0, -inf]):
        assert not check._all_close([wrong], [[nan, 1.0, inf]])
