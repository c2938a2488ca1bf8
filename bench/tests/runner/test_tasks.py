"""The training tasks at tiny sizes: what they learn, what they say, and that chunks change nothing."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

import bench
from bench.cases.case import Case
from bench.cases.subjects import SUBJECTS
from bench.cases.sweeps import SWEEPS, Grid, Sweep
from bench.proof.problem import WrongAnswer
from bench.records.csv_file import read_records
from bench.records.run_folder import read_tasks
from bench.runner import proving, run, tasks, text_sampling
from bench.runner.corpus import END, CorpusError, cut, generate_play, load_corpus
from bench.runner.tasks import FULL, SHORT, TASKS, Settings, build_char_model, next_character_loss, perform

pytest_plugins = ["pytester"]

BENCHMARKS = Path(bench.__file__).parent / "benchmarks"
SHAKESPEARE = Path(__file__).parents[4] / "shared" / "data" / "shakespeare.txt"
STATEFUL_CELLS = ("simple_rnn-builtin", "gru-builtin", "slstm-rnn")


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    """Tiny sizes, and Shakespeare where he is, else a play made here."""
    file = SHAKESPEARE
    if not file.exists():
        file = tmp_path_factory.mktemp("corpus") / "play.txt"
        file.write_text(generate_play())
    return Settings(sequences=256, sum_epochs=3, corpus=file, batches=2, char_epochs=2, samples=2)


def case(subject: str, mode: str, shape: tuple[int, int, int, int], **options) -> Case:
    cell, layer = subject.split("-")
    return Case(cell, layer, mode, *shape, **options)


def perform_case(task: str, settings: Settings, *arguments, **options) -> tasks.TaskResult:
    made = case(*arguments, **options)
    return perform(task, made, SUBJECTS[made.subject], settings)


# --- partial_sum --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("subject", "first"), [("simple_rnn-builtin", 0), ("chosen_state-rnn", 1)])
def test_the_target_is_the_running_sum_from_h_0(settings, subject, first):
    result = perform_case("partial_sum", settings, subject, "fit", (64, 5, 1, 1), activation="linear")
    assert result.artefact["targets"] == [first + 0.5 * step for step in range(1, 6)]
    assert len(result.artefact["predictions"]) == 5


def test_a_simple_rnn_nears_the_sum(settings):
    result = perform_case(
        "partial_sum",
        replace(settings, sequences=8192, sum_epochs=4),
        *("simple_rnn-builtin", "fit", (64, 20, 1, 1)),
        activation="linear",
    )
    losses = result.artefact["losses"]
    assert losses[-1] == result.figures["loss"] < losses[0] / 5
    first = np.concatenate([np.ravel(w) for w in result.artefact["initial_weights"].values()])
    last = np.concatenate([np.ravel(w) for w in result.artefact["weights"].values()])
    assert np.linalg.norm(last - [1, 1, 0]) < np.linalg.norm(first - [1, 1, 0])


def test_the_artefact_predicts_what_its_weights_compute(settings):
    result = perform_case(
        "partial_sum", settings, "simple_rnn-builtin", "fit", (64, 6, 1, 1), activation="linear"
    )
    w, u, b = (np.ravel(weight)[0] for weight in result.artefact["weights"].values())
    state, computed = 0.0, []
    for _ in range(6):
        state = 0.5 * w + state * u + b
        computed.append(state)
    assert result.artefact["predictions"] == pytest.approx(computed, rel=1e-5)


def test_a_loss_that_is_no_number_is_refused(settings, monkeypatch):
    monkeypatch.setattr(keras.optimizers, "SGD", lambda rate: keras.optimizers.Adam(1e30))
    with pytest.raises(tasks.Diverged, match="the loss of epoch"):
        perform_case(
            "partial_sum", settings, "simple_rnn-builtin", "fit", (64, 30, 1, 1), activation="linear"
        )


# --- char_model ---------------------------------------------------------------------------------------------


def test_a_character_model_learns_and_is_told_apart_by_stateful(settings):
    results = [
        perform_case("char_model", settings, "slstm-rnn", "fit", (8, 79, 8, 16), stateful=stateful)
        for stateful in (True, False)
    ]
    for result in results:
        assert result.figures["loss"] < result.artefact["losses"][0]
        assert set(result.figures) == {"epoch_s", "characters_per_s", "loss"}
    assert results[0].artefact["losses"] != results[1].artefact["losses"]


def test_an_epoch_time_is_the_median_without_the_first():
    assert tasks.Training([3.0, 2.0, 1.0, 0.5], [9.0, 1.0, 3.0, 2.0]).figures == {"epoch_s": 2.0, "loss": 0.5}


def test_only_characters_of_text_are_counted(settings):
    result = perform_case("char_model", settings, "simple_rnn-builtin", "fit", (8, 79, 4, 4))
    rows = load_corpus(settings.corpus).rows(80, settings.seed)[:16]
    speeches = ["".join(load_corpus(settings.corpus).decode(row)).split("\0")[0] for row in rows]
    assert result.artefact["characters_an_epoch"] == sum(len(speech) - 1 for speech in speeches)


def test_the_states_are_reset_at_each_epoch_and_at_no_batch(settings, monkeypatch):
    resets = []
    reset_state = keras.layers.SimpleRNN.reset_state
    monkeypatch.setattr(
        keras.layers.SimpleRNN, "reset_state", lambda layer: resets.append(1) or reset_state(layer)
    )
    shape = (8, 79, 4, 4)
    perform_case("char_model", settings, "simple_rnn-builtin", "fit", shape)
    assert not resets
    perform_case("char_model", settings, "simple_rnn-builtin", "fit", shape, stateful=True)
    assert len(resets) == settings.char_epochs


def test_padding_is_not_in_the_loss():
    loss = next_character_loss()
    logits = np.random.default_rng(1).standard_normal((2, 6, 5)).astype("float32")
    targets = np.array([[1, 2, 3, 0, 0, 0], [4, 0, 0, 0, 0, 0]])
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    wanted = [-math.log(probabilities[row, step, targets[row, step]]) for row, step in np.argwhere(targets)]
    assert float(loss(targets, logits)) == pytest.approx(np.mean(wanted), rel=1e-5)


def test_the_recurrent_kernel_starts_glorot_uniform(settings):
    _, layer = char_model_of("slstm-rnn", settings, batch_size=2, units=32)
    kernel = np.asarray(layer.cell.recurrent_kernel)
    assert np.abs(kernel).max() <= math.sqrt(6 / (32 + 64))  # an orthogonal one goes beyond
    assert kernel.std() == pytest.approx(math.sqrt(2 / (32 + 64)), rel=0.1)


def test_a_corpus_of_less_than_a_batch_is_refused(settings, tmp_path):
    file = tmp_path / "short.txt"
    file.write_text("A:\nquite long enough\n\nB:\nand this one too\n")
    with pytest.raises(CorpusError, match=r"short.txt: 2 speeches, which is not one batch of 8"):
        perform_case("char_model", replace(settings, corpus=file), "simple_rnn-builtin", "fit", (8, 79, 4, 4))


# --- chunks -------------------------------------------------------------------------------------------------


def char_model_of(subject: str, settings: Settings, batch_size: int = 1, units: int = 16):
    """A model of one cell with fixed weights, larger than they start, for states that matter."""
    keras.utils.set_random_seed(7)
    made = case(subject, "fit", (batch_size, 79, 8, units), stateful=True)
    characters = len(load_corpus(settings.corpus).characters)
    model, layer = build_char_model(made, SUBJECTS[subject], characters, timesteps=None)
    return model, layer


@pytest.mark.parametrize("subject", STATEFUL_CELLS)
def test_the_loss_of_a_speech_does_not_depend_on_its_chunks(settings, subject):
    model, layer = char_model_of(subject, settings)
    model.set_weights([3 * weight for weight in model.get_weights()])
    corpus = load_corpus(settings.corpus)
    row = np.asarray([corpus.encode(corpus.speeches[0] + END)])
    inputs, targets = row[:, :-1], row[:, 1:]

    def loss(*ends: int) -> float:
        layer.reset_state()
        chunks = zip(np.split(inputs, ends, axis=1), np.split(targets, ends, axis=1), strict=True)
        losses = [next_character_loss()(y, model(x, training=False)) * y.shape[1] for x, y in chunks]
        return float(sum(losses)) / targets.shape[1]

    whole = loss()
    assert loss(1) == pytest.approx(whole, rel=1e-6)
    assert loss(3, 4, 11) == pytest.approx(whole, rel=1e-6)
    assert loss(*range(1, targets.shape[1])) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("subject", STATEFUL_CELLS)
def test_the_text_does_not_depend_on_its_chunks(settings, subject):
    model, layer = char_model_of(subject, settings)
    corpus = load_corpus(settings.corpus)
    start, end = corpus.encode("the lord"), corpus.encode(END)[0]
    feeds = {"eager": model, "compiled": text_sampling.compiled(model), "one by one": one_by_one(model)}
    draws = {"eager": text_sampling.draw_eagerly(model)}
    draws |= {str(steps): text_sampling.draw_compiled(model, end, steps) for steps in (1, 7, 100)}
    texts = {}
    for feed, draw in [("eager", "eager"), ("compiled", "1"), ("one by one", "7"), ("compiled", "100")]:
        text_sampling.seed(3)
        texts[draw] = [
            text_sampling.sample(layer, feeds[feed], draws[draw], start, end, limit) for limit in (15, 40, 20)
        ]
    assert texts["1"] == texts["7"] == texts["100"] == texts["eager"]
    assert any(len(text) > 7 for text in texts["1"])
    assert texts["1"][0] != texts["1"][1][:15], "the stream of random numbers goes on"


def one_by_one(model):
    return lambda characters: [model(characters[:, at : at + 1]) for at in range(characters.shape[1])]


@pytest.mark.parametrize("steps", [1, 5, 100])
def test_a_text_ends_at_the_end_or_the_limit(settings, steps):
    model, layer = char_model_of("gru-builtin", settings)
    feed, start = text_sampling.compiled(model), [3]
    kernel, bias = model.layers[-1].get_weights()
    for end, bias_of_end, length in ((5, 50.0, 1), (5, -50.0, 12)):
        bias[end] = bias_of_end
        model.layers[-1].set_weights([kernel, bias])
        text = text_sampling.sample(
            layer, feed, text_sampling.draw_compiled(model, end, steps), start, end, 12
        )
        assert len(text) == length
        assert (text[-1] == end) == (length == 1)


# --- generate -----------------------------------------------------------------------------------------------


@pytest.fixture
def short_texts(monkeypatch):
    monkeypatch.setattr(tasks, "_LIMIT", 20)


def test_generate_writes_the_same_text_one_at_a_time_and_in_one_loop(settings, short_texts):
    results = [
        perform_case("generate", settings, "slstm-rnn", "generate", (1, steps, 8, 16), stateful=True)
        for steps in (1, 100)
    ]
    texts = [result.artefact["texts"] for result in results]
    assert texts[0] == texts[1]
    start = load_corpus(settings.corpus).speeches[0].split()[0]
    for text in texts[0]:
        assert text.startswith(start)
        assert text.endswith(END) or len(text) == len(start) + 20
    for result in results:
        assert set(result.figures) == {"characters_per_s"}
        json.dumps(result.artefact, allow_nan=False)


def test_generate_takes_the_weights_of_the_trained_model(settings, short_texts, monkeypatch):
    made = case("gru-builtin", "fit", (32, 79, 8, 12), stateful=True)
    perform("char_model", made, SUBJECTS[made.subject], settings)
    monkeypatch.setattr(tasks, "char_model", None)  # nothing is trained again
    built = []
    original = tasks.build_char_model
    monkeypatch.setattr(
        tasks, "build_char_model", lambda *a, **k: built.append(original(*a, **k)) or built[-1]
    )
    perform_case("generate", settings, "gru-builtin", "generate", (1, 1, 8, 12), stateful=True)
    (model, _), trained = built[0], tasks._weights_of[SUBJECTS[made.subject], made, settings]
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), trained, strict=True))
    untrained, _ = tasks._untrained(made, SUBJECTS[made.subject], settings, load_corpus(settings.corpus))
    assert not np.array_equal(untrained.get_weights()[0], trained[0])


def test_generate_refuses_ways_that_disagree(settings, short_texts, monkeypatch):
    monkeypatch.setattr(text_sampling, "draw_compiled", lambda model, end, steps: lambda *_: [end])
    with pytest.raises(WrongAnswer, match="one compiled loop draws"):
        perform_case("generate", settings, "slstm-rnn", "generate", (1, 1, 8, 16), stateful=True)


# --- the plugin ---------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(pytester, monkeypatch):
    """run(*options): the benchmarks on a sweep `tiny` of one task and two subjects, in an empty folder."""
    grid = Grid(
        ("simple_rnn-builtin", "slstm-rnn"), ((8, 5, 1, 1),), ({"activation": "linear"},), modes=("fit",)
    )
    monkeypatch.setitem(SWEEPS, "tiny", Sweep("?", (grid,), task="partial_sum", full={"timesteps": 6}))
    monkeypatch.setattr(tasks, "SHORT", Settings(sequences=32, sum_epochs=2))
    monkeypatch.setattr(tasks, "FULL", Settings(sequences=32, sum_epochs=3))
    pytester.makeconftest('pytest_plugins = ["bench.plugin"]')
    for name in ("cost", "tasks"):
        shutil.copy(BENCHMARKS / f"benchmark_{name}.py", pytester.path / f"test_{name}.py")
    options = ("--benchmark-only", "--results=results", "--sweep=tiny", "-p", "no:cacheprovider")
    return lambda *more: pytester.runpytest_inprocess(*options, *more)


def only_run(pytester) -> Path:
    (folder,) = (pytester.path / "results").iterdir()
    return folder


def test_a_task_is_proven_performed_and_recorded(tiny, pytester):
    result = tiny()
    result.assert_outcomes(passed=2)  # and no skipped test_cost
    records, artefacts = read_records(only_run(pytester)), read_tasks(only_run(pytester))
    cases = ["fit-simple_rnn-builtin-b8-t5-f1-u1-act_linear", "fit-slstm-rnn-b8-t5-f1-u1-act_linear"]
    assert [record["case"] for record in records] == [artefact["case"] for artefact in artefacts] == cases
    for record, artefact in zip(records, artefacts, strict=True):
        assert (record["status"], record["proof"], record["baseline"]) == ("ok", "exact", None)
        assert record["loss"] == artefact["losses"][-1]
        assert record["epoch_s"] == artefact["epochs_s"][-1] > 0
        assert record["ratio"] is None and record["median_s"] is None
    result.stdout.fnmatch_lines(["*tiny: keras SimpleRNN, fit*an epoch, loss*", "*tasks.json"])


def test_full_is_the_tutorials_size(tiny, pytester):
    tiny("--full", "-k", "slstm").assert_outcomes(passed=1)
    (record,), (artefact,) = read_records(only_run(pytester)), read_tasks(only_run(pytester))
    assert record["timesteps"] == 6
    assert len(artefact["losses"]) == 3


def test_a_wrong_answer_is_never_trained(tiny, pytester, monkeypatch):
    def refuse(problem):
        raise WrongAnswer("it computes something else")

    monkeypatch.setattr(proving, "prove", refuse)
    monkeypatch.setattr(run, "perform", lambda *arguments: pytest.fail("performed"))
    tiny().assert_outcomes(failed=2)
    for record in read_records(only_run(pytester)):
        assert (record["status"], record["reason"]) == ("failed", "wrong_answer")
        assert record["loss"] is None and record["epoch_s"] is None
    assert read_tasks(only_run(pytester)) == []


def test_a_corpus_that_cannot_be_read_is_refused_before_anything_runs(tiny, pytester, monkeypatch):
    monkeypatch.setitem(SWEEPS, "tiny", replace(SWEEPS["tiny"], task="char_model"))
    result = tiny("--corpus=nowhere.txt")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--corpus nowhere.txt: cannot be read: No such file or directory*"])
    assert not (pytester.path / "results").exists()


# --- the tables ---------------------------------------------------------------------------------------------


def test_every_task_of_a_sweep_is_there():
    named = {sweep.task for sweep in SWEEPS.values() if sweep.task}
    assert named == set(TASKS)


def test_the_full_form_is_the_tutorials():
    assert (FULL.sum_epochs, FULL.char_epochs, FULL.batches, FULL.sequences) == (100, 15, None, 51_200)
    assert SHORT.sequences == FULL.sequences
    assert SWEEPS["char_model"].full == SWEEPS["generate"].full == {"units": 1024}
    assert len(cut(generate_play(), "play")) > 32 * (SHORT.batches or 0)
