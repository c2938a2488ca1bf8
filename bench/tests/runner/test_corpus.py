"""Where the text comes from, what of it is kept, and what is said of one that cannot be learned from."""

import os
import socket

import keras
import numpy as np
import pytest

from bench.runner.corpus import (
    END,
    GENERATED,
    PADDING,
    Corpus,
    CorpusError,
    CorpusWarning,
    cut,
    generate_play,
    load_corpus,
)

PLAY = """First Citizen:
Speak, speak, my lord.

All:
Too short

A paragraph without a name.

Second Citizen:
Two lines of it,
and this is the other.
"""


@pytest.fixture(autouse=True)
def _forget():
    load_corpus.cache_clear()
    yield
    load_corpus.cache_clear()


def test_a_play_is_cut_into_what_is_said():
    assert cut(PLAY, "play") == (
        "Speak, speak, my lord.",
        "A paragraph without a name.",
        "Two lines of it,\nand this is the other.",
    )


@pytest.mark.parametrize(("length", "kept"), [(9, False), (10, True), (79, True), (80, False)])
def test_a_speech_has_at_least_10_and_with_its_end_at_most_80_characters(length, kept):
    speeches = cut(f"A:\n{'x' * length}\n\nB:\nquite long enough\n", "play")
    assert ("x" * length in speeches) == kept


@pytest.mark.parametrize("character", [END, PADDING])
def test_a_speech_with_an_end_inside_is_left_out(character):
    assert cut(f"A:\nnot {character} this one\n\nB:\nbut this one\n", "play") == ("but this one",)


def test_rows_are_the_speeches_with_their_end_padded():
    corpus = Corpus("play", ("abcabcabca", "bbbbbbbbbbbbb"))
    rows = corpus.rows(16, seed=1)
    assert rows.shape == (2, 16)
    assert corpus.characters == PADDING + END + "abc"
    texts = {corpus.decode(row) for row in rows}
    assert texts == {"abcabcabca*" + PADDING * 5, "bbbbbbbbbbbbb*" + PADDING * 2}


def test_rows_are_shuffled_by_the_seed_alone():
    corpus = Corpus("play", cut(generate_play(200), "play"))
    assert np.array_equal(corpus.rows(80, seed=1), corpus.rows(80, seed=1))
    assert not np.array_equal(corpus.rows(80, seed=1), corpus.rows(80, seed=2))
    assert sorted(map(bytes, corpus.rows(80, seed=1))) == sorted(map(bytes, corpus.rows(80, seed=2)))


def test_a_character_that_the_corpus_does_not_have_is_named():
    with pytest.raises(CorpusError, match=r"the corpus play has no 'q', 'z'"):
        Corpus("play", ("abcabcabca",)).encode("abzq")


def test_ones_own_text(tmp_path):
    file = tmp_path / "own.txt"
    file.write_bytes("\ufeffДостиг я высшей власти.\r\n\r\nШУТ:\r\nИ что же, государь?\r\n".encode())
    corpus = load_corpus(file)
    assert corpus.speeches == ("Достиг я высшей власти.", "И что же, государь?")
    assert corpus.describe() | {"sha256": ""} == {
        "source": "own.txt",
        "generated": False,
        "speeches": 2,
        "characters": len(set("".join(corpus.speeches))) + 1,
        "sha256": "",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b"A:\nshort\n", "no speech of 10 to 79 characters in 9 characters"),
        (b"long " * 100, "no speech of 10 to 79 characters in 500 characters"),
        (b"A:\nquite long \xff enough\n", "not UTF-8: invalid start byte at byte 14"),
    ],
)
def test_a_text_that_cannot_be_learned_from(tmp_path, content, message):
    file = tmp_path / "own.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CorpusError, match=message) as caught:
        load_corpus(file)
    assert str(file) in str(caught.value)


def test_without_a_network_a_text_is_made_and_it_is_said(monkeypatch):
    seen = []

    def get_file(*args, **kwargs):
        seen.append(socket.getdefaulttimeout())
        raise Exception("URL fetch failure: Name or service not known")

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    before = socket.getdefaulttimeout()
    with pytest.warns(CorpusWarning, match="Name or service not known.*--corpus PATH"):
        corpus = load_corpus()
    assert seen[0] is not None and seen[0] <= 30
    assert socket.getdefaulttimeout() == before
    assert corpus.describe()["generated"] is True
    assert corpus.source == GENERATED


def test_shakespeare_is_asked_for_once(monkeypatch, tmp_path):
    file = tmp_path / "shakespeare.txt"
    file.write_text(PLAY)
    asked = []
    monkeypatch.setattr(keras.utils, "get_file", lambda name, *args, **kwargs: asked.append(name) or file)
    assert load_corpus().speeches == load_corpus().speeches == cut(PLAY, "play")
    assert asked == ["shakespeare.txt"]


def test_the_text_made_here_is_a_play_and_always_the_same():
    play = generate_play()
    assert play == generate_play()
    speeches = cut(play, GENERATED)
    assert len(speeches) == 4000  # every speech has the right length
    assert len(set(speeches)) > 3000


@pytest.mark.parametrize("name", [".", "pipe", "/dev/zero", "x" * 5000, "a\0b"])
def test_a_corpus_that_is_no_file_is_said_on_a_line(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CorpusError) as raised:
        load_corpus(tmp_path / name)
    assert len(str(raised.value)) <= 300
