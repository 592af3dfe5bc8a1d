"""Entropy of the Fisher information's spectrum, for VKDNW.

Certain, from the authors' code (ondratybl/VKDNW) and in line with the paper: evaluation mode; Kaiming normal weights by
fan-in, biases 0, norms 1 and 0; standard normal inputs; the first scalar of each parameter tensor; the Fisher matrix of
the predicted, not the true, labels, with probabilities mixed with 5 % of the uniform; deciles 0.1 to 0.9 by linear
interpolation, normalised to sum 1; natural logarithm.

Not certain: which tensors where there are more than 128 (one of their scripts takes the first ones, another a random
sample; here a random sample from the seed), and the number of images (64 in the paper by notes about it, 32 in a
script; here that of the batch). Deviations of ours: running statistics of BatchNorm are reset, as in the fresh networks
that they score; eigenvalues that are rounding errors count as zero; no 1e-10 inside quotient and logarithm.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from naswot.errors import InputError, OptionError, OutputError
from naswot.logits import logits_of
from naswot.passes import Passes
from naswot.types import Batch, ModelInputs

_SMOOTHING = 0.05


def initialise(model: nn.Module) -> None:
    """Draw the weights of convolutions and linear layers anew by fan-in; norms to identity; the rest stays."""
    for module in model.modules():
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm) and module.affine:
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.reset_running_stats()


def random_images(batch: Batch, n_images: int) -> Iterator[ModelInputs]:
    """Standard normal inputs of the shapes of the batch's, one image at a time; integers are taken from the batch."""
    for i in range(n_images):
        row = i % batch.n

        def draw(tensor: Tensor, row: int = row) -> Tensor:
            one = tensor.detach().narrow(batch.batch_dim, row, 1)
            return torch.randn(one.shape).to(one) if one.is_floating_point() else one

        yield Batch(batch.inputs, batch_dim=batch.batch_dim).map(draw).inputs


def class_gradients(logits: Tensor, parameters: list[Tensor]) -> Tensor:
    """Derivatives of each logit of one image by the first scalar of each parameter, (K, P) float64."""
    rows = torch.zeros(logits.shape[1], len(parameters), dtype=torch.float64)
    for k, logit in enumerate(logits[0] if logits.requires_grad else []):
        gradients = torch.autograd.grad(logit, parameters, retain_graph=True, allow_unused=True)
        reached = [j for j, gradient in enumerate(gradients) if gradient is not None]
        rows[k, reached] = torch.stack([gradients[j].reshape(-1)[0] for j in reached]).double().cpu()
    return rows


def fisher_matrix(passes: Passes, n_images: int, n_parameters: int) -> Tensor:
    """Empirical Fisher information of sampled scalars of a freshly initialised copy, (P, P) float64.

    With J the derivatives of an image's logits and p its probabilities: the mean over images of J^T (diag p - p p^T) J.
    """
    with passes.scratch() as model, torch.enable_grad():
        initialise(model.eval())
        tensors: list[Tensor] = [p for p in model.parameters() if p.requires_grad and p.numel()]
        if not tensors:
            raise InputError("the model has no trainable parameter, so there is no Fisher information")
        if len(tensors) > n_parameters:
            chosen = torch.randperm(len(tensors))[:n_parameters].sort().values
            tensors = [tensors[i] for i in chosen]
        fisher = torch.zeros(len(tensors), len(tensors), dtype=torch.float64)
        for image in random_images(passes.batch, n_images):
            result = passes.own_forward(model, image)
            logits = logits_of(result, passes.options.output)
            if logits.dim() != 2:
                raise OutputError(f"expected logits of shape (N, K), but got {tuple(logits.shape)}; pass output=")
            p = logits.detach()[0].double().cpu().softmax(dim=0)
            p = p * (1 - _SMOOTHING) + _SMOOTHING / len(p)
            passes.n_backwards += len(p)
            jacobian = class_gradients(logits, tensors)
            centred = p.sqrt()[:, None] * (jacobian - p @ jacobian)
            fisher += centred.T @ centred / n_images
    return fisher


def spectrum_entropy(fisher: Tensor) -> Tensor | None:
    """Entropy of the normalised deciles of the eigenvalues, () float64 in nats; None if all deciles are zero."""
    values: Tensor = torch.linalg.eigvalsh(fisher)
    noise = len(values) * torch.finfo(torch.float64).eps * values[-1]
    values = torch.where(values > noise, values, 0.0)
    deciles = torch.quantile(values, torch.arange(1, 10, dtype=torch.float64) / 10)
    if deciles[-1] <= 0:
        return None
    entropy: Tensor = torch.special.entr(deciles / deciles.sum()).sum()
    return entropy


def entropy_of(passes: Passes, n_images: int | None, n_parameters: int) -> Tensor:
    """Entropy of the Fisher spectrum of ``passes.model``, () float64 in nats, or its status."""
    n_images = passes.batch.n if n_images is None else n_images
    if n_images < 1 or n_parameters < 1:
        raise OptionError(f"expected n_images and n_parameters of at least 1, but got {n_images} and {n_parameters}")
    key = ("Fisher matrix", n_images, n_parameters)
    fisher = passes.once(key, lambda: fisher_matrix(passes, n_images, n_parameters))
    if not torch.isfinite(fisher).all():
        return passes.undefined("a gradient is not finite")
    entropy = spectrum_entropy(fisher)
    return passes.undefined("nine tenths of the Fisher matrix's eigenvalues are zero") if entropy is None else entropy
