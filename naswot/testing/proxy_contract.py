"""The contract of a proxy: what every one keeps, whoever wrote it.

Example:
    A test file of three lines covers a plug-in::

        from naswot.testing.proxy_contract import ProxyContract
        class TestMine(ProxyContract):
            name = "my_proxy"
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import math
import random
import re
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from naswot.errors import InputError, ModelError, NaswotError
from naswot.measuring import Measurement, run_proxies
from naswot.passes import Passes
from naswot.proxy import Proxy, ProxyFunction, get_proxy, list_proxies
from naswot.seeding import seeded
from naswot.testing.networks import KINDS, N_CLASSES, small_batch, small_network
from naswot.testing.traces import Traces
from naswot.types import Batch

_kinds: dict[tuple[str, ProxyFunction], str] = {}


def kind_for(proxy: Proxy) -> str:
    """The small network that a proxy is tried on: the first kind that it does not refuse.

    Raises:
        AssertionError: if it refuses all of them.
    """
    key = (proxy.name, proxy.function)
    if key not in _kinds:
        fitting = (k for k in ("residual", "vision transformer", "language model") if _fits(proxy, k, 8))
        kind = next(fitting, None)
        assert kind is not None, f"{proxy.name} refuses a residual network, a vision transformer and a language model"
        _kinds[key] = kind
    return _kinds[key]


@functools.cache
def _scores_in_company(kind: str, n: int, backwards: bool) -> Mapping[str, float]:
    """All proxies that fit that network over one set of shared passes, beside one that draws from the generators."""
    greedy = Proxy("greedy", lambda seen, passes: torch.rand(()), {}, (), True, "draws what others may rely on")
    known = [proxy for proxy in map(get_proxy, list_proxies()) if proxy.minimum_images <= n]
    fitting = [proxy for proxy in known if _fits(proxy, kind, n)]
    chosen = fitting[::-1] if backwards else fitting
    return run_proxies(small_network(kind), small_batch(n, kind), [greedy, *chosen]).scores


def _fits(proxy: Proxy, kind: str, n: int) -> bool:
    with contextlib.suppress(InputError):
        run_proxies(small_network(kind), small_batch(max(n, proxy.minimum_images), kind), [proxy])
        return True
    return False


def _fail(module: nn.Module, inputs: object, output: object) -> None:  # noqa: ARG001
    raise RuntimeError("this layer always fails")


class ProxyContract:
    """Subclass with ``name``, or parametrise the argument ``proxy``."""

    name: ClassVar[str]

    @pytest.fixture
    def proxy(self) -> Proxy:
        """The proxy under test."""
        return get_proxy(self.name)

    def network(self, proxy: Proxy) -> nn.Module:
        """A small network of a kind that it does not refuse."""
        return small_network(kind_for(proxy))

    def batch(self, proxy: Proxy, *, seed: int = 1) -> Batch:
        """Inputs for that network, no fewer than the proxy needs."""
        return small_batch(max(8, proxy.minimum_images), kind_for(proxy), seed=seed)

    def measure(self, proxy: Proxy, model: nn.Module | None = None, *, seed: int = 0) -> Measurement:
        """The proxy alone on that network."""
        return run_proxies(model or self.network(proxy), self.batch(proxy), [proxy], seed=seed)

    def test_score_is_a_number(self, proxy: Proxy) -> None:
        """Finite, or infinite with a reason; NaN never."""
        result = self.measure(proxy)
        value = result.scores[proxy.name]
        assert type(value) is float
        assert not math.isnan(value)
        assert math.isfinite(value) or result.reasons[proxy.name]
        assert math.isfinite(value) == (proxy.name not in result.reasons)

    def test_value_is_a_scalar_tensor(self, proxy: Proxy) -> None:
        """A () tensor, and not one that drags a graph along."""
        with Passes(self.network(proxy), self.batch(proxy)) as passes:
            passes.observe(list(proxy.observe.values()), graph=proxy.needs_gradients)
            value = proxy(passes.seen(proxy.observe), passes)
        assert isinstance(value, Tensor)
        assert value.dim() == 0
        assert not value.requires_grad

    def test_same_seed_same_score(self, proxy: Proxy) -> None:
        """Bit for bit, on the same model or on a copy of it."""
        model = self.network(proxy)
        first = self.measure(proxy, model, seed=3).scores
        assert self.measure(proxy, model, seed=3).scores == first
        assert self.measure(proxy, copy.deepcopy(model), seed=3).scores == first

    def test_global_generators_do_not_matter(self, proxy: Proxy) -> None:
        """What the caller drew before changes nothing."""
        scores = set()
        with seeded(0):
            for n_drawn in (0, 5):
                _ = [random.random() + np.random.rand() + torch.rand(1).item() for _ in range(n_drawn)]  # noqa: NPY002
                scores.add(self.measure(proxy).scores[proxy.name])
        assert len(scores) == 1

    def test_mode_of_the_model_does_not_matter(self, proxy: Proxy) -> None:
        """Proxies look at the mode asked for, not at the one the model came in."""
        scores = {self.measure(proxy, self.network(proxy).train(mode)).scores[proxy.name] for mode in (True, False)}
        assert len(scores) == 1

    def test_company_does_not_matter(self, proxy: Proxy) -> None:
        """Shared passes give every proxy what it gets alone, in whatever order they are asked."""
        alone = self.measure(proxy).scores[proxy.name]
        for backwards in (False, True):
            assert _scores_in_company(kind_for(proxy), self.batch(proxy).n, backwards)[proxy.name] == alone

    def test_needs_no_label_it_does_not_ask_for(self, proxy: Proxy) -> None:
        """Labels missing: refused in words by those that need them, of no effect on the others."""
        bare = Batch(self.batch(proxy).inputs)
        if proxy.needs_targets:
            with pytest.raises(InputError, match="needs labels"):
                run_proxies(self.network(proxy), bare, [proxy])
        else:
            assert run_proxies(self.network(proxy), bare, [proxy]).scores == self.measure(proxy).scores

    def test_keeps_the_invariances_it_declares(self, proxy: Proxy) -> None:
        """Other images, labels or weights, or another order of the images, change nothing where that is claimed."""
        batch = self.batch(proxy)
        labels = torch.arange(batch.n) % N_CLASSES
        batch = Batch(batch.inputs, labels)
        changed = {
            "inputs": Batch(self.batch(proxy, seed=7).inputs, labels),
            "labels": Batch(batch.inputs, (labels + 1) % N_CLASSES),
            "order": Batch(batch.map(lambda t: t.flip(0)).inputs, labels.flip(0)),
            "weights": batch,
        }
        expected = run_proxies(self.network(proxy), batch, [proxy]).scores[proxy.name]
        for claim in proxy.invariant_to:
            model = self.network(proxy)
            if claim == "weights":
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter.mul_(1.5).add_(0.01)
            value = run_proxies(model, changed[claim], [proxy]).scores[proxy.name]
            assert value == pytest.approx(expected, rel=1e-6), f"not invariant to {claim}"

    def test_too_small_a_batch_is_refused(self, proxy: Proxy) -> None:
        """Below the smallest batch that it states."""
        if proxy.minimum_images > 1:
            with pytest.raises(InputError, match=f"{proxy.name} needs at least {proxy.minimum_images} images"):
                run_proxies(self.network(proxy), small_batch(proxy.minimum_images - 1, kind_for(proxy)), [proxy])

    @pytest.mark.parametrize("kind", KINDS)
    def test_any_architecture_is_scored_or_refused_in_words(self, proxy: Proxy, kind: str) -> None:
        """Convolutions, transformers, tokens, nothing trainable, half precision: a status, never a made-up number."""
        batch = small_batch(max(8, proxy.minimum_images), kind)
        try:
            result = run_proxies(small_network(kind), batch, [proxy])
        except NaswotError as error:
            assert not isinstance(error, ModelError), error  # noqa: PT017
            assert len(str(error)) > 20  # noqa: PT017
        else:
            value = result.scores[proxy.name]
            assert math.isfinite(value) or result.reasons[proxy.name]

    def test_one_class_only(self, proxy: Proxy) -> None:
        """A batch of one class is scored, undefined with its reason, or refused in words."""
        batch = self.batch(proxy)
        try:
            one = Batch(batch.inputs, torch.zeros(batch.n, dtype=torch.int64))
            result = run_proxies(self.network(proxy), one, [proxy])
        except NaswotError as error:
            assert str(error)  # noqa: PT017
        else:
            assert math.isfinite(result.scores[proxy.name]) or result.reasons[proxy.name]

    def test_overflow_is_a_status(self, proxy: Proxy) -> None:
        """Weights so large that the loss overflows: a number, or an infinity with its reason, or an error in words."""
        model = self.network(proxy)
        with torch.no_grad():
            model.get_parameter("classifier.weight").fill_(3e38)
        try:
            result = run_proxies(model, self.batch(proxy), [proxy])
        except NaswotError as error:
            assert str(error)  # noqa: PT017
        else:
            assert math.isfinite(result.scores[proxy.name]) or result.reasons[proxy.name]

    def test_leaves_no_trace(self, proxy: Proxy) -> None:
        """Model, batch and global state come back as they were."""
        model, batch = self.network(proxy), self.batch(proxy)
        with Traces(model, *batch.tensors()) as traces:
            run_proxies(model, batch, [proxy])
        assert traces.left == []

    def test_leaves_no_trace_when_the_model_fails(self, proxy: Proxy) -> None:
        """A failing layer is reported as the model's error and leaves nothing behind."""
        model, batch = self.network(proxy), self.batch(proxy)
        failing = model.get_submodule("classifier").register_forward_hook(_fail)
        with Traces(model, *batch.tensors()) as traces:
            try:
                run_proxies(model, batch, [proxy])
            except ModelError as error:
                assert isinstance(error.__cause__, RuntimeError)  # noqa: PT017
            else:
                assert not proxy.needs_forward
        assert traces.left == []
        failing.remove()
        assert self.measure(proxy, model).scores == self.measure(proxy).scores

    def test_one_image_is_scored_or_refused_in_words(self, proxy: Proxy) -> None:
        """No bare error of torch for a batch of one."""
        try:
            value = run_proxies(self.network(proxy), small_batch(1, kind_for(proxy)), [proxy]).scores[proxy.name]
        except NaswotError as error:
            assert str(error)  # noqa: PT017
        else:
            assert not math.isnan(value)

    def test_declaration(self, proxy: Proxy) -> None:
        """Name, direction, reference and version are told."""
        assert re.fullmatch(r"[a-z][a-z0-9_]*", proxy.name)
        assert isinstance(proxy.higher_is_better, bool)
        assert "arXiv:" in proxy.reference or re.search(r"\b(19|20)\d\d\b", proxy.reference)
        assert isinstance(proxy.version, int)
        assert proxy.version >= 1

    def test_documentation(self, proxy: Proxy) -> None:
        """A summary of one line for lists, and what comes back with its unit."""
        text = inspect.getdoc(proxy.function) or ""
        assert proxy.summary.endswith(".")
        assert len(proxy.summary) <= 120
        assert re.search(r"^Returns:\n +\(\)", text, re.MULTILINE), "say 'Returns:' and '() float64 in <unit>'"

    def test_options_are_keywords_with_defaults(self, proxy: Proxy) -> None:
        """So that every proxy runs by its name alone."""
        for option in list(inspect.signature(proxy.function).parameters.values())[2:]:
            assert option.kind is option.KEYWORD_ONLY, option.name
            assert option.default is not option.empty, option.name
