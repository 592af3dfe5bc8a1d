"""Small spaces for the tests of learned policies, and a planted best architecture."""

from __future__ import annotations

from naswot.space import SearchSpace


class Toy(SearchSpace):
    name = "toy"
    reference = "none"
    choices = (4, 3, 5, 2)

    def build(self, genotype, *, n_classes=10, in_channels=3):
        raise NotImplementedError

    def format(self, genotype):
        return str(genotype)

    def parse(self, text):
        raise NotImplementedError


class Layered(Toy):
    """Three layers of two sizes, and skips from all earlier ones."""

    name = "toy_layered"
    decisions = ("height", "count", "height", "count", "skip", "height", "count", "skip", "skip")
    choices = (2, 3, 2, 3, 2, 2, 3, 2, 2)


class Deep(Layered):
    """A fourth layer, so that something is decided after a layer could choose two anchors."""

    name = "toy_deep"
    decisions = (*Layered.decisions, "height", "count", "skip", "skip", "skip")
    choices = (*Layered.choices, 2, 3, 2, 2, 2)


class Even(Toy):
    name = "toy_even"

    def is_valid(self, genotype):
        return super().is_valid(genotype) and sum(genotype) % 2 == 0


class Nothing(Toy):
    name = "toy_nothing"

    def is_valid(self, genotype):
        return False


BEST = (2, 0, 4, 1)


def planted(genotype):
    return 100 * sum(a == b for a, b in zip(genotype, BEST, strict=True)) / len(BEST)


def search(searcher, n, value=planted):
    asked = []
    for _ in range(n):
        trial = searcher.ask()
        asked.append(trial.genotype)
        searcher.tell(trial, value(trial.genotype))
    return asked


def position_weighted(genotype):
    """A value of any genotype, different for most; it stands here so that other processes can import it."""
    return float(sum((i + 1) * gene for i, gene in enumerate(genotype)))
