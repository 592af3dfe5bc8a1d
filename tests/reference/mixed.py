"""Slow twins of T-CET, L-SWAG, WRCor, DSS and the proxies of attention heads: loops in float64, no engine.

Each works on a copy of the model, batch norms on batch statistics.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from reference.slow_kernel import collect_relu_inputs, slow_kernel
from torch import nn


def linearised(model):
    """Gradients of the summed outputs for an image of ones: batch norms gone, weights absolute; (w, g) by name."""
    model = copy.deepcopy(model).double().eval()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    for parameter in model.parameters():
        parameter.data = parameter.data.abs()
        parameter.requires_grad = True
    return model


def flow(model, shape):
    model = linearised(model)
    model(torch.ones(1, *shape, dtype=torch.float64)).sum().backward()
    return {name: (p.detach().numpy(), p.grad.numpy()) for name, p in model.named_parameters() if p.grad is not None}


def snip(model, images, labels):
    model = copy.deepcopy(model).train()
    F.cross_entropy(model(images), labels).backward()
    return {name: (p.detach().double().numpy(), p.grad.double().numpy()) for name, p in model.named_parameters()}


def tcet(model, images, pairs):
    outputs, copied = {}, copy.deepcopy(model).train()
    for name, module in copied.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(
                lambda module, args, out, name=name: outputs.update({name: out.detach().reshape(len(images), -1)})
            )
    copied(images)
    score = 0.0
    for name, output in outputs.items():
        kernel = slow_kernel([output.numpy()], [0.0]).astype(float)
        weight, gradient = pairs[f"{name}.weight"]
        saliency = np.abs(weight * gradient).ravel()
        if np.linalg.matrix_rank(kernel) == len(images) and saliency.std() > 0:
            score += np.linalg.slogdet(kernel)[1] * saliency.sum() / saliency.std(ddof=1)
    return score


def swap_count(layers):
    """Distinct patterns of units, layer by layer, summed."""
    return sum(len({tuple(column) for column in (layer > 0).T}) for layer in layers)


def l_swag(model, images, labels, n_parts, layers, swap):
    """``layers``: names of the weights within the window; ``swap``: the count of patterns."""
    size, gradients = len(images) // n_parts, []
    for p in range(n_parts):
        part, rows = copy.deepcopy(model).train(), slice(p * size, (p + 1) * size)
        F.cross_entropy(part(images[rows]), labels[rows]).backward()
        gradients.append({name: parameter.grad.double().numpy() for name, parameter in part.named_parameters()})
    total = 0.0
    for name in layers:
        inner = 0.0
        for values in zip(*(np.abs(g[name]).ravel() for g in gradients), strict=True):
            if np.var(values) > 0:
                inner += 1 / math.sqrt(np.var(values))
        if inner:
            total += math.log(inner)
    return total * swap


def wrcor(model, images, labels):
    """Every ``nn.ReLU`` call is a block; the ReLUs must not work in place."""
    model, responses = copy.deepcopy(model).train(), []

    def see(module, args):
        args[0].retain_grad()
        responses.append(args[0])

    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_pre_hook(see)
    F.cross_entropy(model(images), labels).backward()
    kernel = np.zeros((len(images), len(images)))
    for block, response in enumerate(responses):
        for values in (response.detach(), response.grad):
            kernel += 2**block * np.abs(np.corrcoef(values.double().reshape(len(images), -1).numpy()))
    return np.linalg.slogdet(kernel)[1]


def dss(model, shape, attention, others):
    """``attention``, ``others``: names of the weights of either kind."""
    pairs, score = flow(model, shape), 0.0
    for name in attention:
        score += math.prod(np.linalg.svd(matrix, compute_uv=False).sum() for matrix in pairs[name])
    for name in others:
        weight, gradient = pairs[name]
        score += np.abs(weight * gradient).sum()
    return score


def transformer(model, images, gates):
    """The small vision transformer head by head; ``gates`` (L, N, H) multiply the heads' outputs.

    Returns:
        logits (N, K) and the probabilities of every layer, (N, H, T, T).
    """
    x = model.patches(images).flatten(2).transpose(1, 2)
    x = torch.cat([model.token.expand(len(x), -1, -1), x], dim=1) + model.places
    maps = []
    for layer, gate in zip(model.layers.layers, gates, strict=True):
        attention, y = layer.self_attn, layer.norm1(x)
        width = y.shape[-1] // attention.num_heads
        q, k, v = (y @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, dim=-1)
        heads, seen = [], []
        for h in range(attention.num_heads):
            part = slice(h * width, (h + 1) * width)
            seen.append((q[..., part] @ k[..., part].mT / math.sqrt(width)).softmax(-1))
            heads.append(seen[-1] @ v[..., part] * gate[:, h, None, None])
        x = x + attention.out_proj(torch.cat(heads, dim=-1))
        x = x + layer.linear2(F.gelu(layer.linear1(layer.norm2(x))))
        maps.append(torch.stack(seen, dim=1))
    return model.classifier(x[:, 0]), maps


def head_confidence(model, images):
    score = 0.0
    _, maps = transformer(model, images, torch.ones(2, len(images), 2, dtype=images.dtype))
    for probabilities in maps:
        greatest = [max(row) for image in probabilities.tolist() for head in image for row in head]
        score += sum(greatest) / len(greatest)
    return score


def head_importance(model, images, labels):
    """|dL/dgate| of every head and image, as Michel et al. define it."""
    gates = torch.ones(2, len(images), 2, dtype=images.dtype, requires_grad=True)
    logits, _ = transformer(model, images, gates)
    F.cross_entropy(logits, labels).backward()
    return gates.grad.abs().sum().item()


def relu_layers(model, images):
    return collect_relu_inputs(copy.deepcopy(model), images)
