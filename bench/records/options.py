"""`OPTIONS`: every option that a case's id can name, both ways: from a record's column to a word and back.

`write` turns a field's value into its word, `read` a word into the field and its value; the other columns say
to which group an option belongs and how one writes it in Python.
"""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

DTYPES = ("float32", "mixed_float16", "mixed_bfloat16", "float64", "float16", "bfloat16")
# the groups of options, in the order in which a list shows them
GROUPS = (
    *("Bidirectional", "Stacked layers", "Dropout", "Masks"),
    *("Number format", "The equation", "Shapes", "How the loop runs"),
)


class UnknownOption(ValueError):
    """A word that no id has; the message names the nearest ones."""


@dataclass(frozen=True)
class Option:
    """One word of an id.

    Attributes:
        field: the column of a record, and the field of a case, that it speaks of.
        word: as an id has it; `{}` stands for the value.
        group: one of `GROUPS`.
        python: the option as one writes it in Python; `{}` stands for the value.
        value: the field's value; where the word has a `{}`, the function that reads it from its text.
    """

    field: str
    word: str
    group: str
    python: str
    value: Any = True

    def write(self, value: Any) -> str | None:
        """The word for a value of the field; None where it stands for another value."""
        if "{}" in self.word:
            text = f"{Decimal(repr(value)):f}" if self.value is float else str(value)
            return self.word.format(text)
        return self.word if value == self.value and type(value) is type(self.value) else None

    def text_in(self, word: str) -> str | None:
        """The text of the value in a word, "" where the word has no value; None for another option's word."""
        beginning, has_value, _ = self.word.partition("{}")
        if not has_value:
            return "" if word == self.word else None
        text = word.removeprefix(beginning)
        return text if word.startswith(beginning) and re.fullmatch(_TEXTS[self.value], text) else None

    def read(self, text: str) -> Any:
        """The field's value for what `text_in` found."""
        return self.value(text) if "{}" in self.word else self.value


# what the text of a value looks like, by the function that reads it
_TEXTS: dict[Callable[[str], Any], str] = {
    int: r"[0-9]{1,18}",
    float: r"[0-9]+(\.[0-9]+)?",
    str: r"[A-Za-z0-9_.]+",
}

# in the order in which an id names them, which is that of the fields of a case
OPTIONS: tuple[Option, ...] = (
    *(Option("dtype", dtype, "Number format", dtype, dtype) for dtype in DTYPES),
    Option("unroll", "unroll", "How the loop runs", "unroll"),
    Option("implementation", "impl{}", "How the loop runs", "implementation={}", int),
    Option("stateful", "stateful", "How the loop runs", "stateful"),
    Option("jit_compile", "xla", "How the loop runs", "XLA"),
    Option("use_cudnn", "cudnn_auto", "How the loop runs", "use_cudnn=auto", "auto"),
    Option("use_cudnn", "cudnn", "How the loop runs", "use_cudnn=True", "True"),
    Option("use_cudnn", "no_cudnn", "How the loop runs", "use_cudnn=False", "False"),
    Option("return_sequences", "last_output", "Shapes", "return_sequences=False", False),
    Option("go_backwards", "backwards", "How the loop runs", "go_backwards"),
    Option("masked", "mask_right", "Masks", "mask, padded right", "right"),
    Option("masked", "mask_left", "Masks", "mask, padded left", "left"),
    Option("masked", "mask_full", "Masks", "mask, a sequence fully masked", "full"),
    Option("zero_output_for_mask", "zero_masked", "Masks", "zero_output_for_mask"),
    Option("dropout", "dropout{}", "Dropout", "dropout={}", float),
    Option("recurrent_dropout", "recurrent_dropout{}", "Dropout", "recurrent_dropout={}", float),
    Option("activation", "act_{}", "The equation", "activation={}", str),
    Option("use_bias", "bias", "The equation", "use_bias=True"),
    Option("use_bias", "no_bias", "The equation", "use_bias=False", False),
    Option("reset_after", "reset_after", "The equation", "reset_after=True"),
    Option("reset_after", "reset_before", "The equation", "reset_after=False", False),
    Option("bidirectional", "bidirectional", "Bidirectional", "Bidirectional"),
    Option("merge_mode", "merge_{}", "Bidirectional", "merge_mode={}", str),
    Option("backward_layer", "backward_layer", "Bidirectional", "own backward_layer"),
    Option("depth", "depth{}", "Stacked layers", "{} layers stacked", int),
    Option("static_timesteps", "any_timesteps", "Shapes", "timesteps=None", False),
    Option("static_batch", "any_batch", "Shapes", "batch=None", False),
    Option("time_major", "time_major", "Shapes", "time_major"),
    Option("input_product", "no_input_product", "Shapes", "input product given", False),
)
FIELDS = tuple(dict.fromkeys(option.field for option in OPTIONS))


def write(field: str, value: Any) -> str:
    """The word of an id for a field's value."""
    words = (option.write(value) for option in OPTIONS if option.field == field)
    return next(word for word in words if word is not None)


def read(word: str) -> tuple[str, Any]:
    """The field and its value for a word of an id.

    Raises:
        UnknownOption: no option is written like that.
    """
    option, text = _find(word)
    return option.field, option.read(text)


def describe(word: str) -> tuple[str, str]:
    """The group of a word of an id, and the option as one writes it in Python.

    Raises:
        UnknownOption: no option is written like that.
    """
    option, text = _find(word)
    return option.group, option.python.format(text)


def _find(word: str) -> tuple[Option, str]:
    for option in OPTIONS:
        text = option.text_in(word)
        if text is not None:
            return option, text
    known = [option.word.format("…") for option in OPTIONS]
    near = difflib.get_close_matches(word, known, n=3) or known
    raise UnknownOption(f"no option {word!r}; there are {', '.join(near)}")
