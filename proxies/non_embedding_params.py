r"""Parameters outside the embeddings: what ranks autoregressive language models by perplexity.

Paper: Javaheripi et al., LiteTransformerSearch: Training-free Neural Architecture Search for Efficient Language Models,
NeurIPS 2022, arXiv:2203.02094.
Original: microsoft/archai, ``NonEmbeddingParamsProxy``.

Tied weights count by where they are: a matrix that an embedding shares with the output layer is an embedding and does
not count; any other shared parameter counts once. Positions learnt in an ``nn.Embedding`` are embeddings, those in a
bare parameter are not. Differences from the original: frozen parameters count, as in ``params``; ``nn.EmbeddingBag`` is
an embedding; a table shared by two embeddings is taken off once (original: twice).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from naswot.observers import Seen
from naswot.passes import Passes
from naswot.proxy import register_proxy


@register_proxy(
    reference="Javaheripi et al., LiteTransformerSearch, NeurIPS 2022, arXiv:2203.02094",
    invariant_to=("inputs", "weights", "order"),
    fits="language models; elsewhere the number of parameters",
)
def non_embedding_params(seen: Seen, passes: Passes) -> Tensor:
    """Number of parameters that no embedding holds, shared ones counted once, frozen ones included.

    Returns:
        () float64, a count.
    """
    embeddings = {
        parameter
        for module in passes.model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        for parameter in module.parameters()
    }
    count = sum(parameter.numel() for parameter in passes.model.parameters() if parameter not in embeddings)
    return torch.tensor(count, dtype=torch.float64)
