"""Every proxy on models as people have them: pytorchcv's and Hugging Face's, built from configurations."""

import math
from functools import cache

import pytest
import torch

from naswot.errors import ModelError, NaswotError
from naswot.measuring import run_proxies
from naswot.proxy import get_proxy, list_proxies
from naswot.seeding import seeded
from naswot.types import Batch

EVERYWHERE = ["naswot", "params", "flops", "snip", "grad_norm", "grasp", "lnwot", "swap", "near", "l2_norm", "knas"]
EVERYWHERE += ["gradsign", "zico", "ntk_condition", "wrcor", "fisher", "l_swag", "plain", "trainable_layers"]
EVERYWHERE += ["calm", "code_evidence", "live_params", "live_flops", "live_depth", "live_units"]
ON_IMAGES = ["jacov", "epe_nas", "synflow", "logsynflow"]
ON_CONVOLUTIONS = ["zen", "apd"]
ON_ATTENTION = ["head_confidence", "head_importance"]
WORKS = {
    "resnet": EVERYWHERE + ON_IMAGES + ON_CONVOLUTIONS,
    "mobilenet": EVERYWHERE + ON_IMAGES + ON_CONVOLUTIONS,
    "vit": EVERYWHERE + ON_IMAGES + ON_ATTENTION + ["dss"],
    "bert": EVERYWHERE + ON_ATTENTION + ["non_embedding_params"],
}
N, SIZE = 4, 32


@cache
def model(kind):
    with seeded(0):
        if kind == "resnet":
            return pytest.importorskip("pytorchcv.models.resnet_cifar").resnet20_cifar10()
        transformers = pytest.importorskip("transformers")
        if kind == "mobilenet":
            config = transformers.MobileNetV2Config(
                image_size=SIZE, depth_multiplier=0.35, hidden_act="silu", num_labels=10
            )
            return transformers.MobileNetV2ForImageClassification(config)
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        if kind == "vit":
            config = transformers.ViTConfig(image_size=SIZE, patch_size=8, num_labels=10, **sizes)
            return transformers.ViTForImageClassification(config)
        config = transformers.BertConfig(vocab_size=50, max_position_embeddings=16, num_labels=10, **sizes)
        return transformers.BertForSequenceClassification(config)


def batch(kind):
    generator = torch.Generator().manual_seed(0)
    targets = torch.tensor([0, 1, 0, 1])
    if kind == "bert":
        ids = torch.randint(50, (N, 8), generator=generator)
        return Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, targets)
    size = 2 * SIZE if kind == "mobilenet" else SIZE  # it divides by 32, and one image alone needs more than one pixel
    return Batch(torch.randn(N, 3, size, size, generator=generator), targets)


@pytest.mark.slow
@pytest.mark.parametrize("name", list_proxies())
@pytest.mark.parametrize("kind", WORKS)
def test_scored_or_refused_in_words(kind, name):
    options = {"repeats": 1} if name in ("zen", "near") else {}
    if name.startswith("vkdnw"):
        options = {"n_images": 2, "n_parameters": 8}
    try:
        result = run_proxies(model(kind), batch(kind), [get_proxy(name, **options)])
    except NaswotError as error:
        assert not isinstance(error, ModelError), error  # noqa: PT017
        assert len(str(error)) > 30  # noqa: PT017
        assert name not in WORKS[kind], error  # noqa: PT017
        return
    assert math.isfinite(result.scores[name]) or result.reasons[name]
    if name in WORKS[kind]:
        assert math.isfinite(result.scores[name]), result.reasons
