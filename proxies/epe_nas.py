"""EPE-NAS: how much the input Jacobians of images of one class resemble each other, class by class.

Paper: Lopes, Alirezazadeh and Alexandre, EPE-NAS: Efficient Performance Estimation Without Training for Neural
Architecture Search, ICANN 2021, arXiv:2102.08099. Original code: VascoLopes/EPE-NAS ``search.py``, taken over by NASLib
as ``epe_nas``. Differences: float64 throughout; a class with one image is left out, where theirs adds log(1 + k) = 1e-5
for it if there are at most 100 classes (and leaves it out, too, if there are more); a batch in which no class has two
images gives a status.
"""

from __future__ import annotations

import torch
from torch import Tensor

from naswot.errors import OptionError
from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._jacobian import correlation, why_no_correlation

_MANY = 100
"""Above this number of classes the classes are compared with each other."""


@register_proxy(
    reference="Lopes et al., EPE-NAS: Efficient Performance Estimation Without Training for NAS, ICANN 2021, "
    "arXiv:2102.08099",
    needs=("input_jacobian", "outputs", "targets"),
    minimum_images=2,
    fits="models whose inputs are real numbers; several images of each class",
)
def epe_nas(seen: Seen, passes: Passes, *, k: float = 1e-5) -> Tensor:
    r"""Sum over classes of the log-correlations between input Jacobians of images of one class.

    .. math:: e_c = \sum_{i, j \in c} \log(|\mathrm{corr}(J)_{ij}| + k), \quad
        s = \sum_c |e_c| \text{ if } K \le 100, \text{ else }
        \frac{1}{C} \sum_{c, c'} \left| \frac{e_c}{n_c} - \frac{e_{c'}}{n_{c'}} \right|

    K is the number of logits, C that of the classes with at least two images in the batch, n_c the images of one.

    Options:
        k: keeps the logarithm finite for uncorrelated images.
    Returns:
        () float64 in nats; undefined where no class (for K > 100: fewer than two) has two images, or an image's
        Jacobian is constant over its entries.
    Raises:
        OptionError: if ``k`` is not positive.
    References:
        Lopes et al., ICANN 2021, arXiv:2102.08099.
    """
    if k <= 0:
        raise OptionError(f"expected k above 0, but got {k}")
    rows = passes.input_jacobian().double()
    reason = why_no_correlation(rows)
    if reason is not None:
        return passes.undefined(reason)
    targets = passes.batch.targets
    assert targets is not None
    groups = [rows[targets == label] for label in targets.unique()]
    groups = [group for group in groups if len(group) > 1]
    many = passes.outputs().shape[-1] > _MANY
    needed = 2 if many else 1
    if len(groups) < needed:
        return passes.undefined(f"only {len(groups)} classes have two images in the batch, of {needed} needed")
    sums = torch.stack([(correlation(group).abs() + k).log().sum() for group in groups])
    if not many:
        return sums.abs().sum()
    means = sums / torch.tensor([len(group) for group in groups], device=sums.device)
    return (means[:, None] - means[None, :]).abs().sum() / len(groups)
