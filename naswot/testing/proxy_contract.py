"""The contract of a proxy: what every one keeps, whoever wrote it.

Example:
    A test file of three lines covers a plug-in::

        from naswot.testing.proxy_contract import ProxyContract
        class TestMine(ProxyContract):
            name = "my_proxy"
"""

from __future__ import annotations

import copy
import functools
import inspect
import math
import random
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from naswot.errors import InputError, ModelError, NaswotError
from naswot.measuring import Measurement, run_proxies
from naswot.passes import Passes
from naswot.proxy import Proxy, get_proxy, list_proxies
from naswot.seeding import seeded
from naswot.testing.networks import KINDS, N_CLASSES, small_batch, small_images, small_labels, small_network
from naswot.testing.traces import Traces
from naswot.types import Batch


@functools.cache
def _scores_in_company(names: tuple[str, ...], n: int) -> Mapping[str, float]:
    """All of these proxies over one set of shared passes, beside one that draws from the global generators."""
    greedy = Proxy("greedy", lambda seen, passes: torch.rand(()), {}, (), True, "draws what others may rely on")
    chosen = [greedy, *(get_proxy(name) for name in names)]
    return run_proxies(small_network(), small_batch(n), chosen).scores


class ProxyContract:
    """Subclass with ``name``, or parametrise the argument ``proxy``."""

    name: ClassVar[str]

    @pytest.fixture
    def proxy(self) -> Proxy:
        """The proxy under test."""
        return get_proxy(self.name)

    def measure(self, proxy: Proxy, model: nn.Module | None = None, *, seed: int = 0, n: int = 8) -> Measurement:
        """The proxy alone on a small network, with no fewer images than it needs."""
        batch = small_batch(max(n, proxy.minimum_images))
        return run_proxies(model or small_network(), batch, [proxy], seed=seed)

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
        with Passes(small_network(), small_batch()) as passes:
            passes.observe(list(proxy.observe.values()), graph=proxy.needs_gradients)
            value = proxy(passes.seen(proxy.observe), passes)
        assert isinstance(value, Tensor)
        assert value.dim() == 0
        assert not value.requires_grad

    def test_same_seed_same_score(self, proxy: Proxy) -> None:
        """Bit for bit, on the same model or on a copy of it."""
        model = small_network()
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
        scores = {self.measure(proxy, small_network().train(mode)).scores[proxy.name] for mode in (True, False)}
        assert len(scores) == 1

    def test_company_does_not_matter(self, proxy: Proxy) -> None:
        """Shared passes give every proxy what it gets alone, in whatever order they are asked."""
        alone = self.measure(proxy).scores[proxy.name]
        n = max(small_batch().n, proxy.minimum_images)
        names = sorted({proxy.name, *(name for name in list_proxies() if get_proxy(name).minimum_images <= n)})
        for order in (tuple(names), tuple(reversed(names))):
            assert _scores_in_company(order, n)[proxy.name] == alone

    def test_needs_no_label_it_does_not_ask_for(self, proxy: Proxy) -> None:
        """Labels missing: refused in words by those that need them, of no effect on the others."""
        bare = Batch(small_batch(max(8, proxy.minimum_images)).inputs)
        if proxy.needs_targets:
            with pytest.raises(InputError, match="needs labels"):
                run_proxies(small_network(), bare, [proxy])
        else:
            assert run_proxies(small_network(), bare, [proxy]).scores == self.measure(proxy).scores

    def test_keeps_the_invariances_it_declares(self, proxy: Proxy) -> None:
        """Other images, labels or weights, or another order of the images, change nothing where that is claimed."""
        n = max(8, proxy.minimum_images)
        images, labels = small_images(n), small_labels(n)
        changed = {
            "inputs": Batch(small_images(n, seed=2), labels),
            "labels": Batch(images, (labels + 1) % N_CLASSES),
            "order": Batch(images.flip(0), labels.flip(0)),
            "weights": Batch(images, labels),
        }
        expected = self.measure(proxy).scores[proxy.name]
        for claim in proxy.invariant_to:
            model = small_network()
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
                run_proxies(small_network(), small_batch(proxy.minimum_images - 1), [proxy])
        assert self.measure(proxy, n=2).scores

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
        n = max(8, proxy.minimum_images)
        try:
            batch = Batch(small_images(n), torch.zeros(n, dtype=torch.int64))
            result = run_proxies(small_network(), batch, [proxy])
        except NaswotError as error:
            assert str(error)  # noqa: PT017
        else:
            assert math.isfinite(result.scores[proxy.name]) or result.reasons[proxy.name]

    def test_overflow_is_a_status(self, proxy: Proxy) -> None:
        """Weights so large that the loss overflows: a number, or an infinity with its reason, or an error in words."""
        model = small_network()
        with torch.no_grad():
            model.get_parameter("classifier.weight").fill_(3e38)
        try:
            result = run_proxies(model, small_batch(max(8, proxy.minimum_images)), [proxy])
        except NaswotError as error:
            assert str(error)  # noqa: PT017
        else:
            assert math.isfinite(result.scores[proxy.name]) or result.reasons[proxy.name]

    def test_leaves_no_trace(self, proxy: Proxy) -> None:
        """Model, batch and global state come back as they were."""
        model, batch = small_network(), small_batch(max(8, proxy.minimum_images))
        with Traces(model, *batch.tensors()) as traces:
            run_proxies(model, batch, [proxy])
        assert traces.left == []

    def test_leaves_no_trace_when_the_model_fails(self, proxy: Proxy) -> None:
        """A failing layer is reported as the model's error and leaves nothing behind."""
        model: Any = small_network()
        batch = small_batch(max(8, proxy.minimum_images))
        model.failing = True
        with Traces(model, *batch.tensors()) as traces:
            try:
                run_proxies(model, batch, [proxy])
            except ModelError as error:
                assert isinstance(error.__cause__, RuntimeError)  # noqa: PT017
            else:
                assert not proxy.needs_forward
        assert traces.left == []
        model.failing = False
        assert self.measure(proxy, model).scores == self.measure(proxy).scores

    def test_one_image_is_scored_or_refused_in_words(self, proxy: Proxy) -> None:
        """No bare error of torch for a batch of one."""
        try:
            value = run_proxies(small_network(), small_batch(1), [proxy]).scores[proxy.name]
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
