"""Attention made visible: the probabilities of every attention call, and which weights belong to attention.

A ``TorchFunctionMode`` sees attention however it is spelt: ``F.scaled_dot_product_attention`` (timm, transformers with
``sdpa``), whose probabilities are computed in the open instead; ``nn.MultiheadAttention``, whose fused paths it thereby
switches off; and a softmax over the last dimension of four-dimensional scores, or of square three-dimensional ones
(transformers with ``eager``, Swin, attention written by hand). Nothing in the model or its config is changed. Not seen:
kernels of other libraries (flash attention), TorchScript.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from naswot.errors import InputError
from naswot.passes import Passes
from proxies._copies import weight_matrices

Listener = Callable[[Tensor, Tensor], None]
"""Receives the probabilities, (B, H, T, S), and the same numbers as the tensor that the loss depends on."""

_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax, torch.special.softmax)
_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)
_ATTENTION = re.compile("atten|attn", re.IGNORECASE)
_LARGER = re.compile("block|layer|net|model|encoder|decoder|stage|transformer", re.IGNORECASE)


class AttentionTap(TorchFunctionMode):
    """Context in which every attention call hands its probabilities to ``listener``."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener
        self.n_calls = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            return self._multi_head(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return self._scaled_dot_product(*args, **kwargs)
        result = func(*args, **kwargs)
        if func in _SOFTMAX:
            dim = args[1] if len(args) > 1 else kwargs.get("dim")
            square = result.dim() == 3 and result.shape[1] == result.shape[2]
            if dim in (-1, result.dim() - 1) and (result.dim() == 4 or square):
                self._see(result, result)
        return result

    def _see(self, probabilities: Tensor, source: Tensor) -> None:
        self.n_calls += 1
        heads = probabilities if probabilities.dim() == 4 else probabilities.unsqueeze(1)
        with torch._C.DisableTorchFunction():
            self._listener(heads, source)

    def _multi_head(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        call = _MULTI_HEAD.bind(*args, **kwargs)
        call.apply_defaults()
        wanted, averaged = call.arguments["need_weights"], call.arguments["average_attn_weights"]
        call.arguments.update(need_weights=True, average_attn_weights=False)
        output, weights = F.multi_head_attention_forward(*call.args, **call.kwargs)
        assert weights is not None
        # what comes back is a view beside the path to the output; its base lies on that path
        source = weights if weights._base is None else weights._base
        self._see(weights if weights.dim() == 4 else weights.unsqueeze(0), source)
        if not wanted:
            return output, None
        return output, weights.mean(dim=-3) if averaged else weights

    def _scaled_dot_product(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if enable_gqa:  # several heads of queries to one of keys
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
            value = value.repeat_interleave(query.shape[-3] // value.shape[-3], dim=-3)
        scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if attn_mask is not None:
            is_choice = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, -math.inf) if is_choice else scores + attn_mask
        blind = (scores == -math.inf).all(dim=-1, keepdim=True)  # queries that see no key attend to nothing
        probabilities = scores.masked_fill(blind, 0.0).softmax(dim=-1).masked_fill(blind, 0.0)
        self._see(probabilities, probabilities)
        return F.dropout(probabilities, dropout_p) @ value


def no_attention(passes: Passes) -> InputError:
    """The error of a model in which no attention was seen."""
    return InputError(
        f"the model {type(passes.model).__name__} showed no attention probabilities: no nn.MultiheadAttention, no "
        f"scaled_dot_product_attention and no softmax over the keys ran; kernels of other libraries and TorchScript "
        f"cannot be looked into"
    )


def attention_weights(model: nn.Module) -> set[str]:
    """Names of the weight matrices that belong to attention.

    Those of ``nn.MultiheadAttention``, and those of or below a module whose class or attribute is called attention or
    attn and is no larger unit (block, layer, encoder, ...). The root's own name does not count.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    matrices = weight_matrices(model)
    found: set[str] = set()
    for name, module in model.named_modules():
        titles = (name.rpartition(".")[2], type(module).__name__)
        named = bool(name) and any(_ATTENTION.search(title) and not _LARGER.search(title) for title in titles)
        if named or isinstance(module, nn.MultiheadAttention):
            found.update(names[parameter] for parameter in module.parameters())
    return found & set(matrices)
