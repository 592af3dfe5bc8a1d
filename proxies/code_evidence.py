r"""Code evidence: how plausible the labels are under a Gaussian process whose kernel is that of a layer's codes.

The code of an image in one layer of an untrained network says which of its units lie above their threshold; the share
on which two images agree is a kernel. NASWOT takes its log-determinant: the more the codes tell all images apart, the
better. In the marginal likelihood of a Gaussian process the same log-determinant stands with the opposite sign, as the
price of telling everything apart (Occam's factor), beside a term that says how well the kernel fits the labels. So a
layer gains by telling apart what differs in class, and loses by telling apart what does not: noise, for one.

Kernel: Mellor et al., Neural Architecture Search without Training, ICML 2021, arXiv:2006.04647. Marginal likelihood:
Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, Eq. 2.30. Inference with the kernel of the
infinitely wide network was used for architectures by Park et al., 2020, arXiv:2011.06006; here it is the finite
network's, of every layer, and of signs.
"""

from __future__ import annotations

from torch import Tensor

from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._evidence import KERNELS, mean_evidence


@register_proxy(
    reference="this project, 2026, docs/recommended_score.md; kernel of Mellor et al., ICML 2021, arXiv:2006.04647",
    observe={"calls": KERNELS},
    needs=("scratch", "targets"),
    minimum_images=4,
    fits="any classifier with activations, on a batch with several images of a class",
    own_cost="forward and backward of 3 images, shared",
)
def code_evidence(seen: Seen, passes: Passes) -> Tensor:
    r"""Log marginal likelihood of the labels by the kernels of agreeing activation signs, the mean over the layers.

    .. math:: s = \frac{1}{L} \sum_l e(K_l, y)

    The layers are the pre-activations that the output depends on; one that several activations read counts once.
    Batches of 128 images or more are looked at in blocks of 64 or a few more.

    Returns:
        () float64 in nats for each image and class, about 0; undefined where no layer tells two images apart.
    References:
        ``docs/recommended_score.md``; :func:`proxies._evidence.evidence`.
    """
    return mean_evidence(seen["calls"], passes)
