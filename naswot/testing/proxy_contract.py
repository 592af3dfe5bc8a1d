"""The contract of a proxy: what every one keeps, whoever wrote it.

Example:
    A test file of three lines covers a plug-in::

        from naswot.testing.proxy_contract import ProxyContract
        class TestMine(ProxyContract):
            name = "my_proxy"
"""

from __future__ import annotations

import copy
import inspect
import math
import random
import re
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from naswot.errors import ModelError, NaswotError
from naswot.measuring import Measurement, run_proxies
from naswot.passes import Passes
from naswot.proxy import Proxy, get_proxy, list_proxies
from naswot.seeding import seeded, torch_generator
from naswot.testing.traces import Traces
from naswot.types import Batch

N_CLASSES = 5


class SmallNetwork(nn.Module):
    """Convolutions with and without BatchNorm, a frozen one, dropout, a residual sum; 8x8 images to five logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(6, 6, 1))
        self.norm, self.dropout = nn.BatchNorm2d(6), nn.Dropout(0.5)
        self.classifier = nn.Linear(6, N_CLASSES)
        self.failing = False

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 8, 8) to (N, 5)."""
        x = self.stem(x)
        x = torch.relu(self.norm(x + self.block(x)))
        if self.failing:
            raise RuntimeError("this layer always fails")
        logits: Tensor = self.classifier(self.dropout(x.mean(dim=(2, 3))))
        return logits


def small_network() -> SmallNetwork:
    """The same weights every time; the frozen norm, a gradient and the modes are there to be left alone."""
    with seeded(0):
        model = SmallNetwork()
    model.norm.eval()
    model.classifier.bias.grad = torch.ones(N_CLASSES)
    return model


def small_batch(n: int = 8) -> Batch:
    """N images and labels."""
    generator = torch_generator(1)
    return Batch(torch.randn(n, 3, 8, 8, generator=generator), torch.randint(N_CLASSES, (n,), generator=generator))


class ProxyContract:
    """Subclass with ``name``, or parametrise the argument ``proxy``."""

    name: ClassVar[str]

    @pytest.fixture
    def proxy(self) -> Proxy:
        """The proxy under test."""
        return get_proxy(self.name)

    def measure(self, proxy: Proxy, model: nn.Module | None = None, *, seed: int = 0, n: int = 8) -> Measurement:
        """The proxy alone on a small network."""
        return run_proxies(model or small_network(), small_batch(n), [proxy], seed=seed)

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
        """Shared passes give every proxy what it gets alone, also beside one that draws from the global generators."""
        alone = self.measure(proxy).scores[proxy.name]
        greedy = Proxy("greedy", lambda seen, passes: torch.rand(()), {}, (), True, "draws what others may rely on")
        company = [greedy, *(get_proxy(name) for name in list_proxies(without=[proxy.name]))]
        for chosen in ([*company, proxy], [proxy, *company]):
            assert run_proxies(small_network(), small_batch(), chosen).scores[proxy.name] == alone

    def test_leaves_no_trace(self, proxy: Proxy) -> None:
        """Model, batch and global state come back as they were."""
        model, batch = small_network(), small_batch()
        with Traces(model, *batch.tensors()) as traces:
            run_proxies(model, batch, [proxy])
        assert traces.left == []

    def test_leaves_no_trace_when_the_model_fails(self, proxy: Proxy) -> None:
        """A failing layer is reported as the model's error and leaves nothing behind."""
        model, batch = small_network(), small_batch()
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
            value = self.measure(proxy, n=1).scores[proxy.name]
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
