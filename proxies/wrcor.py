r"""WRCor: log-determinant of the weighted correlations between the images' responses, activations and gradients.

Paper: Jing et al., Zero-Shot Neural Architecture Search with Weighted Response Correlation, Neurocomputing 2025,
arXiv:2507.08841, Eq. 10 and 11.
Original: kunjing96/ZSNAS-WRCor, ``act_grad_cor_weighted``.

Responses are what an activation reads and the loss's gradient of it. Differences: every tapped activation call counts
(original: ReLU modules of the cells and, on NAS-Bench-201, of the last activation; a stem counts with the first
cell here); pre-activations are read before an activation in place overwrites them (original: after); the gradient is
that of the tensor, so two activations that read one tensor share it (original: each its own part); one batch is not
split, where the original multiplies the log-determinants of the splits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from naswot.activations import FunctionTap
from naswot.calls import ActivationCall, CallReader
from naswot.errors import InputError, NoActivationError
from naswot.kernels import log_determinant
from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy
from proxies._copies import copy_with_graph, loss_of

_CONTAINERS = ("cells", "layers", "block_list")


@register_proxy(
    reference="Jing et al., Zero-Shot NAS with Weighted Response Correlation, Neurocomputing 2025, arXiv:2507.08841",
    needs=("scratch", "targets"),
    minimum_images=2,
    fits="any model with activations",
    own_cost="1 forward and backward",
)
def wrcor(seen: Seen, passes: Passes, *, blocks: str | None = None) -> Tensor:
    r"""Log-determinant of the summed |correlations| between images of activations and gradients, block l times 2^l.

    .. math:: s = \log |\det K|, \quad K = \sum_l 2^l \sum_{i \in l} (|C^A_{l,i}| + |C^G_{l,i}|)

    C is the (N, N) correlation over the units of activation call i. Block l counts from 0: the number of blocks that
    have run before, so that what follows the last one weighs most. A response that is constant over the units of some
    image has no correlation and is left out, as in the code.

    Options:
        blocks: dotted name of the ``nn.ModuleList`` or ``nn.Sequential`` of blocks, such as ``"encoder.layer"``; by
            default the model's ``cells``, ``layers`` or ``block_list``, as in the code, and in models without them
            every activation call is a block, of which there may be so many that the first ones weigh nothing.
    Returns:
        () float64 in nats; -inf when K is singular; undefined when no response has a correlation.
    References:
        Jing et al., Neurocomputing 2025, Eq. 10 and 11, arXiv:2507.08841.
    """
    sums = _correlations(passes, blocks)
    if not sums:
        return passes.undefined("every response is constant over the units of some image: no correlation exists")
    top = max(sums)  # 2^top is taken out of the matrix, which deep networks would overflow
    kernel = torch.stack([matrix * 2.0 ** (block - top) for block, matrix in sums.items()]).sum(dim=0)
    determinant = log_determinant((kernel + kernel.T) / 2)
    if determinant.reason is not None:
        passes.remark(f"the summed correlations are singular: rank {determinant.rank} of {len(kernel)} images")
    return torch.tensor(determinant.value + len(kernel) * top * math.log(2), dtype=torch.float64)


def _correlations(passes: Passes, container: str | None) -> dict[int, Tensor]:
    """Sum of the |correlations| of a block's responses by the block's number."""
    sums: dict[int, Tensor] = {}
    n, dim = passes.batch.n, passes.options.batch_dim
    clock = _Clock()

    def add(block: int, response: Tensor) -> None:
        with torch.no_grad():
            matrix = _correlation(response.detach().movedim(dim, 0).reshape(n, -1).to(torch.float64))
        if bool(matrix.isfinite().all()):
            sums[block] = sums[block] + matrix if block in sums else matrix

    def listen(call: ActivationCall) -> None:
        block = clock.block
        add(block, call.preactivation)
        if call.preactivation.requires_grad:
            call.preactivation.register_hook(lambda gradient: add(block, gradient))
        clock.tick_call()

    with copy_with_graph(passes) as model, clock.counting(_blocks(model, container)):
        reader = CallReader(n, dim, listen)
        with FunctionTap(model, reader, smooth=passes.options.taps == "all"):
            result = passes.own_forward(model, passes.batch.inputs)
        if reader.n_calls == 0:
            raise NoActivationError("the forward pass met no activation whose responses could be correlated")
        loss = loss_of(passes, result)
        if not loss.requires_grad:
            raise InputError("the loss depends on no parameter, so the responses have no gradients to correlate")
        passes.n_backwards += 1
        loss.backward()
    return sums


def _correlation(rows: Tensor) -> Tensor:
    """|Pearson correlation| between the rows of (N, D) float64, (N, N); NaN where a row is constant."""
    centred = rows - rows.mean(dim=1, keepdim=True)
    constant = (rows == rows[:, :1]).all(dim=1, keepdim=True)  # whose centred rest is rounding
    centred = (centred / centred.norm(dim=1, keepdim=True)).masked_fill(constant, math.nan)
    correlations: Tensor = centred @ centred.T
    return correlations.abs()


class _Clock:
    """Counts the blocks that have run: those of a container or, without one, the activation calls."""

    def __init__(self) -> None:
        self.block = 0
        self._by_call = True

    def tick_call(self) -> None:
        """An activation call has been seen."""
        self.block += self._by_call

    @contextmanager
    def counting(self, blocks: list[nn.Module]) -> Iterator[None]:
        """Count these blocks as they end."""
        self._by_call = not blocks
        handles = [block.register_forward_hook(self._tick()) for block in blocks]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _tick(self) -> Callable[..., None]:
        def tick(module: nn.Module, inputs: object, output: object) -> None:
            self.block += 1

        return tick


def _blocks(model: nn.Module, container: str | None) -> list[nn.Module]:
    if container is not None:
        try:
            found = model.get_submodule(container)
        except AttributeError as error:
            raise InputError(f"the model {type(model).__name__} has no module {container!r} of blocks") from error
        return list(dict.fromkeys(found.children()))
    for name in _CONTAINERS:
        modules = getattr(model, name, None)
        if isinstance(modules, nn.ModuleList | nn.Sequential) and len(modules) > 1:
            return list(dict.fromkeys(modules))
    return []
