import inspect
import os
import pickle
import subprocess
import sys
import textwrap

import pytest

from bench.contract import load_cell as module_under_test
from bench.contract.load_cell import Target, TargetError, load_target

CELL = """
class Cell:
    kind = {kind!r}

    def __init__(self, units, scale=1.0, **kwargs):
        if units > 100:
            raise ValueError("too many")
        self.units, self.scale = units, scale
"""


@pytest.fixture(autouse=True)
def imports_as_they_were(monkeypatch):
    """Every test leaves `sys.path` and `sys.modules` as it found them."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(module_under_test, "_TARGET_FOLDERS", set())
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path, source):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source))
    return path


def cell_file(path, kind="a cell"):
    return write(path, CELL.format(kind=kind))


# --- what can be named -------------------------------------------------------------------------------


def test_a_class_in_a_file(tmp_path):
    file = cell_file(tmp_path / "my_cells.py")
    target = load_target(f"{file}:Cell", {"scale": 2.0})
    assert (target.text, target.file) == (f"{file}:Cell", file)
    cell = target.make(7)
    assert (cell.units, cell.scale) == (7, 2.0)
    assert target.make(7, scale=3.0).scale == 3.0
    assert target.make(7) is not cell


def test_a_name_and_a_path_beyond_ascii_however_a_terminal_gives_them(tmp_path):
    file = write(tmp_path / "ünï cödé" / "zelle é.py", "def zell\u00e9(units):\n    return units\n")
    for name in ("zell\u00e9", "zelle\u0301"):
        assert load_target(f"{file}:{name}").make(3) == 3


def test_a_file_by_its_relative_path(tmp_path, monkeypatch):
    cell_file(tmp_path / "sub" / "my_cells.py")
    monkeypatch.chdir(tmp_path)
    assert load_target("sub/my_cells.py:Cell").make(1).units == 1


def test_a_class_in_a_module_of_the_current_folder(tmp_path, monkeypatch):
    write(tmp_path / "my_package" / "__init__.py", "")
    file = cell_file(tmp_path / "my_package" / "cells_of_mine.py")
    monkeypatch.chdir(tmp_path)
    target = load_target("my_package.cells_of_mine:Cell")
    assert target.make(3).units == 3
    assert target.file == file


def test_a_function_a_nested_class_and_units_by_keyword_only(tmp_path):
    file = write(
        tmp_path / "odd.py",
        """
        def make(units):
            return ("made", units)

        class Outer:
            class Inner:
                def __init__(self, *, units, **kwargs):
                    self.units = units
        """,
    )
    assert load_target(f"{file}:make").make(4) == ("made", 4)
    assert load_target(f"{file}:Outer.Inner").make(5).units == 5


def test_two_files_of_one_name_are_two_modules(tmp_path):
    files = [cell_file(tmp_path / name / "cell.py", kind=name) for name in ("old", "new")]
    old, new = (load_target(f"{file}:Cell") for file in files)
    assert (old.factory.kind, new.factory.kind) == ("old", "new")
    for target in (old, new):
        assert pickle.loads(pickle.dumps(target.factory)) is target.factory
        assert pickle.loads(pickle.dumps(target.make(2))).units == 2


def test_a_file_is_imported_once_until_it_is_edited(tmp_path):
    file = cell_file(tmp_path / "cell.py", kind="first")
    first = load_target(f"{file}:Cell")
    assert load_target(f"{file}:Cell").factory is first.factory
    cell_file(file, kind="second")
    assert load_target(f"{file}:Cell").factory.kind == "second"
    assert first.factory.kind == "first"


def test_a_file_imports_its_neighbours_each_its_own(tmp_path):
    for name in ("old", "new"):
        write(tmp_path / name / "helper_of_mine.py", f"kind = {name!r}")
        write(tmp_path / name / "package_of_mine" / "__init__.py", "from .part import deep")
        write(tmp_path / name / "package_of_mine" / "part.py", f"deep = {name!r}")
        write(
            tmp_path / name / "cell.py",
            """
            import helper_of_mine
            from package_of_mine import deep

            def make(units):
                import later_of_mine
                return helper_of_mine.kind, deep, later_of_mine.__name__
            """,
        )
        write(tmp_path / name / "later_of_mine.py", "")
    for name in ("old", "new"):
        assert load_target(f"{tmp_path / name / 'cell.py'}:make").make(1) == (name, name, "later_of_mine")


def test_a_neighbour_does_not_replace_what_is_already_imported(tmp_path):
    write(tmp_path / "json.py", "raise RuntimeError('shadowed')")
    file = write(tmp_path / "cell.py", "import json\ndef make(units): return json.dumps(units)")
    assert load_target(f"{file}:make").make(1) == "1"


def test_a_target_of_a_class_or_function():
    class Cell:
        def __init__(self, units):
            self.units = units

    target = Target.of(Cell)
    assert target.make(3).units == 3
    assert target.text.endswith("Cell")
    assert str(target.file) == __file__
    assert Target.of(target) is target
    assert Target.of(lambda units: units).make(5) == 5


class LeakFirst:
    """The first argument is not the width."""

    def __init__(self, leak=0.5, hidden_size=8, **kwargs):
        self.leak, self.size = leak, hidden_size


class OfABase(LeakFirst):
    def __init__(self, gain=1.0, **kwargs):
        super().__init__(**kwargs)


class NamedAgain(LeakFirst):
    """What its base calls hidden_size is `num_units` here."""

    def __init__(self, gain=1.0, num_units=3, **kwargs):
        super().__init__(hidden_size=num_units, **kwargs)


@pytest.mark.parametrize("factory", [LeakFirst, OfABase, NamedAgain])
def test_units_are_given_by_name_and_never_to_another_argument(factory):
    made = Target.of(factory).make(16)
    assert (made.size, made.leak) == (16, 0.5)
    assert Target.of(factory, leak=0.25).make(16).leak == 0.25


@pytest.mark.parametrize("name", ["units", "hidden_size", "num_units", "state_size", "output_size", "dim"])
def test_the_names_that_units_go_by(name):
    made = {}
    exec(f"def make(alpha=1, {name}=2): return alpha, {name}", made)
    assert Target.of(made["make"]).make(16) == (1, 16)


def test_a_function_of_any_arguments_is_given_units():
    assert Target.of(lambda **arguments: arguments).make(5) == {"units": 5}
    positional = {}
    exec("def make(units, /): return units", positional)
    assert Target.of(positional["make"]).make(5) == 5


@pytest.mark.parametrize("factory", [lambda leak: leak, lambda: 1, lambda leak, beta=1: leak])
def test_without_a_name_for_units_a_function_of_units_is_asked_for(factory):
    with pytest.raises(TargetError, match=r"no argument for the number of units.*write a function of units"):
        Target.of(factory).make(16)


def test_units_are_not_set_twice(tmp_path):
    file = write(tmp_path / "cell.py", "def make(leak=1, hidden_size=8): return hidden_size")
    with pytest.raises(TargetError, match="hidden_size is what `units` sets"):
        load_target(f"{file}:make", {"hidden_size": 3})


EMPTY = inspect.Parameter.empty


@pytest.mark.parametrize(
    ("argument", "default"),
    [("dropout", 0.5), ("rate", 0.25), ("units", EMPTY), ("gain", EMPTY), ("kwargs", EMPTY)],
)
def test_the_defaults_of_a_class_and_of_the_bases_it_passes_arguments_to(argument, default):
    class Base:
        def __init__(self, units, rate=0.25):
            pass

    class Between(Base):
        pass

    class Cell(Between):
        def __init__(self, units, dropout=0.5, **kwargs):
            super().__init__(units, **kwargs)

    class Closed(Cell):
        def __init__(self, units):
            super().__init__(units)

    assert Target.of(Cell).default(argument) is default
    assert Target.of(Closed).default(argument) is EMPTY


def test_the_defaults_of_a_function():
    def make(units, dropout=0.5, **kwargs):
        return units

    assert Target.of(make).default("dropout") == 0.5
    assert Target.of(make).default("recurrent_dropout") is EMPTY


# --- what can go wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Cell", "expected package.module:Name or path/to/file.py:Name, got 'Cell'"),
        ("cell.py", "expected package.module:Name or path/to/file.py:Name, got 'cell.py'"),
        (":Cell", "expected package.module:Name"),
        ("cell.py:", "expected package.module:Name"),
        ("none.py:Cell", "no such file: {folder}/none.py"),
        ("no_such_module:Cell", "no module named 'no_such_module'"),
        ("json.no_such_module:Cell", "No module named 'json.no_such_module'"),
        ("cell.py:Cel", "no 'Cel' in it; did you mean 'Cell'?"),
        ("cell.py:LSTM", "no 'LSTM' in it; it defines Cell"),
        ("empty.py:Cell", "it defines no class or function"),
        ("number.py:units", "expected a class or a function of `units`, got 16"),
        ("instance.py:cell", "this is a cell already made"),
    ],
)
def test_a_target_that_is_not_there(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    cell_file(tmp_path / "cell.py")
    write(tmp_path / "empty.py", "")
    write(tmp_path / "number.py", "units = 16")
    made = "class C:\n    state_size = 1\n    def __call__(self): ...\ncell = C()"
    write(tmp_path / "instance.py", made)
    with pytest.raises(TargetError) as caught:
        load_target(text)
    assert message.format(folder=tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def error_of(path, source, make=False):
    write(path, source)
    with pytest.raises(TargetError) as caught:
        target = load_target(f"{path}:Cell")
        if make:
            target.make(16)
    return caught.value


def test_a_syntax_error_is_shown_as_python_shows_it(tmp_path):
    error = error_of(tmp_path / "cell.py", "class Cell\n    pass\n")
    assert error.details.splitlines() == [
        f'  File "{tmp_path / "cell.py"}", line 1',
        "    class Cell",
        "              ^",
        "SyntaxError: expected ':'",
    ]
    assert "cell.py cannot be imported: SyntaxError: expected ':'" in str(error)


def test_an_error_on_import_is_shown_from_the_users_file_on_down(tmp_path):
    error = error_of(tmp_path / "cell.py", "import json\njson.loads('{')\n")
    lines = error.details.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == f'  File "{tmp_path / "cell.py"}", line 2, in <module>'
    assert "json/decoder.py" in error.details
    assert "bench" not in error.details.replace(str(tmp_path), "") and "importlib" not in error.details


def test_an_error_in_the_constructor_is_shown_from_the_users_file_on_down(tmp_path):
    error = error_of(
        tmp_path / "cell.py",
        """
        class Cell:
            def __init__(self, units):
                self.half = units / 0
        """,
        make=True,
    )
    lines = error.details.splitlines()
    assert lines[1] == f'  File "{tmp_path / "cell.py"}", line 4, in __init__'
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert "cannot be made with units=16: ZeroDivisionError" in str(error)


def test_a_constructor_that_takes_other_arguments(tmp_path):
    file = cell_file(tmp_path / "cell.py")
    write(file, "class Cell:\n    def __init__(self, units): ...\n")
    with pytest.raises(TargetError, match=r"units=16, activation='relu'.*unexpected keyword"):
        load_target(f"{file}:Cell", {"activation": "relu"}).make(16)


def test_a_file_that_exits_is_an_error(tmp_path):
    assert "SystemExit: 3" in str(error_of(tmp_path / "cell.py", "import sys\nsys.exit(3)"))


def test_a_file_that_failed_is_read_again(tmp_path):
    error_of(tmp_path / "cell.py", "raise RuntimeError('half of it')")
    assert not [name for name in sys.modules if name.startswith("cell_")]
    assert str(tmp_path) in sys.path  # as after a success


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        (
            "raise AttributeError(\"module 'keras.layers' has no attribute 'AbstractRNNCell'\")",
            "keras.layers.Layer",
        ),
        ("raise AttributeError(\"module 'keras.backend' has no attribute 'zeros_like'\")", "keras.ops"),
        ("raise ModuleNotFoundError(\"No module named 'tensorflow.python.keras'\")", "from `keras`"),
    ],
)
def test_what_is_gone_since_the_tutorials_is_explained(tmp_path, line, advice):
    assert advice in error_of(tmp_path / "cell.py", line).details.splitlines()[-1]


def test_tensorflow_is_not_imported():
    program = "import bench.contract.load_cell, sys; print({'tensorflow', 'keras'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "name", [".py", "pipe.py", "folder.py", "x" * 5000 + ".py", "a\0b.py", "~nobody-here/a.py"]
)
def test_what_is_no_file_is_said_on_a_line(tmp_path, name):
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "folder.py").mkdir()
    place = name if name.startswith("~") else tmp_path / name
    with pytest.raises(TargetError) as raised:
        load_target(f"{place}:Cell")
    assert len(str(raised.value)) < 500


def test_a_file_too_large_to_be_a_cell_is_not_read(tmp_path):
    file = tmp_path / "large.py"
    file.touch()
    os.truncate(file, 2**40)
    with pytest.raises(TargetError, match="no cell"):
        load_target(f"{file}:Cell")
