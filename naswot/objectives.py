"""What a search maximises: a score, or a weighted sum of several."""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from naswot.errors import OptionError


@dataclass(frozen=True)
class Objective:
    """A weighted sum of scores, to be maximised.

    Args:
        text: as it was written.
        weights: weight of each score by name.
        constant: what is added.
    Example:
        >>> Objective.parse("valid_accuracy - 2e-8 * flops").value({"valid_accuracy": 90.0, "flops": 5e8})
        80.0
    """

    text: str
    weights: Mapping[str, float]
    constant: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Objective:
        """An objective from names, numbers, ``+ - * /`` and brackets, such as ``naswot``, ``-params`` or a sum.

        Raises:
            OptionError: if it is anything else, or no sum with constant weights.
        """
        try:
            terms = _linear(ast.parse(text.strip(), mode="eval").body)
        except (SyntaxError, ValueError, RecursionError, ZeroDivisionError) as error:
            raise OptionError(
                f"objective {text!r} is no weighted sum of scores ({error}); write it like "
                "'valid_accuracy - 1e-8 * flops'"
            ) from error
        constant = terms.pop("", 0.0)
        if not terms:
            raise OptionError(f"objective {text!r} names no score; write it like 'valid_accuracy - 1e-8 * flops'")
        return cls(text.strip(), terms, constant)

    def value(self, scores: Mapping[str, float]) -> float | None:
        """The sum; None if a score is missing, or infinite ones cancel."""
        if any(name not in scores for name in self.weights):
            return None
        total = self.constant + sum(weight * scores[name] for name, weight in self.weights.items() if weight)
        return None if math.isnan(total) else total


def values_of(objectives: Sequence[Objective], scores: Mapping[str, float]) -> tuple[float, ...] | None:
    """Value of each objective; None if one has none."""
    found = [objective.value(scores) for objective in objectives]
    return None if any(value is None for value in found) else tuple(value for value in found if value is not None)


def dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether ``first`` is nowhere worse and somewhere better; higher is better.

    Example:
        >>> dominates((2.0, 1.0), (1.0, 1.0)), dominates((2.0, 0.0), (1.0, 1.0))
        (True, False)
    """
    return all(a >= b for a, b in zip(first, second, strict=True)) and tuple(first) != tuple(second)


def check_names(objectives: Sequence[Objective], names: Sequence[str]) -> None:
    """Refuse objectives of scores that nobody works out.

    Raises:
        OptionError: with the names that there are.
    """
    for objective in objectives:
        for name in objective.weights:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
                guess = f"did you mean {near[0]!r}? " if near else ""
                known = ", ".join(names)
                raise OptionError(f"objective {objective.text!r} needs {name!r}; {guess}the evaluator gives {known}")


def _linear(node: ast.expr) -> dict[str, float]:
    """Weights by name of an expression; the constant is under the empty name."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return {"": float(node.value)}
    if isinstance(node, ast.Name):
        return {node.id: 1.0}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        sign = -1.0 if isinstance(node.op, ast.USub) else 1.0
        return _scaled(_linear(node.operand), sign)
    if isinstance(node, ast.BinOp):
        left, right = _linear(node.left), _linear(node.right)
        if isinstance(node.op, ast.Add | ast.Sub):
            right = _scaled(right, 1.0 if isinstance(node.op, ast.Add) else -1.0)
            return {name: left.get(name, 0.0) + right.get(name, 0.0) for name in [*left, *right]}
        if isinstance(node.op, ast.Mult) and set(left) == {""}:
            return _scaled(right, left[""])
        if isinstance(node.op, ast.Mult) and set(right) == {""}:
            return _scaled(left, right[""])
        if isinstance(node.op, ast.Div) and set(right) == {""}:
            return _scaled(left, 1.0 / right[""])
    raise ValueError(f"cannot read {ast.unparse(node)!r}")


def _scaled(terms: Mapping[str, float], factor: float) -> dict[str, float]:
    return {name: factor * weight for name, weight in terms.items()}
