"""The tutorials' training tasks: what a cell learns, how long an epoch takes, and what the model then writes.

`TASKS` is the one table. A task is a function of a case, its subject and the settings; it ends in a
`TaskResult`. What the times mean is decided by the caller, who repeats the run that a task gives it.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import keras
import numpy as np

from bench.cases import cudnn
from bench.cases.case import Case
from bench.cases.subjects import Subject, make_layer
from bench.proof.problem import WrongAnswer
from bench.runner import text_sampling
from bench.runner.corpus import END, LENGTH, Corpus, CorpusError, load_corpus
from bench.timing.blocks import time_call

# repeat(run, rounds): runs it that often, or less; the seconds of each time
Repeat = Callable[[Callable[[], object], int], list[float]]

_BATCH_SIZE = 32  # that the model which `generate` writes with is trained in
_LIMIT = 100  # characters of a generated text
_COMPARED = 3  # texts, of those that every way of sampling must agree on
_RUNNING_SUM_FROM = {"chosen_state": 1.0, "learned_state": 1.0}  # h_0, by cell; the others start at 0


class Diverged(ArithmeticError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Settings:
    """The settings that a task's case does not hold. The defaults are the short form, minutes on two cores.

    Attributes:
        seed: of weights, data and samples. A recurrent kernel of one unit starts at +1 or −1, which is what
            orthogonal means; from −1, SGD at 1e-4 learns no sum in ten epochs. With 0 it starts at +1.
        sequences, sum_epochs: of `partial_sum`.
        corpus: the file with one's own text; None for Shakespeare.
        batches: of an epoch of `char_model`; None for the whole corpus.
        char_epochs: of `char_model`.
        samples: how many texts `generate` times.
    """

    seed: int = 0
    sequences: int = 51_200
    sum_epochs: int = 10
    corpus: Path | None = None
    batches: int | None = 40
    char_epochs: int = 4
    samples: int = 20


SHORT = Settings()
FULL = Settings(sum_epochs=100, batches=None, char_epochs=15)  # the tutorials' sizes; units are the case's


@dataclass(frozen=True)
class TaskResult:
    """The result of a task.

    Attributes:
        figures: columns of the record: `epoch_s`, `characters_per_s`, `loss`.
        artefact: what is no figure, fit for JSON: history, learned weights, predictions, texts.
    """

    figures: dict[str, float]
    artefact: dict[str, Any]


@dataclass(frozen=True)
class Training:
    """The course of a training: of each epoch the loss and the seconds; the first epoch compiles."""

    losses: list[float]
    epochs_s: list[float]

    @property
    def figures(self) -> dict[str, float]:
        """`epoch_s`, the median of the epochs but the first, and the last `loss`."""
        return {"epoch_s": median(self.epochs_s[1:] or self.epochs_s), "loss": self.losses[-1]}


def repeat_plainly(run: Callable[[], object], rounds: int) -> list[float]:
    """The seconds of each of `rounds` runs."""
    return [time_call(run) for _ in range(rounds)]


def perform(
    name: str, case: Case, subject: Subject, settings: Settings, repeat: Repeat = repeat_plainly
) -> TaskResult:
    """Performs the task called `name` on the case's device.

    Raises:
        UnsupportedOption: the subject does not have an option of the case.
        Diverged: the loss of an epoch is not finite.
        WrongAnswer: the same seed gave another text.
        CorpusError: the text cannot be learned from.
    """
    with keras.device(f"{case.device}:0"):
        return TASKS[name](case, subject, settings, repeat)


def partial_sum(case: Case, subject: Subject, settings: Settings, repeat: Repeat) -> TaskResult:
    """Learns the running sum of uniform numbers in [0, 1), plus h_0 for cells that start from another one.

    Sequences [timesteps, 1], mean squared error, SGD at 1e-4. With a linear activation and one unit,
    SimpleRNN should near W = U = 1 and b = 0: then it is the sum. It does not settle there: with 30 steps the
    second derivative of the loss in U is about 2e4 (2 mean (t² / 4)²), where SGD at 1e-4 is just stable, and
    U swings around 1.
    """
    keras.utils.set_random_seed(settings.seed)
    layer = _silent(make_layer(subject, case))
    inputs = keras.Input(batch_shape=(case.batch_size, case.timesteps, case.features))
    model = keras.Model(inputs, layer(inputs))
    model.compile(keras.optimizers.SGD(1e-4), "mse", jit_compile=case.jit_compile)

    first = _RUNNING_SUM_FROM.get(case.cell, 0.0)
    shape = (settings.sequences, case.timesteps, case.features)
    numbers = np.random.default_rng(settings.seed).uniform(size=shape).astype("float32")
    sums = first + np.cumsum(numbers, axis=1)
    before = _weights(model)
    training = _fit(model, numbers, sums, case.batch_size, settings.sum_epochs, repeat)

    halves = np.full((case.batch_size, *shape[1:]), 0.5, "float32")
    predicted = model.predict(halves, batch_size=case.batch_size, verbose=0)[0, :, 0]
    return TaskResult(
        training.figures,
        {
            **asdict(training),
            "initial_weights": before,
            "weights": _weights(model),
            "inputs": 0.5,
            "targets": (first + np.cumsum(halves[0, :, 0])).tolist(),
            "predictions": predicted.tolist(),
        },
    )


def char_model(case: Case, subject: Subject, settings: Settings, repeat: Repeat) -> TaskResult:
    """Learns the next character of a speech; Adam, the tutorial's model (`build_char_model`).

    An epoch is the first `settings.batches` full batches of the shuffled speeches, in another order each
    time. A stateful layer is reset at each epoch and at no batch: a row of a batch goes on from the speech
    in the same row of the batch before, which has nothing to do with it, as in the tutorial.

    The loss is the cross entropy in nats of a character of text. Padding is neither counted in it nor in the
    characters a second, though its steps are computed.
    """
    corpus = load_corpus(settings.corpus)
    model, layer = _untrained(case, subject, settings, corpus)
    rows = _rows(corpus, case, settings)
    training = _train(model, layer, rows, case, settings, repeat)
    _weights_of[subject, case, settings] = model.get_weights()
    figures = training.figures
    characters = int(np.count_nonzero(rows[:, 1:]))
    return TaskResult(
        {**figures, "characters_per_s": characters / figures["epoch_s"]},
        {
            **asdict(training),
            "corpus": corpus.describe(),
            "batches": len(rows) // case.batch_size,
            "characters_an_epoch": characters,
            "recurrent_initializer": getattr(layer.cell, "recurrent_initializer", None) and "glorot_uniform",
        },
    )


def generate(case: Case, subject: Subject, settings: Settings, repeat: Repeat) -> TaskResult:
    """Writes texts with the trained `char_model`, rebuilt with a batch of one: up to `*` or 100 characters.

    A call of the compiled program draws `case.timesteps` characters: 1, one at a time, or 100, the whole
    text in one loop. Before it is timed, three texts are drawn with it, in one loop, and eagerly, operation
    by operation as the tutorials do it, from one seed: they must be the same.
    """
    corpus = load_corpus(settings.corpus)
    weights = _trained_weights(case, subject, settings, corpus)
    model, layer = build_char_model(case, subject, len(corpus.characters), timesteps=None)
    model.set_weights(weights)
    start, end = corpus.encode(_first_word(corpus)), corpus.encode(END)[0]
    feed = text_sampling.compiled(model)

    def way(feed: Callable, draw: text_sampling.Draw) -> Callable[[], list[int]]:
        return lambda: text_sampling.sample(layer, feed, draw, start, end, _LIMIT)

    own = way(feed, text_sampling.draw_compiled(model, end, case.timesteps))
    eagerly, texts = _agreeing(
        way(model, text_sampling.draw_eagerly(model)),
        way(feed, text_sampling.draw_compiled(model, end, _LIMIT)),
        own,
        settings.seed,
    )
    lengths: list[int] = []
    times = repeat(lambda: lengths.append(len(own())), settings.samples)
    return TaskResult(
        {"characters_per_s": _rate(lengths, times)},
        {
            "corpus": corpus.describe(),
            "start": corpus.decode(start),
            "texts": [corpus.decode(start + text) for text in texts],
            "characters_a_call": case.timesteps,
            "eager_characters_per_s": eagerly,
            "samples": len(times),
        },
    )


Task = Callable[[Case, Subject, Settings, Repeat], TaskResult]
TASKS: Mapping[str, Task] = {"partial_sum": partial_sum, "char_model": char_model, "generate": generate}


def build_char_model(case: Case, subject: Subject, characters: int, timesteps: int | None):
    """Embedding, the subject's layer, and a dense layer of logits: (model, recurrent layer).

    int32 [batch_size, timesteps] -> [batch_size, timesteps, characters]. The embedding is `case.features`
    wide. The recurrent kernel starts Glorot uniform where the cell has a `recurrent_initializer`.
    """
    layer = _silent(make_layer(subject, case))
    if hasattr(layer.cell, "recurrent_initializer"):
        layer.cell.recurrent_initializer = keras.initializers.get("glorot_uniform")
    inputs = keras.Input(batch_shape=(case.batch_size, timesteps), dtype="int32")
    embedded = keras.layers.Embedding(characters, case.features)(inputs)
    return keras.Model(inputs, keras.layers.Dense(characters)(layer(embedded))), layer


def next_character_loss() -> keras.losses.Loss:
    """The mean cross entropy of the characters, in nats; padding, whose number is 0, does not count."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)


def _silent(layer):
    """The layer without its states among its outputs: the models have no use for them."""
    layer.return_state = False
    return layer


def _untrained(case: Case, subject: Subject, settings: Settings, corpus: Corpus):
    keras.utils.set_random_seed(settings.seed)
    model, layer = build_char_model(case, subject, len(corpus.characters), case.timesteps)
    model.compile(keras.optimizers.Adam(), next_character_loss(), jit_compile=case.jit_compile)
    return model, layer


def _rows(corpus: Corpus, case: Case, settings: Settings) -> np.ndarray:
    """The speeches of an epoch, whole batches, int32 [speeches, timesteps + 1]."""
    rows = corpus.rows(case.timesteps + 1, settings.seed)
    batches = min(len(rows) // case.batch_size, settings.batches or len(rows))
    if not batches:
        raise CorpusError(
            f"{corpus.source}: {len(rows)} speeches, which is not one batch of {case.batch_size}"
        )
    return rows[: batches * case.batch_size]


def _train(model, layer, rows: np.ndarray, case: Case, settings: Settings, repeat: Repeat) -> Training:
    class Reset(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if case.stateful:
                layer.reset_state()

    inputs, targets = rows[:, :-1], rows[:, 1:]
    return _fit(model, inputs, targets, case.batch_size, settings.char_epochs, repeat, [Reset()])


class _EpochTimes(keras.callbacks.Callback):
    """The seconds of each epoch; `fit` reads the loss, and so has waited for the device, before it ends."""

    def __init__(self):
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self._start)


def _fit(model, inputs, targets, batch_size: int, epochs: int, repeat: Repeat, callbacks=()) -> Training:
    """`model.fit`, the whole training as one round of `repeat`."""
    times = _EpochTimes()
    losses: list[float] = []

    def run():
        done = model.fit(
            inputs,
            targets,
            batch_size=batch_size,
            epochs=epochs,
            callbacks=[*callbacks, times, keras.callbacks.TerminateOnNaN()],
            verbose=0,
        )
        losses.extend(float(loss) for loss in done.history["loss"])

    repeat(run, 1)
    if not all(map(math.isfinite, losses)):
        raise Diverged(f"the loss of epoch {len(losses)} is {losses[-1]}")
    return Training(losses, times.seconds)


def _weights(model) -> dict[str, Any]:
    return {weight.name: np.asarray(weight).tolist() for weight in model.weights}


# the weights of the models trained so far, for `generate`, which needs them again for each way of drawing
_weights_of: dict[tuple[Subject, Case, Settings], list[np.ndarray]] = {}


def _trained_weights(case: Case, subject: Subject, settings: Settings, corpus: Corpus) -> list[np.ndarray]:
    training = replace(case, mode="fit", batch_size=_BATCH_SIZE, timesteps=LENGTH - 1, stateful=True)
    training = replace(training, jit_compile=cudnn.fit_compiles(training))
    if (subject, training, settings) not in _weights_of:
        char_model(training, subject, settings, repeat_plainly)
    return _weights_of[subject, training, settings]


def _first_word(corpus: Corpus) -> str:
    return corpus.speeches[0].split()[0]


def _agreeing(
    eagerly: Callable[[], list[int]],
    at_once: Callable[[], list[int]],
    own: Callable[[], list[int]],
    seed: int,
) -> tuple[float, list[list[int]]]:
    """The characters a second drawn eagerly, and the texts that all three ways draw from the seed.

    Raises:
        WrongAnswer: they draw different texts.
    """
    drawn: list[list[int]] = []
    text_sampling.seed(seed)
    times = repeat_plainly(lambda: drawn.append(eagerly()), _COMPARED)
    for name, way in (("one compiled loop", at_once), ("the program to be timed", own)):
        text_sampling.seed(seed)
        for number, text in enumerate(drawn):
            if (other := way()) != text:
                raise WrongAnswer(f"text {number}: {name} draws {other}, the eager model {text}")
    return _rate([len(text) for text in drawn[1:]], times[1:]), drawn


def _rate(characters: Sequence[int], times: Sequence[float]) -> float:
    """Characters a second, the median of the samples."""
    return median(count / seconds for count, seconds in zip(characters, times, strict=True))
