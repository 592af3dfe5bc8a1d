"""Searches of recurrent cells on text, and language models from scratch."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from naswot.data.text import Corpus, Text, get_corpus, unigram_perplexity
from naswot.differentiable.architects import Bilevel, FirstOrder, SecondOrder
from naswot.differentiable.perturbations import RandomSmoothing, radius
from naswot.differentiable.preset import get_plan
from naswot.differentiable.relaxations import Clock
from naswot.differentiable.searching import run_search_of
from naswot.differentiable.text_task import TextTask
from naswot.errors import DivergedError, InputError, OptionError, StoreError
from naswot.seeding import seeded
from naswot.space import get_space
from naswot.spaces._recurrent_network import Passage
from naswot.supernet import Mixing, make_supernet
from naswot.training import language
from naswot.training.language import (
    LanguageRecipe,
    evaluate_language,
    foretelling_loss,
    is_non_monotone,
    passages,
    restlessness,
    train_language_model,
)

SPACE = get_space("ptb_rnn")
CELL = SPACE.parse(
    "Genotype(recurrent=[('relu', 0), ('relu', 1), ('tanh', 2), ('relu', 3), ('relu', 4), ('identity', 1), "
    "('relu', 5), ('relu', 1)], concat=range(1, 9))"
)
DROPOUTS = ("output_dropout", "hidden_dropout", "input_dropout", "embedding_dropout", "word_dropout")
DRY = dict.fromkeys(DROPOUTS, 0.0)


def counted(n, *, split="train", n_words=7):
    return Text("counted", torch.arange(n) % n_words, tuple(map(str, range(n_words))), split)


def corpus(n_train, n_other):
    parts = get_corpus()
    sizes = (n_train, n_other, n_other)
    return Corpus(*(replace(part, tokens=part.tokens[:n]) for part, n in zip(parts, sizes, strict=True)))


def small_task(**options):
    return TextTask(counted(64), counted(33, split="valid"), **{"batch_size": 4, "bptt": 3} | options)


def small_supernet(*, scale=1.0, **options):
    with seeded(0):
        supernet = make_supernet("ptb_rnn", **{"n_classes": 7, "width": 5} | DRY | options)
    with torch.no_grad():
        for parameter in supernet.weight_parameters():
            parameter.mul_(scale)
    return supernet


def uniform():
    return Mixing({"recurrent": torch.full((36, 5), 0.2)})


def small_plan(name="darts_rnn", *, epochs=3, batch_size=4, **options):
    return replace(get_plan(name, **options).lasting(epochs), batch_size=batch_size)


# ------------------------------------------------------------------------------------------------------------- the task


def test_passages_follow_each_other_and_are_foretold_by_one():
    task = small_task()
    assert (task.steps, task.build) == (5, {"n_classes": 7})
    batches = list(task.train_batches(0))
    assert len(batches) == task.steps
    rows = torch.cat([passage.tokens for passage, _ in batches], dim=1)
    assert torch.equal(rows, (torch.arange(64) % 7).view(4, 16)[:, :15])
    assert all(torch.equal(targets, (passage.tokens + 1) % 7) for passage, targets in batches)
    valid = [task.valid_batch(step) for step in range(3)]
    assert torch.equal(valid[1][0].tokens, (torch.arange(33)[:32] % 7).view(4, 8)[:, 3:6])
    assert torch.equal(valid[2][0].tokens, valid[0][0].tokens)  # two passages, in turn
    assert torch.equal(task.fixed_batch()[0].tokens, valid[0][0].tokens)


def test_state_is_carried_through_an_epoch_and_begins_anew():
    task, supernet = small_task(), small_supernet().eval()
    whole = supernet(Passage((torch.arange(64) % 7).view(4, 16)), uniform()).states
    for epoch in (0, 1):
        for number, batch in enumerate(task.train_batches(epoch)):
            expected = None if number == 0 else whole[:, 3 * number - 1]
            found = batch[0].state
            assert (found is None) == (expected is None)
            assert expected is None or torch.allclose(found, expected, atol=1e-6)
            task.loss(supernet, uniform(), task.valid_batch(number))  # which must not matter
            task.loss(supernet, Mixing({"recurrent": torch.full((36, 5), 0.1)}), batch)  # nor what is only tried
            task.loss(supernet, uniform(), batch)
            assert not batch[0].after.requires_grad
    assert all(task.valid_batch(step)[0].state is None for step in range(4))


def test_loss_regularises_the_states_in_training_only():
    task, supernet = small_task(beta=0.5), small_supernet(scale=20.0)
    passage, targets = task.fixed_batch()
    reading = supernet(passage, uniform())
    plain = nn.functional.cross_entropy(reading.logits.reshape(-1, 7), targets.reshape(-1))
    change = (reading.states[:, 1:] - reading.states[:, :-1]).square().mean()
    assert change > 0.1
    assert task.loss(supernet, uniform(), (passage, targets)).item() == pytest.approx((plain + 0.5 * change).item())
    in_evaluation = task.loss(supernet.eval(), uniform(), (passage, targets))
    assert torch.equal(in_evaluation, foretelling_loss(supernet(passage, uniform()), targets))
    assert restlessness(supernet(Passage(passage.tokens[:, :1]), uniform())) == 0


def test_evaluation_is_that_of_the_whole_text_at_once():
    supernet = small_supernet(scale=10.0)
    task, model = small_task(evaluation_rows=2, bptt=4), supernet.at(uniform())
    found = task.evaluate(model.train())
    assert model.training
    rows = (torch.arange(32) % 7).view(2, 16)
    with torch.no_grad():
        logits = model.eval()(Passage(rows[:, :-1])).logits
    loss = nn.functional.cross_entropy(logits.reshape(-1, 7), rows[:, 1:].reshape(-1)).item()
    assert found["loss"] == pytest.approx(loss, rel=1e-6)
    assert found["perplexity"] == pytest.approx(math.exp(loss), rel=1e-6)
    assert found["accuracy"] == pytest.approx(100.0 / found["perplexity"])  # higher is better
    assert evaluate_language(model, counted(5), rows=10)["loss"] > 0  # of a text too short for ten rows


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"batch_size": 17}, r"17 x 3 tokens .* for the weights, but counted \(train\) holds 64"),
        ({"batch_size": 9}, r"for the architecture, but counted \(valid\) holds 33"),
        ({"bptt": 0}, "bptt"),
        ({"beta": -1.0}, "beta"),
        ({"beta": math.nan}, "beta"),
        ({"evaluation_rows": 0}, "evaluation_rows"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(change, told):
    with pytest.raises(OptionError, match=told):
        small_task(**change)


def test_test_text_and_other_vocabularies_are_refused():
    with pytest.raises(OptionError, match="test text of counted"):
        TextTask(counted(64), counted(64, split="test"), batch_size=4, bptt=3)
    with pytest.raises(OptionError, match=r"one vocabulary.*7 words.*5 words"):
        TextTask(counted(64), counted(64, n_words=5), batch_size=4, bptt=3)
    with pytest.raises(InputError, match="expected token ids"):  # a supernet of cells on images
        small_supernet()(torch.zeros(2, 3, 8, 8), uniform())


def test_description_tells_texts_and_how_they_are_read_apart():
    same, changed = small_task().describe(), [small_task(beta=0.0), small_task(bptt=4), small_task(batch_size=5)]
    assert small_task().describe() == same
    other = Text("counted", torch.arange(64).flip(0) % 7, counted(1).vocabulary)
    changed.append(TextTask(other, counted(33, split="valid"), batch_size=4, bptt=3))
    assert all(task.describe() != same for task in changed)


# ---------------------------------------------------------------------------------------------------------- the presets


def test_recurrent_presets_have_the_constants_of_the_papers():
    plan = get_plan("darts_rnn")
    assert plan.architect == SecondOrder(clip_norm=0.25)
    assert get_plan("darts_rnn", order=1).architect == FirstOrder()
    assert (plan.epochs, plan.batch_size) == (50, 256)
    steps = plan.weights
    assert (steps.learning_rate, steps.momentum, steps.weight_decay, steps.clip_norm) == (20.0, 0.0, 5e-7, 0.25)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], steps.learning_rate)
    schedule = steps.scheduler(optimizer, 50)
    for _ in range(49):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == 20.0  # constant
    assert (plan.alphas.learning_rate, plan.alphas.betas, plan.alphas.weight_decay) == (3e-3, (0.9, 0.999), 1e-3)
    smooth = get_plan("sdarts_rs_rnn")
    assert replace(smooth, perturbation=None) == get_plan("darts_rnn", order=1)
    assert smooth.perturbation == RandomSmoothing(start=0.03, end=0.3)
    assert radius(Clock(0, 50)) == 0.03  # epoch number 1 of the original, which subtracts one
    assert radius(Clock(49, 50)) == pytest.approx(0.03 + 0.27 * 49 / 50)
    with pytest.raises(OptionError, match="order of 1 or 2, but got 3"):
        get_plan("darts_rnn", order=3)


def test_defaults_of_the_task_and_the_supernet_are_those_of_the_paper():
    task = TextTask(counted(256 * 36), counted(256 * 36, split="valid"))
    assert (task.batch_size, task.bptt, task.beta, task.steps) == (256, 35, 1e-3, 1)
    model = make_supernet("ptb_rnn").model
    assert model.width == 300
    assert vars(model.dropouts) == {"output": 0.75, "hidden": 0.25, "input": 0.75, "embedding": 0.2, "word": 0.0}
    with torch.device("meta"):
        alone = SPACE.build(CELL)
    assert vars(alone.dropouts) == {"output": 0.75, "hidden": 0.25, "input": 0.75, "embedding": 0.2, "word": 0.1}


def test_second_order_clips_the_unrolled_step_and_what_the_hessian_is_applied_to():
    """Losses 50 w^2 + 3 a w and s (w - 1)^2 at w = 1, a = 0, where the first gradient is 100."""

    def slope(clip_norm, scale=100.0):
        w, a = (nn.Parameter(torch.tensor([value], dtype=torch.float64)) for value in (1.0, 0.0))
        problem = Bilevel(
            train_loss=lambda: (50 * w**2 + 3 * a * w).sum(),
            valid_loss=lambda: (scale * (w - 1) ** 2).sum() + 0 * a.sum(),
            weights=[w],
            alphas=[a],
            learning_rate=0.5,
        )
        found = SecondOrder(clip_norm=clip_norm, exact=True).gradients(problem)[0][0].item()
        assert w.item() == 1.0
        return found

    # w' = 1 - 0.5 g, v = 2 s (w' - 1), slope = -0.5 * 3 v
    assert slope(None) == pytest.approx(-1.5 * 200 * -0.5 * 100)
    assert slope(0.25) == pytest.approx(-1.5 * -0.25, rel=1e-4)  # v clipped
    assert slope(0.25, 0.01) == pytest.approx(-1.5 * 0.02 * -0.5 * 0.25, rel=1e-4)  # the step clipped, v short
    assert slope(1e6) == slope(None)
    with pytest.raises(OptionError, match="clip_norm"):
        SecondOrder(clip_norm=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["darts_rnn", "sdarts_rs_rnn"])
def test_short_search_beats_the_frequencies_of_words_and_moves_the_alphas(name):
    text = corpus(5_000, 1_500)
    task = TextTask(text.train, text.valid, batch_size=20, bptt=6)
    options = {"order": 1} if name == "darts_rnn" else {}
    plan = small_plan(name, epochs=2, batch_size=20, **options)
    result = run_search_of("ptb_rnn", task, plan, build={"width": 16, **DRY})
    supernet = result.supernet
    table = supernet.alphas["recurrent"].detach()
    found = task.evaluate(supernet.at(Mixing({"recurrent": table.softmax(1)})))["perplexity"]
    assert found < 0.6 * unigram_perplexity(text.train, text.valid)
    assert result.history[1]["train_loss"] < result.history[0]["train_loss"] - 0.5
    assert table.abs().max() > 0.02  # they begin at 1e-3
    assert SPACE.is_valid(result.genotype)
    assert result.arch == result.history[-1]["arch"]


@pytest.mark.parametrize("name", ["darts_rnn", "sdarts_rs_rnn"])
def test_search_gone_on_with_equals_one_that_was_not_stopped(name, tmp_path):
    plan = small_plan(name)
    build = {"width": 4}  # with all dropouts

    def search(path=None, on_epoch=lambda row: None):
        return run_search_of("ptb_rnn", small_task(), plan, build=build, checkpoint=path, on_epoch=on_epoch)

    def stop(row):
        if row["epoch"] == 1:
            raise KeyboardInterrupt

    whole, path = search(), tmp_path / "search.pt"
    with pytest.raises(KeyboardInterrupt):
        search(path, stop)
    epochs = []
    resumed = search(path, lambda row: epochs.append(row["epoch"]))
    assert epochs == [2, 3]
    assert resumed.history == whole.history
    expected, found = whole.supernet.state_dict(), resumed.supernet.state_dict()
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    with pytest.raises(StoreError, match=r"beta is 0\.001, not 0\.0"):
        run_search_of("ptb_rnn", small_task(beta=0.0), plan, build=build, checkpoint=path)


# --------------------------------------------------------------------------------------------------------- from scratch


@pytest.mark.slow
def test_language_model_from_scratch_beats_the_frequencies_of_words(monkeypatch):
    text = corpus(8_000, 1_500)
    with seeded(0):
        model = SPACE.build(CELL, n_classes=len(text.train.vocabulary), width=24, **DRY)
    seen = []
    evaluate = language.evaluate_language
    monkeypatch.setattr(
        language,
        "evaluate_language",
        lambda model, part, **more: seen.append(part.split) or evaluate(model, part, **more),
    )
    result = train_language_model(model, text, LanguageRecipe(epochs=4, batch_size=20, bptt=10), seed=1)
    assert seen == ["valid"] * 4 + ["test"]  # looked at once, at the end
    assert result.test_perplexity < 0.4 * unigram_perplexity(text.train, text.test)
    assert result.valid_perplexity == min(row["valid_perplexity"] for row in result.history)
    assert evaluate(model, text.valid)["perplexity"] == result.valid_perplexity


def tiny(**recipe):
    """A training of a few tokens that soon gets worse."""
    text = Corpus(counted(64), counted(33, split="valid"), counted(33, split="test"))
    with seeded(0):
        model = SPACE.build(CELL, n_classes=7, width=4)
    how = LanguageRecipe(**{"epochs": 8, "batch_size": 4, "bptt": 3, "patience": 1} | recipe)
    return model, text, how


def test_weights_are_averaged_once_the_validation_loss_rises(monkeypatch):
    losses = iter([3.0, 2.0, 2.5, 2.6, 9.0, 1.5, 9.0, 9.0, 1.0])
    judged = []

    def evaluate(model, part, **more):
        judged.append({key: value.clone() for key, value in model.state_dict().items()})
        loss = next(losses)
        return {"loss": loss, "perplexity": math.exp(loss)}

    steps = []
    step = torch.optim.SGD.step

    def watched(self, *given):
        step(self, *given)
        steps.append([p.detach().clone() for p in model.parameters()])

    monkeypatch.setattr(language, "evaluate_language", evaluate)
    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    model, text, how = tiny()
    ends = []
    result = train_language_model(model, text, how, on_epoch=lambda row: ends.append(len(steps)))
    # 2.6 is the first loss above the least of all but the one before it
    assert [row["averaged"] for row in result.history] == [False] * 4 + [True] * 4
    assert (result.averaged_from, result.epoch) == (5, 6)
    since = [torch.stack(values).mean(0) for values in zip(*steps[ends[3] : ends[5]], strict=True)]
    names = [name for name, _ in model.named_parameters()]
    assert all(torch.allclose(judged[5][name], mean, atol=1e-6) for name, mean in zip(names, since, strict=True))
    assert all(torch.equal(value, judged[5][key]) for key, value in model.state_dict().items())  # the best epoch's
    assert result.test_perplexity == math.exp(1.0)


def test_when_a_loss_is_non_monotone():
    assert not is_non_monotone([3.0, 2.0, 4.0], patience=2)  # not more than two before
    assert is_non_monotone([1.0, 2.0, 2.0, 1.5], patience=2)
    assert not is_non_monotone([2.0, 1.0, 1.0, 1.5], patience=2)  # the last two do not count


def test_lengths_of_passages_vary_and_cover_the_text():
    parts = list(passages(200_001, 35, seed=0, epoch=1))
    lengths = [part.stop - part.start for part in parts]
    assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]]
    assert (parts[0].start, parts[-1].stop) == (0, 200_000)
    assert 5 <= min(lengths[:-1]) <= max(lengths) <= 55
    usual = [n for n in lengths[:-1] if n > 25]
    assert 0.92 < len(usual) / len(lengths) < 0.94  # 0.95 * 0.98: one in twenty is half as long
    assert sum(usual) / len(usual) == pytest.approx(34.5, abs=1.0)  # whole numbers, cut off
    assert list(passages(200_001, 35, seed=0, epoch=1)) == parts
    assert list(passages(200_001, 35, seed=0, epoch=2)) != parts
    assert sum(part.stop - part.start for part in passages(9, 2, seed=0, epoch=1)) == 8


def test_learning_rate_is_in_proportion_to_the_length(monkeypatch):
    rates, step = [], torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD, "step", lambda self, *given: rates.append(self.param_groups[0]["lr"]) or step(self, *given)
    )
    model, text, how = tiny(epochs=1)
    train_language_model(model, text, how, seed=3)
    lengths = [part.stop - part.start for part in passages(16, 3, seed=3, epoch=1)]
    assert rates == [20.0 * n / 3 for n in lengths]


def test_trainings_are_seeded_and_leave_the_generators_alone():
    def trained(seed):
        model, text, how = tiny(epochs=2)
        before = torch.get_rng_state()
        result = train_language_model(model, text, how, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        return result

    assert trained(0) == trained(0)
    assert trained(0) != trained(1)


def test_trainings_that_diverge_or_do_not_fit_say_so():
    model, text, how = tiny(learning_rate=1e38, clip_norm=1e30)
    with pytest.raises(
        DivergedError, match=r"loss is (nan|inf) in epoch \d of 8; take a smaller learning_rate than 1e"
    ):
        train_language_model(model, text, how)
    with pytest.raises(OptionError, match="rows of counted"):
        train_language_model(model, text, replace(how, batch_size=40))
    for wrong in ({"epochs": 0}, {"learning_rate": 0.0}, {"patience": 0}, {"clip_norm": -1.0}):
        with pytest.raises(OptionError, match="expected epochs"):
            LanguageRecipe(**wrong)
    assert vars(LanguageRecipe()) == {
        "epochs": 8_000,
        "batch_size": 64,
        "bptt": 35,
        "learning_rate": 20.0,
        "clip_norm": 0.25,
        "weight_decay": 8e-7,
        "beta": 1e-3,
        "patience": 5,
    }
