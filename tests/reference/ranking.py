"""Slow twins of the aggregates: counting in plain Python, pair by pair."""

from __future__ import annotations

import math


def slow_ranks(column, higher_is_better):
    """1 for the worst; ties share the mean of the places they take."""
    ranks = []
    for value in column:
        worse = sum((other < value) if higher_is_better else (other > value) for other in column)
        equal = sum(other == value for other in column)
        ranks.append(sum(worse + place for place in range(1, equal + 1)) / equal)
    return ranks


def slow_log_rank(columns, directions):
    """Sum of log(rank / M)."""
    m = len(next(iter(columns.values())))
    ranks = {name: slow_ranks(column, directions[name]) for name, column in columns.items()}
    return [sum(math.log(ranks[name][i] / m) for name in columns) for i in range(m)]


def slow_te_nas(columns, directions):
    """Sum of ranks."""
    m = len(next(iter(columns.values())))
    return [sum(slow_ranks(column, directions[name])[i] for name, column in columns.items()) for i in range(m)]


def slow_vote(columns, directions):
    """Number of networks that more proxies find worse than find better."""
    m = len(next(iter(columns.values())))
    beaten = [0.0] * m
    for i in range(m):
        for j in range(m):
            votes = 0
            for name, column in columns.items():
                better = column[i] > column[j] if directions[name] else column[i] < column[j]
                worse = column[i] < column[j] if directions[name] else column[i] > column[j]
                votes += better - worse
            beaten[i] += votes > 0
    return beaten
