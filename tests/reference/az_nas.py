"""Slow twins of the components of AZ-NAS, from the paper: features handed over by the network, loops over positions."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from torch import nn


class ChainNetwork(nn.Module):
    """Stem, residual block, halving block, linear head; ``features`` are what the paper would look at."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.residual = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.norm = nn.BatchNorm2d(4)
        self.halving = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.classifier = nn.Linear(6, 5)

    def features(self, x):
        first = self.stem(x)
        second = self.norm(first + self.residual(first))
        third = self.halving(second.clone())
        return [first, second, third]

    def forward(self, x):
        x = self.stem(x)
        x = self.norm(x + self.residual(x))
        return self.classifier(self.halving(x).mean(dim=(2, 3)))


def slow_entropy(feature):
    """Entropy of the normalised eigenvalues of the (C, C) covariance of a (N, C, H, W) feature."""
    values = feature.detach().double().numpy()
    n, c, h, w = values.shape
    vectors = [values[i, :, y, x] for i in range(n) for y in range(h) for x in range(w)]
    mean = sum(vectors) / len(vectors)
    covariance = np.zeros((c, c))
    for vector in vectors:
        covariance += np.outer(vector - mean, vector - mean) / len(vectors)
    eigenvalues = np.linalg.eigvalsh(covariance)
    shares = eigenvalues / eigenvalues.sum()
    return -sum(share * math.log(share) for share in shares if share > 0)


def slow_expressivity(model, images):
    return sum(slow_entropy(feature) for feature in model.features(images))


def slow_progressivity(model, images):
    entropies = [slow_entropy(feature) for feature in model.features(images)]
    return min(b - a for a, b in pairwise(entropies))


def slow_trainability(model, images):
    """Draws its signs from the global generator, block by block."""
    features = model.features(images.clone().requires_grad_())
    scores = []
    for before, after in pairwise(features):
        signs = (torch.randint(2, after.shape) * 2 - 1).to(after)
        sent = torch.autograd.grad(after, before, signs, retain_graph=True)[0].double().numpy()
        n, c_out, h, w = after.shape
        stride = before.shape[2] // h
        jacobian = np.zeros((before.shape[1] * stride**2, c_out))
        for i in range(n):
            for y in range(h):
                for x in range(w):
                    window = sent[i, :, y * stride : (y + 1) * stride, x * stride : (x + 1) * stride]
                    jacobian += np.outer(window.reshape(-1), signs[i, :, y, x].double().numpy()) / (n * h * w)
        s = np.linalg.svd(jacobian, compute_uv=False).max()
        scores.append(-s - 1 / s + 2)
    return sum(scores) / len(scores)
