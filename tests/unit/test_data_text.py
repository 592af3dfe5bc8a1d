"""Text as tokens: folders, files, the embedded grammar; rows, windows and what does not fit."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from naswot.data._grammar import _ACTS, _ANIMATE, _DETERMINERS, _MOVES, _STATES, _THINGS, sentences
from naswot.data.text import END, UNKNOWN, Text, get_corpus, unigram_perplexity
from naswot.errors import DataError, InputError, OptionError, ShapeError
from naswot.seeding import torch_generator

TRAIN = "the cat sat\nthe dog <unk> the cat\n"


def written(folder, pattern="ptb.{}.txt", **parts):
    for part, text in {"train": TRAIN, "valid": "the bird sat\n", "test": "a dog\n"}.items():
        (folder / pattern.format(part)).write_text(parts.get(part, text), encoding="utf-8")
    return folder


def text(tokens, *, n_words=10, split="train"):
    return Text("made", torch.tensor(tokens, dtype=torch.int64), tuple(f"w{i}" for i in range(n_words)), split)


@pytest.mark.parametrize("pattern", ["ptb.{}.txt", "{}.txt", "wiki.{}.tokens"])
def test_folder_of_three_files(pattern, tmp_path):
    corpus = get_corpus(written(tmp_path, pattern))
    assert corpus.train.vocabulary == (END, UNKNOWN, "the", "cat", "dog", "sat")  # by frequency, then by name
    assert corpus.train.tokens.tolist() == [2, 3, 5, 0, 2, 4, 1, 2, 3, 0]
    assert corpus.valid.tokens.tolist() == [2, 1, 5, 0]  # a bird is not in the training part
    assert corpus.test.tokens.tolist() == [1, 4, 0]
    assert [part.split for part in corpus] == ["train", "valid", "test"]
    assert {part.name for part in corpus} == {tmp_path.name}
    assert all(part.vocabulary is corpus.train.vocabulary for part in corpus)
    assert corpus.train.decode(corpus.train.tokens) == TRAIN
    assert get_corpus(str(tmp_path)).train.tokens.tolist() == corpus.train.tokens.tolist()


def test_files_of_penn_treebank_go_before_others(tmp_path):
    written(written(tmp_path, "{}.txt"), train="words of Penn Treebank\n")
    assert "Treebank" in get_corpus(tmp_path).train.vocabulary


def test_the_most_frequent_words_are_kept(tmp_path):
    corpus = get_corpus(written(tmp_path), max_words=4)
    assert corpus.train.vocabulary == (END, UNKNOWN, "the", "cat")
    assert corpus.train.tokens.tolist() == [2, 3, 1, 0, 2, 1, 1, 2, 3, 0]


def test_one_file_is_cut_by_its_lines(tmp_path):
    path = tmp_path / "story.txt"
    path.write_text("".join(f"line {number}\n" for number in range(20)))
    corpus = get_corpus(path, valid_fraction=0.2, test_fraction=0.1)
    assert [len(part) for part in corpus] == [14 * 3, 4 * 3, 2 * 3]
    assert corpus.train.name == "story"
    assert corpus.train.decode(corpus.train.tokens[-3:]) == "line 13\n"
    assert corpus.valid.decode(corpus.valid.tokens[:3]) == f"line {UNKNOWN}\n"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"valid_fraction": 0.0}, "valid_fraction"),
        ({"test_fraction": 1.0}, "test_fraction"),
        ({"valid_fraction": 0.6, "test_fraction": 0.5}, "leave some text"),
        ({"max_words": 2}, "max_words"),
    ],
)
def test_options_that_do_not_fit(options, told):
    with pytest.raises(OptionError, match=told):
        get_corpus(**options)


def test_what_is_no_corpus_says_what_would_be(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*nowhere.*grammar"):
        get_corpus(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"expected the files ptb\.train\.txt, .*, test\.txt"):
        get_corpus(tmp_path)
    written(tmp_path)
    (tmp_path / "ptb.valid.txt").write_bytes(b"\xff\xfe caf\xe9")
    with pytest.raises(DataError, match=r"ptb\.valid\.txt as text.*UTF-8"):
        get_corpus(tmp_path)
    with pytest.raises(DataError, match=r"ptb\.test\.txt holds no words"):
        get_corpus(written(tmp_path, test=" \n\n"))
    short = tmp_path / "short.txt"
    short.write_text("two\nlines\n")
    with pytest.raises(DataError, match=r"short\.txt has 2 lines, which leave no words for the valid part"):
        get_corpus(short)


def test_rows_are_pieces_side_by_side():
    assert text(range(10)).rows(3).tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert text(range(10)).rows(5).shape == (5, 2)
    for n in (0, 6):
        with pytest.raises(OptionError, match=rf"1 to 5 rows of made .*10 tokens, but got {n}"):
            text(range(10)).rows(n)


def test_windows_have_the_next_token_as_target():
    made = text(range(10))
    batch = made.batch(200, generator=torch_generator(0), length=4)
    assert batch.inputs.shape == (200, 4)
    assert torch.equal(batch.inputs[:, 1:], batch.inputs[:, :-1] + 1)
    assert torch.equal(batch.targets, batch.inputs[:, -1] + 1)
    assert set(batch.inputs[:, 0].tolist()) == set(range(6))  # all places, the last token included as a target
    assert torch.equal(made.batch(200, generator=torch_generator(0), length=4).inputs, batch.inputs)
    assert made.batch(1, generator=torch_generator(0), length=9).inputs.tolist() == [list(range(9))]
    for n, length in ((0, 4), (2, 0), (2, 10)):
        with pytest.raises(InputError, match="10 tokens"):
            made.batch(n, generator=torch_generator(0), length=length)


def test_tokens_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"1\.\.10 lie outside the vocabulary of 10"):
        text([1, 10])
    with pytest.raises(InputError, match=r"-1\.\.3"):
        text([-1, 3])
    with pytest.raises(ShapeError, match=r"\(1, 2\)"):
        text([[1, 2]])
    with pytest.raises(InputError, match="float32"):
        Text("made", torch.zeros(3), ("a",))


def test_unigram_perplexity_by_hand():
    train, held_out = text([0, 0, 0, 1], n_words=2), text([0, 1], n_words=2)
    assert unigram_perplexity(train, held_out) == pytest.approx(math.sqrt(6 / 4 * 6 / 2))
    assert unigram_perplexity(text([0], n_words=7), text([3], n_words=7)) == pytest.approx(8.0)


def test_grammar_is_seeded_and_small():
    first = list(sentences(50))
    assert first == list(sentences(80))[:50]
    assert first != list(sentences(50, seed=1))
    corpus, again = get_corpus(), get_corpus("grammar")
    assert torch.equal(corpus.train.tokens, again.train.tokens)
    assert not torch.equal(corpus.train.tokens[:500], get_corpus(seed=1).train.tokens[:500])
    assert 15_000 < len(corpus.train) < 20_000
    assert 45 < len(corpus.train.vocabulary) < 60
    assert not any((part.tokens == 1).any() for part in corpus)  # no word is unknown


def number_of(word, pairs):
    """0 for singular, 1 for plural, None for what is neither or both."""
    found = {number for pair in pairs for number in (0, 1) if pair[number] == word}
    return found.pop() if len(found) == 1 else None


def test_verbs_agree_with_subjects_across_clauses():
    nouns, verbs = (*_ANIMATE, *_THINGS), (*_ACTS, *_STATES, *_MOVES)
    across = dict.fromkeys(itertools.product((0, 1), repeat=2), 0)
    for sentence in sentences(400):
        words = sentence.split()
        at = next(i for i, word in enumerate(words) if number_of(word, nouns) is not None)
        subject = number_of(words[at], nouns)
        assert number_of(words[0], _DETERMINERS) in (subject, None)
        if words[at + 1] != "that":
            assert number_of(words[at + 1], verbs) == subject
        elif number_of(words[at + 2], verbs) is None:  # an object clause: noun that [subject verb] verb
            inner = next(i for i in range(at + 2, len(words)) if number_of(words[i], verbs) is not None)
            assert number_of(words[inner + 1], verbs) == subject
            across[subject, number_of(words[inner], verbs)] += 1
    assert min(across.values()) > 5  # the nearest verb tells nothing
