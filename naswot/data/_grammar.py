"""Sentences of a small random grammar, in which what comes next depends on words some way back.

A subject agrees in number with its verb, which may stand behind a relative clause with a verb of its own; nouns come
with verbs that suit them. So a model that remembers is better by far than one that counts words.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from naswot.seeding import derive_seed, numpy_generator

_ANIMATE: Final = (("dog", "dogs"), ("child", "children"), ("bird", "birds"), ("farmer", "farmers"), ("fox", "foxes"))
_THINGS: Final = (("stone", "stones"), ("river", "rivers"), ("house", "houses"), ("tree", "trees"))
_ACTS: Final = (("sees", "see"), ("follows", "follow"), ("likes", "like"), ("hears", "hear"))
_STATES: Final = (("falls", "fall"), ("waits", "wait"), ("shines", "shine"))
_MOVES: Final = (("runs", "run"), ("sleeps", "sleep"), ("sings", "sing"))
_DETERMINERS: Final = (("a", "some"), ("this", "these"), ("the", "the"))
_ADJECTIVES: Final = ("old", "small", "grey", "quiet")
_N_SENTENCES: Final = 3_000


def sentences(n: int = _N_SENTENCES, *, seed: int = 0) -> Iterator[str]:
    """``n`` sentences, words between blanks; the first ones do not depend on ``n``."""
    rng = numpy_generator(derive_seed(seed, "grammar"))
    for _ in range(n):
        yield " ".join(_sentence(rng))


def _sentence(rng: np.random.Generator) -> list[str]:
    number, lives = int(rng.integers(2)), bool(rng.random() < 0.7)
    words = _noun_phrase(rng, number, lives)
    if rng.random() < 0.35:
        words += ["that", *_predicate(rng, number, lives)] if rng.random() < 0.5 else _seen_by(rng)
    words += _predicate(rng, number, lives)
    return [*words, "."]


def _noun_phrase(rng: np.random.Generator, number: int, lives: bool) -> list[str]:
    adjectives = [_one(rng, _ADJECTIVES)] if rng.random() < 0.3 else []
    noun = _pair(rng, _ANIMATE if lives else _THINGS)[number]
    return [_pair(rng, _DETERMINERS)[number], *adjectives, noun]


def _predicate(rng: np.random.Generator, number: int, lives: bool) -> list[str]:
    """What a subject does, with an object or without."""
    if not lives:
        return [_pair(rng, _STATES)[number]]
    if rng.random() < 0.4:
        return [_pair(rng, _MOVES)[number]]
    return [_pair(rng, _ACTS)[number], *_noun_phrase(rng, int(rng.integers(2)), bool(rng.random() < 0.5))]


def _seen_by(rng: np.random.Generator) -> list[str]:
    """A relative clause whose own subject stands between the noun and its verb."""
    number = int(rng.integers(2))
    return ["that", *_noun_phrase(rng, number, lives=True), _pair(rng, _ACTS)[number]]


def _pair(rng: np.random.Generator, pairs: tuple[tuple[str, str], ...]) -> tuple[str, str]:
    return pairs[int(rng.integers(len(pairs)))]


def _one(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[int(rng.integers(len(words)))]
