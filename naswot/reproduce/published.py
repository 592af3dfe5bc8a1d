"""Numbers that Mellor et al. print, ICML 2021, arXiv:2006.04647v3, for our tables to stand beside.

Read in the text of the published paper. Not given here, because they can only be read off a picture: the bars of
Figure 4, the points of Figures 5 to 7, and the taus of Figures 9 and 10 in the supplement, whose text was not at hand.
"""

from __future__ import annotations

from typing import NamedTuple


class Accuracy(NamedTuple):
    """Mean and standard deviation over runs, percent; None where the paper has a dash."""

    mean: float | None
    sd: float | None


COLUMNS = (
    ("cifar10-valid", "valid_accuracy"),
    ("cifar10", "test_accuracy"),
    ("cifar100", "valid_accuracy"),
    ("cifar100", "test_accuracy"),
    ("ImageNet16-120", "valid_accuracy"),
    ("ImageNet16-120", "test_accuracy"),
)
"""The six columns of Table 2(a), as data set and metric of the benchmark ``nasbench201``."""


def _six(text: str) -> tuple[Accuracy, ...]:
    parts = [part.split("±") for part in text.split()]
    return tuple(Accuracy(None, None) if part == ["-"] else Accuracy(float(part[0]), float(part[1])) for part in parts)


TABLE_2A: dict[str, tuple[float | None, tuple[Accuracy, ...]]] = {
    "REA": (12000, _six("91.19±0.31 93.92±0.30 71.81±1.12 71.84±0.99 45.15±0.89 45.54±1.03")),
    "RS": (12000, _six("90.93±0.36 93.70±0.36 70.93±1.09 71.04±1.07 44.45±1.10 44.57±1.25")),
    "NASWOT (N=10)": (3.05, _six("89.14±1.14 92.44±1.13 68.50±2.03 68.62±2.04 41.09±3.97 41.31±4.11")),
    "NASWOT (N=100)": (30.01, _six("89.55±0.89 92.81±0.99 69.35±1.70 69.48±1.70 42.81±3.05 43.10±3.16")),
    "NASWOT (N=1000)": (306.19, _six("89.69±0.73 92.96±0.81 69.86±1.21 69.98±1.22 43.95±2.05 44.44±2.10")),
    "Random": (None, _six("83.20±13.28 86.61±13.46 60.70±12.55 60.83±12.58 33.34±9.39 33.13±9.66")),
    "Optimal (N=10)": (None, _six("89.92±0.75 93.06±0.59 69.61±1.21 69.76±1.25 43.11±1.85 43.30±1.87")),
    "Optimal (N=100)": (None, _six("91.05±0.28 93.84±0.23 71.45±0.79 71.56±0.78 45.37±0.61 45.67±0.64")),
    # three values and dashes in print; that they are the validation columns follows from their places in the row
    "AREA": (12000, _six("91.20±0.27 - 71.95±0.99 - 45.70±1.05 -")),
}
"""Seconds and accuracies by method. REA and RS: Dong & Yang's, 500 runs; AREA: 50 runs; others: 500."""

OTHER_SEARCHES: dict[str, tuple[float, float]] = {
    **{"REINFORCE": (12000, 93.85), "BOHB": (12000, 93.61), "RSPS": (7587, 87.66), "GDAS": (28926, 93.51)},
    **{"SETN": (31010, 86.19), "ENAS": (13315, 54.30), "DARTS-V1": (10890, 54.30), "DARTS-V2": (29902, 54.30)},
}
"""Seconds and CIFAR-10 test accuracy of searches that are not run here; as in Table 2(a), Dong & Yang's numbers."""

BUDGET_SECONDS = 12000.0
"""What Table 2(a) gives REA, RS and AREA."""

NOT_HERE = {
    "Figure 2": "a drawing that explains codes and linear regions; notebooks/first_scores.ipynb computes one",
    "Figure 4": "its bars of grad_norm and synflow cannot be read as numbers; those of the score are in Figure 3",
    "Figures 9 and 10, Table 2(b)": "no table of NATS-Bench SSS and no CIFAR-10 sweep of NDS is at hand",
    "Table 1": "a search in NAS-Bench-101 needs the scores of all its 423,624 cells",
    "Table 2(a), weight sharing, REINFORCE, BOHB": "the paper quotes them from Dong & Yang; they are not run here",
}
"""What of the paper is not reproduced, and why."""
