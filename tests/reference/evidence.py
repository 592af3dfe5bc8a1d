"""Evidence of labels by the book: densities of normal distributions, one class after the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import multivariate_normal

Floats = NDArray[np.float64]


def agreement(values: Floats) -> Floats:
    """Share of units on whose sign two images agree, (n, n), from pre-activations (n, D)."""
    n, d = values.shape
    return np.array([[sum((values[i] > 0) == (values[j] > 0)) / d for j in range(n)] for i in range(n)])


def covariance(kernel: Floats, noise: float) -> Floats:
    """G: the kernel between deviations from the mean over images, of mean variance 1, and the noise."""
    n = len(kernel)
    centred = kernel - kernel.mean(0)[None, :] - kernel.mean(1)[:, None] + kernel.mean()
    shape: Floats = centred * n / np.trace(centred) + noise * np.eye(n)
    return shape


def columns(labels: list[int]) -> list[Floats]:
    """For each class, one where an image is of it, less the mean over images."""
    found = [np.array([float(label == kind) for label in labels]) for kind in sorted(set(labels))]
    return [column - column.mean() for column in found]


def log_likelihood(shape: Floats, labels: list[int], variance: float) -> float:
    """Of all columns, each drawn from a normal distribution of covariance ``variance * shape``."""
    process = multivariate_normal(np.zeros(len(shape)), variance * shape)
    return float(sum(process.logpdf(column) for column in columns(labels)))


def likeliest_variance(shape: Floats, labels: list[int]) -> float:
    """Where the derivative of the log likelihood in the variance is 0."""
    squares = [float(column @ np.linalg.inv(shape) @ column) for column in columns(labels)]
    return sum(squares) / (len(shape) * len(squares))


def evidence(kernel: Floats, labels: list[int], noise: float = 0.1) -> float:
    """Log marginal likelihood for each image and class, over that of white noise, both of their likeliest variance."""
    shape, white = covariance(kernel, noise), np.eye(len(kernel))
    gain = log_likelihood(shape, labels, likeliest_variance(shape, labels))
    gain -= log_likelihood(white, labels, likeliest_variance(white, labels))
    return gain / (len(kernel) * len(columns(labels)))
