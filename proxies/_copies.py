"""Passes over a private copy of the model, and which of its weights are those of a layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from naswot.errors import InputError
from naswot.logits import cross_entropy, logits_of
from naswot.passes import Passes
from naswot.types import Batch

_NO_LAYERS = (
    nn.Embedding,
    nn.EmbeddingBag,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._NormBase,
)


def weight_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights of two or more dimensions of convolutions, linear layers and attention, by parameter name.

    In the order in which the modules were registered, each once, trainable or not. A head tied to an embedding counts;
    embeddings alone, normalisation, class tokens and position tables do not, nor do weights that are computed from
    other parameters.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {}
    for module in model.modules():
        if not isinstance(module, _NO_LAYERS):
            for key, parameter in module._parameters.items():
                if parameter is not None and key.endswith("weight") and parameter.dim() > 1:
                    found[names[parameter]] = parameter
    return found


@contextmanager
def copy_with_graph(passes: Passes) -> Iterator[nn.Module]:
    """A scratch copy all of whose parameters can be differentiated, within which graphs are made whatever is around.

    What is frozen in the model is not so here: gradients of activations do not ask which weights learn.
    """
    # a model made in inference mode is copied out of it
    with torch.inference_mode(False), torch.enable_grad(), passes.scratch() as model:
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_(True)
        yield model


def loss_of(passes: Passes, result: Any) -> Tensor:
    """Mean cross-entropy of a copy's result on the passes' batch, ().

    Raises:
        InputError: if the batch has no targets.
    """
    if passes.batch.targets is None:
        raise InputError("the loss needs labels, but the batch has none; pass Batch(inputs, targets)")
    return cross_entropy(logits_of(result, passes.options.output), passes.batch.targets, "mean")


def ones_like_one_image(batch: Batch) -> Batch:
    """One image of ones in float64; masks and other integers beside it stay those of the first image.

    Raises:
        InputError: if every input is an integer, such as token ids.
    """
    if not any(tensor.is_floating_point() for tensor in batch.tensors()):
        raise InputError("the inputs are integers, such as token ids, where an image of ones would have to go")

    def one(tensor: Tensor) -> Tensor:
        first = tensor.detach().narrow(batch.batch_dim, 0, 1)
        return torch.ones_like(first, dtype=torch.float64) if tensor.is_floating_point() else first

    return Batch(batch.inputs, batch_dim=batch.batch_dim).map(one)
