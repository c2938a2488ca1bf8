"""A cell named on the command line: `package.module:Name` or `path/to/file.py:Name`.

`load_target` turns such a text into a `Target`, whose `make(units)` returns a new cell. TensorFlow is not
imported here; the user's own file will do so. Whatever goes wrong in that file is a `TargetError` that
carries the user's traceback from their file on down, without the frames that led there.
"""

import contextlib
import difflib
import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import json
import math
import os
import re
import sys
import textwrap
import traceback
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

FORM = "package.module:Name or path/to/file.py:Name"

# What people call the width of a cell: an argument of such a name is given `units`. First the names that
# mean nothing else, the likeliest first; then those that may mean something else beside one of them.
UNITS = (
    (
        *("units", "hidden_size", "hidden_units", "hidden_dim", "num_units", "n_units", "nb_units"),
        *("num_hidden", "n_hidden", "hidden", "nhid", "num_cells", "n_cells", "cell_size", "rnn_size"),
        *("num_neurons", "n_neurons", "neurons"),
    ),
    ("state_size", "state_dim", "output_size", "output_dim", "latent_dim", "d_model", "dim", "dims"),
)

# What tutorials for older versions use and Keras 3 no longer has: pattern in the error -> what to write.
GONE = {
    r"AbstractRNNCell": "AbstractRNNCell is gone from Keras 3: subclass keras.layers.Layer instead.",
    r"tensorflow\.python\.keras|tensorflow_core": "import keras from `keras`, not from inside TensorFlow.",
    r"keras\.backend' has no attribute": "most of keras.backend is gone from Keras 3: use keras.ops.",
}


class TargetError(Exception):
    """The target cannot be loaded, or its constructor raises.

    The text is one line; `details` is the user's own traceback ("" where there is none).
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


@dataclass(frozen=True)
class Target:
    """Something that makes cells.

    Attributes:
        text: how it was named.
        factory: the class or function.
        file: the file that it stands in.
        kwargs: its arguments beside units.
        switched: what its file changed for the whole process when it was loaded, which is undone.
        whole: whether it makes whole layers, which need not take a number of units.
    """

    text: str
    factory: Callable[..., Any]
    file: Path | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    switched: tuple[str, ...] = ()
    whole: bool = False

    @classmethod
    def of(cls, factory: "Target | Callable[..., Any]", /, **kwargs: Any) -> "Target":
        """`factory` itself if it is a `Target`, else a `Target` around the class or function `factory`.

        Raises:
            TargetError: it is a cell already made, or no class or function.
        """
        if isinstance(factory, Target):
            return factory
        _check_makes_cells(_name_of(factory), factory)
        source = None
        # a built-in or a partial has no source file, and neither has a class of a notebook
        with contextlib.suppress(TypeError, OSError):
            source = inspect.getsourcefile(factory)
        file = Path(source) if source else None
        return cls(_name_of(factory), factory, file, kwargs)

    def make(self, units: int, **extra: Any) -> Any:
        """A new cell of `units` units; `extra` overrides the target's own keyword arguments.

        Raises `TargetError` if no argument takes the units, or with the user's traceback if the constructor
        raises.
        """
        arguments = {**self.kwargs, **extra}
        name = self._units_argument_or_none
        if name is None:
            with _users_errors(f"{self.text} cannot be made with {_arguments_text(arguments)}"):
                return self.factory(**arguments)
        if name in arguments:
            raise TargetError(f"{self.text}: {name} is what `units` sets; take it out of the other arguments")
        with _users_errors(f"{self.text} cannot be made with {_call_text(name, units, arguments)}"):
            if self._is_positional(name):
                return self.factory(units, **arguments)
            return self.factory(**{name: units}, **arguments)

    @property
    def _units_argument_or_none(self) -> str | None:
        """`units_argument`; None for what makes whole layers and has none."""
        try:
            return self.units_argument
        except TargetError:
            if not self.whole:
                raise
            return None

    @cached_property
    def units_argument(self) -> str:
        """The argument that the number of units is given to, by its name, which is one of `UNITS`.

        Raises `TargetError` if there is none.
        """
        constructors = self._constructors()
        for names in UNITS:
            for parameters in constructors:
                for name in names:
                    if name in parameters:
                        return name
        named = list(dict.fromkeys(name for parameters in constructors for name in parameters))
        given = f"its arguments are {', '.join(named)}" if named else "it names no arguments"
        raise TargetError(
            f"{self.text}: no argument for the number of units ({given}); write a function of units: "
            f"def make(units): return {_name_of(self.factory)}(...)"
        )

    def _constructors(self) -> list[dict[str, inspect.Parameter]]:
        """The arguments that can be given, by name: those of the class or function, then, where it takes
        **kwargs, those of the bases that it passes them to. A function that takes **kwargs takes `units`."""
        found: list[dict[str, inspect.Parameter]] = []
        for function in self._functions():
            parameters = _parameters(function)
            found.append(_named(parameters))
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
                return found
        if not isinstance(self.factory, type):
            found.append({"units": inspect.Parameter("units", inspect.Parameter.KEYWORD_ONLY)})
        return found

    def _is_positional(self, name: str) -> bool:
        parameter = next(parameters[name] for parameters in self._constructors() if name in parameters)
        return parameter.kind is inspect.Parameter.POSITIONAL_ONLY

    def _functions(self) -> list[Callable[..., Any]]:
        """The function, or the constructors of the class and its bases that are a user's or Keras' own."""
        if not isinstance(self.factory, type):
            return [self.factory]
        constructors = (vars(base).get("__init__") for base in inspect.getmro(self.factory))
        return [constructor for constructor in constructors if inspect.isfunction(constructor)]

    def default(self, argument: str) -> Any:
        """The default value of an argument that the class or function names, itself or by passing **kwargs
        to a base; `inspect.Parameter.empty` if it has none or is not named."""
        for function in self._functions():
            parameters = _parameters(function)
            if argument in parameters:
                return parameters[argument].default
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
                break
        return inspect.Parameter.empty


def load_target(text: str, kwargs: Mapping[str, Any] | None = None, whole: bool = False) -> Target:
    """The `Target` that `text` names, in the form `package.module:Name` or `path/to/file.py:Name`.

    Raises `TargetError` if there is no such file, module or name, if importing it raises, or if no argument
    takes the number of units, and it does not make `whole` layers.
    """
    module, name = _module_of(text)
    factory = _find(module, name, text)
    source = getattr(module, "__file__", None)
    target = Target(text, factory, Path(source) if source else None, dict(kwargs or {}), (), whole)
    if target._units_argument_or_none in target.kwargs:
        raise TargetError(f"{text}: {target.units_argument} is what `units` sets; take it out of the kwargs")
    return target


def load_object(text: str) -> Any:
    """What `text` names, whatever it is, in the form `package.module:name` or `path/to/file.py:name`.

    Raises `TargetError` if there is no such file, module or name, or if importing it raises.
    """
    module, name = _module_of(text)
    if not hasattr(module, name):
        raise TargetError(f"{text}: no {name!r} in it")
    return getattr(module, name)


def parse_kwargs(text: str) -> dict[str, Any]:
    """The arguments of a cell that a JSON object names; raises ValueError for a text that is none."""
    expected = """expected a JSON object, such as '{"activation": "relu"}', got"""
    try:
        kwargs = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{expected} {textwrap.shorten(text, 80)!r} ({error})") from None
    if not isinstance(kwargs, dict):
        raise ValueError(f"{expected} {textwrap.shorten(text, 80)}")
    return kwargs


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text} is no finite number")
    return float(text)


def parse_step_shape(text: str) -> tuple[int, ...]:
    """The shape that a text such as `8,8,1` says; raises ValueError for one that says none."""
    sizes = text.split(",")
    if not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        raise ValueError(f"expected positive integers, such as 8,8,1, got {text!r}")
    return tuple(map(int, sizes))


# --- importing ---------------------------------------------------------------------------------------


def _module_of(text: str) -> tuple[ModuleType, str]:
    """The module that a text names, imported, and the name in it."""
    place, _, name = text.rpartition(":")
    if not place or not name:
        raise TargetError(f"expected {FORM}, got {text!r}")
    is_file = place.endswith(".py") or os.sep in place
    as_python_has_it = unicodedata.normalize("NFKC", name)  # a terminal may give é as two letters
    return (_load_file(Path(place)) if is_file else _load_module(place)), as_python_has_it


def _load_file(path: Path) -> ModuleType:
    """The module in the file at `path`, imported once for each content of each file.

    Its name holds a digest of path and content: two files `cell.py` in two folders are two modules, and a
    file that was edited is read again. It stands in `sys.modules`, where pickle and Keras look for classes.
    """
    path, content = _read(path)
    digest = hashlib.sha1(str(path).encode(errors="surrogateescape") + content).hexdigest()[:10]
    name = re.sub(r"\W", "_", path.stem) + f"_{digest}"
    if name not in sys.modules:
        with _users_errors(f"{path.name} cannot be imported"), _beside(path.parent):
            _execute(name, path)
    return sys.modules[name]


def _read(path: Path) -> tuple[Path, bytes]:
    """The whole path of a file and its content; raises TargetError where it cannot be read."""
    try:
        path = path.expanduser().resolve()
        if not path.is_file():
            raise TargetError(f"no such file: {str(path)[-_LONGEST_PATH:]}")
        if path.stat().st_size > _MOST_BYTES:
            raise TargetError(f"{path}: more than {_MOST_BYTES:,} bytes are no cell")
        return path, path.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:  # too long; a zero byte; no such user
        why = getattr(error, "strerror", None) or error
        raise TargetError(f"{str(path)[-_LONGEST_PATH:]!r}: cannot be read: {why}") from error


def _execute(name: str, path: Path) -> None:
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _load_module(name: str) -> ModuleType:
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        missing = importlib.util.find_spec(name.partition(".")[0]) is None
    except ValueError:
        missing = False
    if missing:
        raise TargetError(f"no module named {name.partition('.')[0]!r} (searched from {os.getcwd()})")
    with _users_errors(f"{name} cannot be imported"):
        return importlib.import_module(name)


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """Imports find the modules beside the target's file, as they do when Python runs that file.

    The folder comes first while the file is read, and stays at the end for imports made later. A helper of
    the same name that an earlier target brought from its own folder is forgotten, so that two versions of
    a project in two folders each get their own.
    """
    for name, module in list(sys.modules.items()):
        source = getattr(module, "__file__", None)
        mine = (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()
        if mine and source and _home(Path(source)) in _TARGET_FOLDERS - {folder}:
            for part in [n for n in sys.modules if n == name or n.startswith(f"{name}.")]:
                del sys.modules[part]
    _TARGET_FOLDERS.add(folder)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


_MOST_BYTES = 2**24  # of a cell's file
_LONGEST_PATH = 200  # characters of a path in a message
_TARGET_FOLDERS: set[Path] = set()


def _home(source: Path) -> Path:
    """The folder from which the top-level module in the file `source` was imported."""
    return source.parent.parent if source.name == "__init__.py" else source.parent


def _find(module: ModuleType, name: str, text: str) -> Callable[..., Any]:
    try:
        found: Any = reduce(getattr, name.split("."), module)
    except AttributeError:
        raise TargetError(f"{text}: no {name!r} in it; {_offer(module, name)}") from None
    _check_makes_cells(text, found)
    return found


def _check_makes_cells(text: str, found: Any) -> None:
    """Raises TargetError for what makes no cells."""
    if not callable(found):
        raise TargetError(f"{text}: expected a class or a function of `units`, got {found!r}")
    if not isinstance(found, type) and hasattr(found, "state_size"):
        raise TargetError(f"{text}: this is a cell already made; name its class, or a function of `units`")


def _offer(module: ModuleType, name: str) -> str:
    own = [
        key
        for key, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__
    ]
    close = difflib.get_close_matches(name, own, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"it defines {', '.join(own)}" if own else "it defines no class or function"


# --- the user's errors, as the user would see them ---------------------------------------------------


@contextlib.contextmanager
def _users_errors(message: str) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:
        last = traceback.format_exception_only(error)[-1].strip()
        advice = [text for pattern, text in GONE.items() if re.search(pattern, last)]
        raise TargetError(f"{message}: {last}", "\n".join([users_traceback(error), *advice])) from error


def users_traceback(error: BaseException) -> str:
    """The traceback of `error` without the leading frames of this file, Keras and the import system."""
    shown = traceback.TracebackException(type(error), error, _from_user(error.__traceback__))
    return "".join(shown.format()).rstrip()


def _from_user(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and _is_machinery(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return trace


def _is_machinery(file: str) -> bool:
    keras = sys.modules.get("keras")
    folder = os.path.dirname(keras.__file__ or "") if keras is not None else ""
    return (
        file == __file__
        or file.startswith("<frozen")
        or os.path.dirname(file) == os.path.dirname(importlib.__file__)
        or bool(folder and file.startswith(folder + os.sep))
    )


# --- signatures --------------------------------------------------------------------------------------


def _parameters(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return {}


def _named(parameters: Mapping[str, inspect.Parameter]) -> dict[str, inspect.Parameter]:
    """The parameters that have a name of their own: no *args, no **kwargs, no self."""
    unnamed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind not in unnamed and name != "self"
    }


def _name_of(factory: Callable[..., Any]) -> str:
    return getattr(factory, "__qualname__", None) or repr(factory)


def _call_text(name: str, units: int, arguments: Mapping[str, Any]) -> str:
    return _arguments_text({name: units, **arguments})


def _arguments_text(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items()) or "no arguments"
