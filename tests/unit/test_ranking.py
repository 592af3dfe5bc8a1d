"""Aggregates: twins, cases on paper, ties and infinities, what depends on the set and what does not."""

from __future__ import annotations

import json
import math
import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from reference.ranking import slow_log_rank, slow_ranks, slow_te_nas, slow_vote
from torch import nn

import naswot
from naswot.data import get_data
from naswot.errors import InputError, OptionError, RegistrationError, UnknownNameError
from naswot.evaluate import Evaluator
from naswot.proxy import get_proxy
from naswot.ranking import (
    aggregate_scores,
    aggregates,
    get_aggregate,
    list_aggregates,
    ranks_of,
    register_aggregate,
)
from naswot.store import ResultStore
from naswot.types import Batch

INF = math.inf
UP = dict.fromkeys("abcde", True)
TWINS = {
    **dict.fromkeys(("log_rank", "az_nas", "vkdnw_agg"), slow_log_rank),
    "te_nas": slow_te_nas,
    "vote": slow_vote,
}


def drawn(seed, *, m=9, names="abc"):
    """Columns with ties and infinities, and directions."""
    rng = random.Random(seed)
    columns = {name: [rng.choice([-INF, INF, -2.0, 0.0, 0.5, 1.0, 3.0]) for _ in range(m)] for name in names}
    return columns, {name: rng.random() < 0.5 for name in names}


def test_the_five_are_installed():
    assert list_aggregates() == ["az_nas", "log_rank", "te_nas", "vkdnw_agg", "vote"]
    assert aggregates.failures() == {}
    assert set(TWINS) == set(list_aggregates())
    for name, aggregate in aggregates:
        assert "arXiv:" in aggregate.reference
        assert aggregate.summary.endswith(".")
        assert len(aggregate.summary) <= 120
        assert aggregate.name == name


@pytest.mark.parametrize("name", sorted(TWINS))
@pytest.mark.parametrize("seed", range(5))
def test_equals_the_slow_twins(name, seed):
    columns, directions = drawn(seed)
    assert aggregate_scores(columns, name, directions) == pytest.approx(TWINS[name](columns, directions), abs=1e-12)
    ranks = ranks_of(columns, directions)
    assert ranks.T.tolist() == [slow_ranks(columns[n], directions[n]) for n in columns]


def test_log_ranks_on_paper():
    # four networks; ranks by a 4 3 2 1, by b (lower is better) 2 4 3 1: log(8/16), log(12/16), log(6/16), log(1/16)
    columns = {"a": [9.0, 7.0, 5.0, 1.0], "b": [3.0, 1.0, 2.0, 4.0]}
    found = aggregate_scores(columns, "log_rank", {"a": True, "b": False})
    assert found == pytest.approx(np.log([8 / 16, 12 / 16, 6 / 16, 1 / 16]))
    # the sum of ranks prefers the second too, but ties the third with nobody: 6, 7, 5, 2
    assert aggregate_scores(columns, "te_nas", {"a": True, "b": False}).tolist() == [6, 7, 5, 2]
    # one weak component costs more than a strong one brings: ranks (1, 4) and (2, 3) add to 5 both
    uneven = {"a": [1.0, 2.0, 3.0, 4.0], "b": [4.0, 3.0, 2.0, 1.0]}
    assert aggregate_scores(uneven, "te_nas", UP).tolist() == [5, 5, 5, 5]
    assert aggregate_scores(uneven, "log_rank", UP) == pytest.approx(np.log([4 / 16, 6 / 16, 6 / 16, 4 / 16]))


def test_vote_on_paper():
    # a: 1 > 2 > 3, b: 2 > 3 > 1, c: 3 > 1 > 2: each wins one of its two duels two to one, nobody wins both
    cycle = {"a": [3.0, 2.0, 1.0], "b": [1.0, 3.0, 2.0], "c": [2.0, 1.0, 3.0]}
    assert aggregate_scores(cycle, "vote", UP).tolist() == [1, 1, 1]
    # the first beats the others two to one, the second beats the third by b and c; the fourth only by one of three
    columns = {"a": [4.0, 1.0, 2.0, 3.0], "b": [4.0, 3.0, 2.0, 1.0], "c": [1.0, 4.0, 3.0, 2.0]}
    assert aggregate_scores(columns, "vote", UP).tolist() == [3, 2, 1, 0]
    # a tie abstains: one for, none against wins; one for, one against beats nobody
    assert aggregate_scores({"a": [1.0, 1.0], "b": [2.0, 1.0], "c": [5.0, 5.0]}, "vote", UP).tolist() == [1, 0]
    assert aggregate_scores({"a": [1.0, 2.0], "b": [2.0, 1.0], "c": [5.0, 5.0]}, "vote", UP).tolist() == [0, 0]


def test_ties_and_undefined_scores():
    # equal ones share the mean of their places; the worst infinity is last, whichever the direction
    assert ranks_of({"a": [5.0, 5.0, 1.0, 9.0]}, UP).ravel().tolist() == [2.5, 2.5, 1, 4]
    assert ranks_of({"a": [-INF, 3.0, -INF, INF]}, UP).ravel().tolist() == [1.5, 3, 1.5, 4]
    assert ranks_of({"a": [INF, 3.0, INF, -2.0]}, {"a": False}).ravel().tolist() == [1.5, 3, 1.5, 4]
    assert aggregate_scores({"a": [-INF, -INF]}, "log_rank", UP) == pytest.approx(np.log([0.75, 0.75]))
    with pytest.raises(InputError, match="column 'a' holds NaN"):
        ranks_of({"a": [1.0, math.nan]}, UP)
    with pytest.raises(InputError, match=r"lengths \{'a': 1, 'b': 2\}"):
        ranks_of({"a": [1.0], "b": [1.0, 2.0]}, UP)


@pytest.mark.parametrize("name", sorted(TWINS))
def test_only_the_order_counts(name):
    columns, directions = drawn(11)
    stretched = {n: [math.exp(v) if v < INF else INF for v in column] for n, column in columns.items()}
    expected = aggregate_scores(columns, name, directions)
    assert aggregate_scores(stretched, name, directions).tolist() == expected.tolist()
    turned = {n: [-v for v in column] for n, column in columns.items()}
    assert aggregate_scores(turned, name, {n: not d for n, d in directions.items()}).tolist() == expected.tolist()
    reversed_ = {n: column[::-1] for n, column in columns.items()}
    assert aggregate_scores(reversed_, name, directions)[::-1].tolist() == expected.tolist()


def test_scores_depend_on_the_set():
    # two networks level with each other; whom a third one passes decides which of them comes first
    pair = {"a": [3.0, 1.0], "b": [1.0, 3.0]}
    assert len(set(aggregate_scores(pair, "log_rank", UP).tolist())) == 1
    for third, first in (((2.0, 4.0), 0), ((4.0, 2.0), 1)):
        # ranks with (2, 4): by a 3 1 2, by b 1 2 3, so 3 against 2
        columns = {"a": [*pair["a"], third[0]], "b": [*pair["b"], third[1]]}
        found = aggregate_scores(columns, "log_rank", UP)
        assert found[first] > found[1 - first]
    # one more network that all beat changes every score of a vote
    votes = aggregate_scores({"a": [3.0, 2.0], "b": [3.0, 2.0], "c": [3.0, 2.0]}, "vote", UP)
    more = aggregate_scores({"a": [3.0, 2.0, 1.0], "b": [3.0, 2.0, 1.0], "c": [3.0, 2.0, 1.0]}, "vote", UP)
    assert (votes.tolist(), more.tolist()) == ([1, 0], [2, 1, 0])


def mlp(width):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))


class Raises(nn.Module):
    def forward(self, x):
        raise RuntimeError("no way through")


def test_rank_of_models():
    models = {"small": mlp(2), "broken": Raises(), "large": mlp(9), "twin": mlp(9)}
    batch = Batch(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)))
    rows = naswot.rank(models, batch, aggregate="log_rank", proxies=["params", "flops"])
    assert [(row.name, row.position) for row in rows] == [("large", 1), ("twin", 1), ("small", 3), ("broken", None)]
    assert rows[0].score == pytest.approx(2 * math.log(2.5 / 3))
    assert rows[2].score == pytest.approx(2 * math.log(1 / 3))
    assert rows[0].components == {"params": 9 * 4 + 90 + 20, "flops": 27 + 81 + 18}
    assert rows[3].score is None
    assert "no way through" in rows[3].error
    unnamed = naswot.rank(list(models.values()), batch, aggregate="log_rank", proxies=[get_proxy("params")])
    assert [row.name for row in unnamed] == ["2", "3", "0", "1"]
    az = naswot.rank({k: models[k] for k in ("small", "large")}, batch, seed=1)
    assert set(az[0].components) == set(get_aggregate("az_nas").proxies)
    assert [row.position for row in naswot.rank([Raises()], batch, aggregate="log_rank", proxies=["naswot"])] == [None]


def test_reasons_stand_beside_undefined_components():
    dead = mlp(3)
    nn.init.zeros_(dead[2].weight)
    nn.init.zeros_(dead[2].bias)
    batch = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    rows = naswot.rank({"dead": dead, "alive": mlp(3)}, batch, aggregate="log_rank", proxies=["az_expressivity"])
    assert [row.name for row in rows] == ["alive", "dead"]
    assert "do not vary" in rows[1].reasons["az_expressivity"]
    assert rows[1].components["az_expressivity"] == -INF


def test_rank_of_genotypes_as_in_a_search(tmp_path):
    space = naswot.get_space("nasbench201")
    evaluator = Evaluator(space, get_data("digits", size=8), batch_size=8, build={"width": 4, "n_cells": 1})
    genotypes = [(3,) * 6, (1,) * 6, (2,) * 6, (0,) * 6]
    with ResultStore(tmp_path / "run.sqlite", options={}) as store:
        rows = naswot.rank(genotypes, evaluator=evaluator, store=store)
        assert len(store) == 4
        again = naswot.rank(genotypes[::-1], evaluator=evaluator, store=store)
    assert {row.name: row.score for row in rows} == {row.name: row.score for row in again}
    assert rows[0].genotype == (3,) * 6
    assert rows[0].name == space.format((3,) * 6)
    assert all(better.position <= worse.position for better, worse in pairwise(rows))
    assert rows[-1].genotype == (0,) * 6
    assert rows[-1].reasons["az_expressivity"]
    fewer = naswot.rank(genotypes[:2], evaluator=evaluator)
    assert fewer[0].score != rows[0].score or fewer[1].score != rows[1].score  # another set, other scores
    one = evaluator.model((3,) * 6)
    assert rows[0].components["flops"] == naswot.measure(one, evaluator.batch(0), "flops")["flops"]


def test_what_is_refused():
    with pytest.raises(OptionError, match="'log_rank' has no components of its own"):
        naswot.rank([mlp(2)], torch.ones(2, 3), aggregate="log_rank")
    with pytest.raises(OptionError, match="pass a batch to score models on"):
        naswot.rank([mlp(2)])
    with pytest.raises(UnknownNameError, match="did you mean 'az_nas'"):
        naswot.rank([mlp(2)], torch.ones(2, 3), aggregate="az_nos")
    with pytest.raises(UnknownNameError, match="unknown option 'tap'"):
        naswot.rank([mlp(2)], torch.ones(2, 3), tap="relu")
    space = naswot.get_space("nasbench201")
    evaluator = Evaluator(space, get_data("digits", size=8), batch_size=8, build={"width": 4, "n_cells": 1})
    with pytest.raises(OptionError, match="draws its own batches"):
        naswot.rank([(3,) * 6], torch.ones(2, 3), evaluator=evaluator)
    with pytest.raises(RegistrationError, match="has no docstring"):
        register_aggregate(reference="none")(lambda ranks: ranks.sum(axis=1))


MODELS = """
from torch import nn
def net(width):
    convolutions = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
def small():
    return net(2)
def large():
    return net(8)
def fails():
    raise ValueError("bad recipe")
"""


@pytest.fixture(autouse=True)
def _folder(monkeypatch, tmp_path):
    """A folder with models.py."""
    (tmp_path / "models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)


def test_command_line(run):
    models = [f"models.py:{name}" for name in ("small", "large", "fails")]
    common = ["rank", *models, "--size", "8", "-N", "4", "--json", "--aggregate"]
    code, out, _ = run(*common, "az_nas")
    assert code == 0
    rows = json.loads(out)
    assert [row["model"] for row in rows] == ["models.py:large", "models.py:small", "models.py:fails"]
    assert list(rows[0])[1:6] == ["az_nas", "az_expressivity", "az_progressivity", "az_trainability", "flops"]
    columns = {name: [row[name] for row in rows[:2]] for name in list(rows[0])[2:6]}
    directions = {name: get_proxy(name).higher_is_better for name in columns}
    assert [row["az_nas"] for row in rows[:2]] == aggregate_scores(columns, "az_nas", directions).tolist()
    assert "bad recipe" in rows[2]["error"]
    code, out, _ = run(*common, "log_rank", "--proxies", "params, flops")
    assert [row["log_rank"] for row in json.loads(out)] == [0.0, pytest.approx(2 * math.log(0.5)), None]
    code, out, _ = run("rank", *models[:2], "--size", "8", "-N", "4", "--aggregate", "vote")
    assert "synflow" in out.splitlines()[0]
    assert out.splitlines()[1].startswith("models.py:large")
    assert "name some by --proxies" in run(*common, "log_rank")[2]
    assert "did you mean 'vote'" in run(*common, "vtoe")[2]
    code, out, _ = run("list", "aggregates")
    assert code == 0
    assert "majority of synflow, jacov and snip" in out


def test_command_line_ranks_by_any_proxy_with_options(run):
    models = [f"models.py:{name}" for name in ("small", "large", "fails")]
    common = ["rank", *models, "--size", "8", "-N", "4", "--json", "--proxies"]
    rows = json.loads(run(*common, "params, ntk_condition")[1])
    assert list(rows[0])[:3] == ["model", "params", "ntk_condition"]
    assert [row["model"] for row in rows] == ["models.py:large", "models.py:small", "models.py:fails"]
    rows = json.loads(run(*common, "ntk_condition")[1])  # where lower is better
    assert rows[0]["ntk_condition"] <= rows[1]["ntk_condition"]
    few, many = (json.loads(run(*common, f"meco(size={size})")[1])[0]["meco"] for size in (8, 16))
    assert few != many
    assert "has no option 'size'" in run(*common, "params(size=3)")[2]


def test_one_model_that_cannot_be_scored_leaves_the_others(run):
    networks = {
        "few": nn.Sequential(nn.Flatten(), nn.Linear(12, 2)),
        "enough": nn.Sequential(nn.Flatten(), nn.Linear(12, 9)),
    }
    batch = Batch(torch.randn(4, 3, 2, 2), torch.tensor([0, 8, 1, 2]))
    rows = naswot.rank(networks, batch, aggregate="log_rank", proxies="snip")
    assert [row.position for row in rows] == [1, None]
    assert "the labels go from 0 to 8, but the model has 2 logits" in rows[1].error
    with pytest.raises(OptionError, match="several networks, but got one model"):
        naswot.rank(networks["enough"], batch, aggregate="log_rank", proxies="snip")
