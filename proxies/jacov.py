"""jacov (jacob_cov): how much the input Jacobians of different images resemble each other.

Papers: the first version of Mellor et al. (arXiv:2006.04647v1, 2020), and Abdelfattah et al., Zero-Cost Proxies for
Lightweight NAS, ICLR 2021, arXiv:2101.08134. Original code: ``jacob_cov.py`` of SamsungLabs/zero-cost-nas, in NASLib
``jacov``. Differences: float64 throughout; eigenvalues of a symmetric solver instead of a general one; an
image whose Jacobian is constant gives a status, not NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from naswot.errors import OptionError
from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._jacobian import correlation, why_no_correlation


@register_proxy(
    reference="Mellor et al., Neural Architecture Search without Training, first version, 2020, arXiv:2006.04647v1",
    needs=("input_jacobian",),
    minimum_images=2,
    fits="models whose inputs are real numbers",
)
def jacov(seen: Seen, passes: Passes, *, k: float = 1e-5) -> Tensor:
    r"""Divergence of the input Jacobians' correlation matrix from the identity, with the sign turned.

    .. math:: s = -\sum_i \left(\log(\lambda_i + k) + \frac{1}{\lambda_i + k}\right),
        \quad \lambda = \mathrm{eig}(\mathrm{corr}(J)), \quad J_n = \nabla_{x_n} \sum_{m, c} f_c(x_m)

    Batch statistics in BatchNorm. Largest, at about -N, for uncorrelated Jacobians; scores at different N do not
    compare.

    Options:
        k: keeps the terms finite for two images with the same Jacobian.
    Returns:
        () float64, without unit; undefined where an image's Jacobian is constant over its entries (all zero, say).
    Raises:
        OptionError: if ``k`` is not positive.
    References:
        Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021, arXiv:2101.08134 (the constant k, and the
        name jacob_cov).
    """
    if k <= 0:
        raise OptionError(f"expected k above 0, but got {k}")
    rows = passes.input_jacobian().double()
    reason = why_no_correlation(rows)
    if reason is not None:
        return passes.undefined(reason)
    shifted: Tensor = torch.linalg.eigvalsh(correlation(rows)) + k
    return -(shifted.log() + 1 / shifted).sum()
