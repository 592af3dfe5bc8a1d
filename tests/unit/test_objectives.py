"""Objectives: weighted sums out of text."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naswot.errors import OptionError
from naswot.objectives import Objective, check_names, dominates, values_of


@pytest.mark.parametrize(
    ("text", "weights", "constant"),
    [
        ("naswot", {"naswot": 1.0}, 0.0),
        ("-params", {"params": -1.0}, 0.0),
        ("a - 2e-3 * b / 2 + 4", {"a": 1.0, "b": -1e-3}, 4.0),
        ("0.5 * (a + -b) - (a - 1)", {"a": -0.5, "b": -0.5}, 1.0),
        ("valid_accuracy * 2", {"valid_accuracy": 2.0}, 0.0),
    ],
)
def test_sums_are_read(text, weights, constant):
    found = Objective.parse(text)
    assert dict(found.weights) == weights
    assert found.constant == constant


@pytest.mark.parametrize(
    "text", ["", "3", "a * b", "a / b", "a ** 2", "f(a)", "a +", "1 / 0 * a", "'a'", "a if b else c"]
)
def test_what_is_no_weighted_sum_is_refused_with_an_example(text):
    with pytest.raises(OptionError, match="valid_accuracy - 1e-8"):
        Objective.parse(text)


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_the_value_is_the_sum(weight, a, b):
    value = Objective.parse(f"{weight!r} * a - b").value({"a": a, "b": b})
    assert value == pytest.approx(weight * a - b)


def test_missing_scores_and_infinities():
    both = Objective.parse("a + b")
    assert both.value({"a": 1.0}) is None
    assert both.value({"a": -math.inf, "b": 1.0}) == -math.inf
    assert both.value({"a": -math.inf, "b": math.inf}) is None
    assert Objective.parse("0 * a + b").value({"a": -math.inf, "b": 1.0}) == 1.0
    assert values_of([both, Objective.parse("-a")], {"a": 1.0, "b": 2.0}) == (3.0, -1.0)
    assert values_of([both], {"a": 1.0}) is None


def test_unknown_names_are_refused_before_the_search():
    with pytest.raises(OptionError, match=r"did you mean 'valid_accuracy'\? the evaluator gives valid_ac.*, params"):
        check_names([Objective.parse("acuracy")], ["valid_accuracy", "params"])


def test_dominance():
    assert dominates((1.0, 2.0), (1.0, 1.0))
    assert not dominates((1.0, 1.0), (1.0, 1.0))
    assert not dominates((2.0, 0.0), (1.0, 1.0))
