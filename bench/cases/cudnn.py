"""Tells by the case alone what the cuDNN kernel can run, what Keras takes it for, and what `fit` compiles.

As Keras 3 decides it: `keras.layers.LSTM` and `GRU` take cuDNN on a GPU wherever their arguments allow it.
They look at no mask and no `implementation`.
"""

from collections.abc import Callable

from bench.cases.case import Case

_BUILTINS = ("lstm-builtin", "gru-builtin")
# what the cuDNN kernel does not run with, by the argument to blame
_BEYOND: dict[str, Callable[[Case], bool]] = {
    "no_gpu": lambda case: case.device != "gpu",
    "jit_compile": lambda case: case.jit_compile,
    "unroll": lambda case: case.unroll,
    "activation": lambda case: case.activation not in (None, "tanh"),
    "use_bias": lambda case: case.use_bias is False,
    "reset_after": lambda case: case.reset_after is False,
    "recurrent_dropout": lambda case: bool(case.recurrent_dropout),
    "mask": lambda case: case.masked in ("left", "full"),
}
_IGNORED_BY_KERAS = ("mask",)  # it takes cuDNN all the same
_UNKNOWN_BEFORE_BUILDING = ("no_gpu", "jit_compile", "recurrent_dropout", *_IGNORED_BY_KERAS)


def missed(case: Case) -> list[str]:
    """The arguments for which the cuDNN kernel cannot run a built-in LSTM or GRU."""
    return [name for name, is_missed in _BEYOND.items() if is_missed(case)]


def can_run(case: Case) -> bool:
    """True where a built-in may run on cuDNN, and gives an answer there."""
    return case.subject in _BUILTINS and case.use_cudnn != "False" and not missed(case)


def refusal(case: Case) -> str | None:
    """Why a case measures nothing on cuDNN, which Keras takes for it all the same; None where it does."""
    if case.subject not in _BUILTINS or case.use_cudnn in ("False", "True"):  # that which demands it says so
        return None
    if set(missed(case)) - {*_IGNORED_BY_KERAS}:
        return None
    for matters, why in _REFUSALS:
        if matters(case):
            return f"{why}; use_cudnn=False measures Keras' loop"
    return None


_REFUSALS: tuple[tuple[Callable[[Case], bool], str], ...] = (
    (lambda case: case.masked == "left", "Keras takes cuDNN, which refuses a mask that is not padded right"),
    (
        lambda case: case.masked == "full",
        "Keras takes cuDNN, which refuses a sequence that is masked from end to end",
    ),
    (lambda case: case.implementation == 1, "cuDNN heeds no implementation: it would be the default again"),
)


def fit_compiles(case: Case) -> bool:
    """True where `fit` and `predict` have XLA compile the case's layer: on a GPU, unless it is an LSTM or GRU
    of Keras' that is made for cuDNN, whether it then runs there or not."""
    if case.device != "gpu" or case.mode == "generate":  # whose loop is no `predict`
        return False
    made_for_cudnn = case.subject in _BUILTINS and case.use_cudnn != "False"
    return not made_for_cudnn or bool(set(missed(case)) - {*_UNKNOWN_BEFORE_BUILDING})
