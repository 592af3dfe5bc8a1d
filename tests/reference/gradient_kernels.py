"""Slow twins of the proxies made of gradients of single images: loops in float64 with autograd calls of their own."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def input_jacobian(model, images):
    """Gradient of the sum of all logits by the images, batch statistics, (N, D)."""
    images = images.clone().requires_grad_()
    copy.deepcopy(model).train()(images).sum().backward()
    return images.grad.double().reshape(len(images), -1).numpy()


def pearson(a, b):
    """Correlation of two vectors."""
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))


def correlations(rows):
    return np.array([[pearson(a, b) for b in rows] for a in rows])


def jacov(model, images, k=1e-5):
    values = np.linalg.eigvals(correlations(input_jacobian(model, images))).real
    return -sum(math.log(v + k) + 1 / (v + k) for v in values)


def epe_nas(model, images, labels, n_classes, k=1e-5):
    rows, by_class = input_jacobian(model, images), {}
    for row, label in zip(rows, labels.tolist(), strict=True):
        by_class.setdefault(label, []).append(row)
    sums = {}
    for label, members in by_class.items():
        if len(members) > 1:
            total = sum(math.log(abs(pearson(a, b)) + k) for a in members for b in members)
            sums[label] = total / len(members) if n_classes > 100 else total
    if n_classes <= 100:
        return sum(abs(s) for s in sums.values())
    return sum(abs(s - t) for s in sums.values() for t in sums.values()) / len(sums)


def sample_gradients(model, images, labels, *, of="loss", alone=False, train=True):
    """Per image {name: gradient in numpy float64}."""
    model, found = copy.deepcopy(model).train(train), []
    for i in range(len(images)):
        part = slice(i, i + 1) if alone else slice(None)
        logits = model(images[part])[0 if alone else i]
        scalar = logits.sum() if of == "logits" else F.cross_entropy(logits[None], labels[i : i + 1])
        model.zero_grad()
        scalar.backward()
        found.append({n: p.grad.double().numpy().copy() for n, p in model.named_parameters() if p.grad is not None})
    return found


def gram(rows):
    return np.array([[float((a * b).sum()) for b in rows] for a in rows])


def ntk_condition(model, images):
    gradients = sample_gradients(model, images, None, of="logits")
    rows = [np.concatenate([g.ravel() for name, g in one.items() if "weight" in name]) for one in gradients]
    values = np.linalg.eigvalsh(gram(rows))
    return values.max() / values.min()


def knas(model, images, labels):
    rows = [np.concatenate([g.ravel() for g in one.values()]) for one in sample_gradients(model, images, labels)]
    return gram(rows).mean()


def weight_names(model):
    return [f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def gradsign(model, images, labels):
    gradients = sample_gradients(model, images, labels, alone=True)
    return sum(np.abs(sum(np.sign(one[name]) for one in gradients)).sum() for name in weight_names(model))


def zico(model, images, labels, n_batches=2):
    size, gradients = len(images) // n_batches, []
    for b in range(n_batches):
        part, twin = slice(b * size, (b + 1) * size), copy.deepcopy(model).train()
        F.cross_entropy(twin(images[part]), labels[part]).backward()
        gradients.append({n: p.grad.double().numpy().ravel() for n, p in twin.named_parameters()})
    score = 0.0
    for name in weight_names(model):
        inverse = 0.0
        for values in np.stack([g[name] for g in gradients], axis=1):
            if values.std() > 0:
                inverse += np.abs(values).mean() / values.std()
        score += math.log(inverse)
    return score


def fresh_copy(model):
    """The initialisation of VKDNW, drawn from torch's global generator layer by layer."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            with torch.no_grad():
                module.weight.normal_(0, math.sqrt(2 / fan_in))
                if module.bias is not None:
                    module.bias.zero_()
        elif isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.fill_(1)
                module.bias.fill_(0)
            module.running_mean.zero_()
            module.running_var.fill_(1)
    return model


def fisher_matrix(model, images, parameters):
    """Mean of J^T (diag p - p p^T) J for the first scalars of ``parameters``."""
    total = np.zeros((len(parameters), len(parameters)))
    for image in images:
        logits = model(image[None])[0]
        jacobian = np.zeros((len(logits), len(parameters)))
        for k in range(len(logits)):
            for j, parameter in enumerate(parameters):
                gradient = torch.autograd.grad(logits[k], parameter, retain_graph=True)[0]
                jacobian[k, j] = gradient.flatten()[0].item()
        p = np.exp(logits.detach().double().numpy())
        p = 0.95 * p / p.sum() + 0.05 / len(p)
        total += jacobian.T @ (np.diag(p) - np.outer(p, p)) @ jacobian
    return total / len(images)


def decile_entropy(matrix):
    values = np.linalg.svd(matrix)[1]
    deciles = np.quantile(values, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    shares = deciles / deciles.sum()
    return -sum(s * math.log(s) for s in shares if s > 0)
