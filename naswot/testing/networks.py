"""Small networks of the kinds that people score, and batches for them; the contract of a proxy runs on all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from naswot.seeding import seeded, torch_generator
from naswot.types import Batch

N_CLASSES = 5
_WORDS, _WIDTH, _PLACES = 30, 12, 6


class ResidualNetwork(nn.Module):
    """Convolutions with and without BatchNorm, a frozen norm, dropout, a residual sum; 8x8 images to five logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(6, 6, 1))
        self.norm, self.dropout = nn.BatchNorm2d(6), nn.Dropout(0.5)
        self.classifier = nn.Linear(6, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 8, 8) to (N, 5)."""
        x = self.stem(x)
        x = torch.relu(self.norm(x + self.block(x)))
        logits: Tensor = self.classifier(self.dropout(x.mean(dim=(2, 3))))
        return logits


class MobileNetwork(nn.Module):
    """An inverted residual with a depthwise convolution and SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.SiLU())
        self.expand = nn.Sequential(nn.Conv2d(6, 12, 1, bias=False), nn.BatchNorm2d(12), nn.SiLU(inplace=True))
        depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False)
        self.depthwise = nn.Sequential(depthwise, nn.BatchNorm2d(12), nn.SiLU(inplace=True))
        self.project = nn.Sequential(nn.Conv2d(12, 6, 1, bias=False), nn.BatchNorm2d(6))
        self.classifier = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(6 * 64, N_CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 8, 8) to (N, 5)."""
        x = self.stem(x)
        logits: Tensor = self.classifier(x + self.project(self.depthwise(self.expand(x))))
        return logits


class VisionTransformer(nn.Module):
    """Patches of 4x4, a class token, two encoder layers with GELU; no convolution behind the patches, no BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, _WIDTH, 4, stride=4)
        self.token, self.places = nn.Parameter(torch.zeros(1, 1, _WIDTH)), nn.Parameter(torch.randn(1, 5, _WIDTH) * 0.1)
        layer = nn.TransformerEncoderLayer(_WIDTH, 2, 24, activation="gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.classifier = nn.Linear(_WIDTH, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 8, 8) to (N, 5)."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.places
        logits: Tensor = self.classifier(self.layers(x)[:, 0])
        return logits


class LanguageModel(nn.Module):
    """Token ids through embeddings and two encoder layers; keywords in, an object with ``.logits`` out, as BERT."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(_WORDS, _WIDTH), nn.Embedding(_PLACES, _WIDTH)
        layer = nn.TransformerEncoderLayer(_WIDTH, 2, 24, activation="gelu", batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.classifier = nn.Linear(_WIDTH, N_CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        """(N, 6) ids and mask to an object with logits (N, 5)."""
        x = self.words(input_ids) + self.places(torch.arange(input_ids.shape[1], device=input_ids.device))
        x = self.layers(x, src_key_padding_mask=attention_mask == 0)
        return SimpleNamespace(logits=self.classifier(x[:, 0]))


def _perceptron() -> nn.Module:
    layers = [nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, N_CLASSES)]
    return nn.Sequential(nn.Flatten(), *layers)


def _without_norm() -> nn.Module:
    convolutions = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, N_CLASSES))


def _without_parameters() -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _frozen() -> nn.Module:
    return ResidualNetwork().requires_grad_(False)


def _half() -> nn.Module:
    return ResidualNetwork().to(torch.bfloat16)


def _tied() -> nn.Module:
    model = LanguageModel()
    layers = model.layers.layers
    for name in ("linear1", "linear2", "self_attn"):
        setattr(layers[1], name, getattr(layers[0], name))
    return model


_BUILDERS: Mapping[str, Callable[[], nn.Module]] = {
    "residual": ResidualNetwork,
    "mobile": MobileNetwork,
    "vision transformer": VisionTransformer,
    "language model": LanguageModel,
    "tied weights": _tied,
    "no convolution": _perceptron,
    "no norm": _without_norm,
    "no parameter": _without_parameters,
    "all frozen": _frozen,
    "half precision": _half,
}
KINDS = tuple(_BUILDERS)
"""Names of the small networks."""


def small_network(kind: str = "residual") -> nn.Module:
    """The network of that name, with the same weights every time.

    The residual one comes with one norm in evaluation mode and one gradient set, which are there to be left alone.
    """
    with seeded(0):
        model = _BUILDERS[kind]()
    if isinstance(model, ResidualNetwork) and kind == "residual":
        model.norm.eval()
        model.classifier.bias.grad = torch.ones(N_CLASSES)
    return model


def small_batch(n: int = 8, kind: str = "residual", *, seed: int = 1) -> Batch:
    """N inputs that the network of that name takes, drawn from ``seed``, and labels that do not depend on it."""
    n_classes = 3 if kind == "no parameter" else N_CLASSES
    labels = torch.randint(n_classes, (n,), generator=torch_generator(2))
    if kind not in ("language model", "tied weights"):
        return Batch(torch.randn(n, 3, 8, 8, generator=torch_generator(seed)), labels)
    words = torch.randint(_WORDS, (n, _PLACES), generator=torch_generator(seed))
    return Batch({"input_ids": words, "attention_mask": torch.ones_like(words)}, labels)
