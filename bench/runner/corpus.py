"""The text that character models learn: where it comes from, how it is cut into speeches, and its characters.

A play is paragraphs: the speaker's name and a colon, then what is said; a blank line ends a speech.
"""

import hashlib
import random
import re
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bench.records.files import read_bytes
from bench.records.schema import RecordError
from bench.records.text import counted

END = "*"  # of a speech
PADDING = "\0"  # its number is 0
LENGTH = 80  # of a speech with its END, padded
SHORTEST = 10  # speech
GENERATED = "generated"

_MOST_BYTES = 2**28  # Shakespeare has a million
_URL = "https://storage.googleapis.com/download.tensorflow.org/data/shakespeare.txt"
_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
_NETWORK_TIMEOUT_S = 10.0  # without a word from the other side


class CorpusError(ValueError):
    """A text that cannot be learned from; the message names the file and says what is wrong with it."""


class CorpusWarning(UserWarning):
    """The text is not the one that the task is known by."""


@dataclass(frozen=True)
class Corpus:
    """Speeches, and the numbers of their characters.

    Attributes:
        source: the file's name, or `generated`.
        speeches: in the order of the play, without their END.
    """

    source: str
    speeches: tuple[str, ...]

    @cached_property
    def characters(self) -> str:
        """Every character at its number: PADDING, which is 0, then the others in order."""
        return PADDING + "".join(sorted({END, *"".join(self.speeches)}))

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {character: number for number, character in enumerate(self.characters)}

    def encode(self, text: str) -> list[int]:
        """The numbers of the characters; raises CorpusError for one that the corpus does not have."""
        unknown = sorted(set(text) - set(self.characters))
        if unknown:
            raise CorpusError(f"{text!r}: the corpus {self.source} has no {', '.join(map(repr, unknown))}")
        return [self._numbers[character] for character in text]

    def decode(self, numbers: Sequence[int]) -> str:
        """The text of the numbers."""
        return "".join(self.characters[number] for number in numbers)

    def rows(self, length: int, seed: int) -> np.ndarray:
        """The speeches, each with its END, shuffled: int32 [speeches, length], padded with 0 or cut."""
        rows = np.zeros((len(self.speeches), length), np.int32)
        for row, speech in zip(rows, self.speeches, strict=True):
            numbers = self.encode(speech + END)[:length]
            row[: len(numbers)] = numbers
        return np.random.default_rng(seed).permutation(rows)

    def describe(self) -> dict[str, Any]:
        """Describes the text for a result that was learned from it."""
        return {
            "source": self.source,
            "generated": self.source == GENERATED,
            "speeches": len(self.speeches),
            "characters": len(self.characters) - 1,
            "sha256": hashlib.sha256("\n\n".join(self.speeches).encode()).hexdigest(),
        }


@cache
def load_corpus(path: Path | None = None) -> Corpus:
    """One's own text at `path`; else Shakespeare; else, with a warning, a text made here.

    Shakespeare is TensorFlow's copy, through `keras.utils.get_file`, which keeps it.

    Raises:
        CorpusError: `path` cannot be read, is not UTF-8, is empty or has no speeches of the right length.
    """
    if path is not None:
        return Corpus(path.name, cut(_read(path), str(path)))
    try:
        return Corpus("shakespeare.txt", cut(_shakespeare().read_text("utf-8"), _URL))
    except Exception as error:  # `get_file` wraps what the network says in plain Exceptions
        warnings.warn(
            f"Shakespeare cannot be had ({error}): the character models learn a small text made here, and "
            "their losses compare with nobody's. --corpus PATH takes a text of yours.",
            CorpusWarning,
            stacklevel=2,
        )
        return Corpus(GENERATED, cut(generate_play(), GENERATED))


def cut(text: str, name: str) -> tuple[str, ...]:
    """The speeches of a play of at least 10 and, with their END, at most 80 characters; no speakers' names.

    A paragraph whose first line does not end in a colon is a speech without a name. A speech that has an
    END or a PADDING inside is left out.

    Args:
        name: what errors call the text.

    Raises:
        CorpusError: there is none.
    """
    paragraphs = (paragraph.strip() for paragraph in re.split(r"\n\s*\n", text))
    speeches = tuple(
        speech
        for speech in map(_without_speaker, paragraphs)
        if SHORTEST <= len(speech) < LENGTH and not {END, PADDING} & set(speech)
    )
    if not speeches:
        raise CorpusError(
            f"{name}: no speech of {SHORTEST} to {LENGTH - 1} characters in "
            f"{counted(len(text), 'character')}; paragraphs are divided by blank lines"
        )
    return speeches


def _without_speaker(paragraph: str) -> str:
    first, _, rest = paragraph.partition("\n")
    return rest.strip() if first.endswith(":") else paragraph


def _read(path: Path) -> str:
    try:
        text = "\n".join(re.split("\r\n?|\n", read_bytes(path, _MOST_BYTES).decode("utf-8-sig")))
    except RecordError as error:
        raise CorpusError(str(error)) from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error
    if not text.strip():
        raise CorpusError(f"{path}: empty")
    return text


def _shakespeare() -> Path:
    import keras

    with _network_timeout(_NETWORK_TIMEOUT_S):
        return Path(keras.utils.get_file("shakespeare.txt", _URL, file_hash=_SHA256))


@contextmanager
def _network_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


_SPEAKERS = ("KING", "QUEEN", "FOOL", "FIRST LORD", "SECOND LORD", "MESSENGER", "GHOST", "NURSE")
_ADDRESSES = ("My lord", "Good sir", "Sweet lady", "Come", "Nay", "Alas", "O heavens", "Peace")
_SUBJECTS = ("the king", "my heart", "this night", "our love", "the sword", "thy father", "the moon", "he")
_VERBS = (
    "speaks of",
    "hath seen",
    "will not forget",
    "must answer",
    "brings",
    "fears",
    "shall undo",
    "loves",
)
_OBJECTS = ("the crown", "a stranger", "thy name", "the dawn", "such sorrow", "our house", "her grief", "war")
_ENDINGS = (".", ".", "!", "?", ";\nso be it.", ",\nand there an end.")


def generate_play(speeches: int = 4000) -> str:
    """A play made of a few phrases, the same one every time, in the form that `cut` takes."""
    draw = random.Random(2016)

    def speech() -> str:
        parts = map(draw.choice, (_ADDRESSES, _SUBJECTS, _VERBS, _OBJECTS, _ENDINGS))
        address, subject, verb, noun, ending = parts
        return f"{address}, {subject} {verb} {noun}{ending}"

    return "\n\n".join(f"{draw.choice(_SPEAKERS)}:\n{speech()}" for _ in range(speeches)) + "\n"
