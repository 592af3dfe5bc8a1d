"""Text as token ids: a folder of three files, one plain file, or an embedded grammar, so that nothing is downloaded.

Text of Penn Treebank in the form of Mikolov et al., Recurrent neural network based language model, Interspeech 2010, is
read as in Liu et al., DARTS: words between blanks, and a token for the end of each line.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor

from naswot.data._grammar import sentences
from naswot.errors import DataError, InputError, OptionError, ShapeError
from naswot.types import Batch

END: Final = "<eos>"
"""Token of the end of a line."""
UNKNOWN: Final = "<unk>"
"""Token of all words that the vocabulary does not hold."""
GRAMMAR: Final = "grammar"
"""Name of the embedded text."""

_PARTS: Final = ("train", "valid", "test")
_PATTERNS: Final = ("ptb.{}.txt", "{}.txt", "wiki.{}.tokens")


@dataclass(frozen=True, eq=False)
class Text:
    """One part of a corpus.

    Args:
        name: of the corpus.
        tokens: (M,) int64, indices into the vocabulary.
        vocabulary: the words, in the order of their ids; the same for all parts.
        split: ``"train"``, ``"valid"`` or ``"test"``.
    Raises:
        ShapeError: if the tokens have more than one dimension.
        InputError: if they are no indices into the vocabulary.
    """

    name: str
    tokens: Tensor = field(repr=False)
    vocabulary: tuple[str, ...] = field(repr=False)
    split: str = "train"

    def __post_init__(self) -> None:
        if self.tokens.dim() != 1:
            raise ShapeError(f"expected tokens of shape (M,), but got {tuple(self.tokens.shape)}")
        if self.tokens.dtype != torch.int64:
            raise InputError(f"expected tokens of type int64, but got {self.tokens.dtype}")
        if len(self) and not 0 <= int(self.tokens.min()) <= int(self.tokens.max()) < len(self.vocabulary):
            raise InputError(
                f"tokens {int(self.tokens.min())}..{int(self.tokens.max())} lie outside the vocabulary of "
                f"{len(self.vocabulary)} words"
            )

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, n: int) -> Tensor:
        """The text cut into ``n`` pieces of one length that are read side by side, (n, M // n) int64; the rest is left.

        Raises:
            OptionError: if a piece would hold less than two tokens, one to read and one to foretell.
        """
        if n < 1 or len(self) // n < 2:
            raise OptionError(
                f"expected 1 to {len(self) // 2:,} rows of {self.name} ({self.split}), which holds {len(self):,} "
                f"tokens, but got {n}"
            )
        length = len(self) // n
        return self.tokens[: n * length].view(n, length)

    def batch(self, n: int, *, generator: torch.Generator, length: int = 35) -> Batch:
        """``n`` windows drawn uniformly, with the token behind each as its target; they may overlap.

        Args:
            n: batch size N.
            generator: where the draw comes from.
            length: tokens T of a window.
        Returns:
            Batch with inputs (N, T) int64 and targets (N,) int64.
        Raises:
            InputError: if the text holds no window of that length.
        """
        if n < 1 or length < 1 or len(self) <= length:
            raise InputError(
                f"{n} windows of {length} tokens cannot be drawn from {self.name} ({self.split}), which holds "
                f"{len(self):,} tokens; take n of at least 1 and a shorter length"
            )
        starts = torch.randint(len(self) - length, (n, 1), generator=generator)
        windows = self.tokens[starts + torch.arange(length + 1)]
        return Batch(windows[:, :-1].contiguous(), windows[:, -1].contiguous())

    def decode(self, tokens: Tensor) -> str:
        """Words of some token ids, each end of a line as such.

        Args:
            tokens: (M,) int64.
        """
        words = " ".join(self.vocabulary[token] for token in tokens.tolist())
        return words.replace(f" {END} ", "\n").replace(f" {END}", "\n")


class Corpus(NamedTuple):
    """Three parts of a text with one vocabulary: to learn from, to choose by, and to report on once."""

    train: Text
    valid: Text
    test: Text


def get_corpus(
    source: str | os.PathLike[str] = GRAMMAR,
    *,
    max_words: int | None = None,
    valid_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
) -> Corpus:
    """The corpus of a folder or file, read into memory.

    Words are what stands between blanks. The vocabulary is that of the training part, frequent words first; all other
    words are ``<unk>``.

    Args:
        source: ``"grammar"``, sentences made by a small random grammar; a folder with ``ptb.train.txt``,
            ``ptb.valid.txt`` and ``ptb.test.txt`` (or ``train.txt``, ..., or ``wiki.train.tokens``, ...); or a text
            file, of which the last lines are set aside.
        max_words: the most that the vocabulary holds, ``<eos>`` and ``<unk>`` among them; None: all.
        valid_fraction: share of the lines of a file that are for validation.
        test_fraction: share of the lines of a file that are for the test, behind those for validation.
        seed: of the grammar.
    Raises:
        DataError: if there is no such file, it is no UTF-8 text, or a part is empty.
        OptionError: for fractions that leave nothing, or a vocabulary of less than three words.
    Example:
        >>> corpus = get_corpus()
        >>> corpus.valid.decode(corpus.valid.tokens[:6]).split()[0] in corpus.train.vocabulary
        True
    """
    if max_words is not None and max_words < 3:
        raise OptionError(f"expected max_words of at least 3 ({END}, {UNKNOWN} and a word), but got {max_words}")
    if source == GRAMMAR:
        name, parts = GRAMMAR, _cut(list(sentences(seed=seed)), GRAMMAR, valid_fraction, test_fraction)
    else:
        path = Path(source).expanduser()
        name = path.stem if path.is_file() else path.name
        parts = _read_folder(path) if path.is_dir() else _cut(_read(path), str(path), valid_fraction, test_fraction)
    vocabulary = _vocabulary(parts[0], max_words)
    ids = {word: number for number, word in enumerate(vocabulary)}
    return Corpus(
        *(
            Text(name, torch.tensor([ids.get(word, ids[UNKNOWN]) for word in _words(part)]), vocabulary, split)
            for part, split in zip(parts, _PARTS, strict=True)
        )
    )


def unigram_perplexity(train: Text, held_out: Text) -> float:
    """Perplexity of a text for who knows how frequent each word is and does not look at the words before.

    Frequencies are those of the training part, with one occurrence more for each word of the vocabulary.
    """
    counts = torch.bincount(train.tokens, minlength=len(train.vocabulary)).double() + 1.0
    return math.exp(-float((counts / counts.sum()).log()[held_out.tokens].mean()))


def _read_folder(folder: Path) -> list[list[str]]:
    for pattern in _PATTERNS:
        paths = [folder / pattern.format(part) for part in _PARTS]
        if all(path.is_file() for path in paths):
            return [_read(path) for path in paths]
    wanted = " or ".join(", ".join(pattern.format(part) for part in _PARTS) for pattern in _PATTERNS)
    raise DataError(f"the folder {folder} holds no corpus: expected the files {wanted}; or name one text file")


def _read(path: Path) -> list[str]:
    """Lines of a file; at least one word."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read {path} as text: {error}; expected a UTF-8 text file, a folder with one for each of "
            f"{', '.join(_PARTS)}, or {GRAMMAR!r}"
        ) from error
    if not text.strip():
        raise DataError(f"{path} holds no words; expected text with blanks between words")
    return text.splitlines()


def _cut(lines: Sequence[str], name: str, valid_fraction: float, test_fraction: float) -> list[list[str]]:
    if not (0 < valid_fraction < 1 and 0 < test_fraction < 1 and valid_fraction + test_fraction < 1):
        raise OptionError(
            "expected valid_fraction and test_fraction above 0 that leave some text to learn from, but got "
            f"{valid_fraction} and {test_fraction}"
        )
    n_valid, n_test = (round(share * len(lines)) for share in (valid_fraction, test_fraction))
    n_train = len(lines) - n_valid - n_test
    parts = [list(lines[:n_train]), list(lines[n_train : n_train + n_valid]), list(lines[n_train + n_valid :])]
    for part, split in zip(parts, _PARTS, strict=True):
        if not any(line.split() for line in part):
            raise DataError(
                f"{name} has {len(lines)} lines, which leave no words for the {split} part; take a longer text, or "
                "other fractions"
            )
    return parts


def _words(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield from line.split()
        yield END


def _vocabulary(lines: Sequence[str], max_words: int | None) -> tuple[str, ...]:
    """The end, what is unknown, and the words from the most frequent on; of equally frequent ones the first by code."""
    counts = Counter(_words(lines))
    known = sorted((word for word in counts if word not in (END, UNKNOWN)), key=lambda word: (-counts[word], word))
    return (END, UNKNOWN, *known)[:max_words]
