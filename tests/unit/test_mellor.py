"""The authors' reading: classes named ReLU, containers counted again, what no gradient reaches left out."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from reference.slow_kernel import slow_kernel, slow_network_kernel
from reference.tiny import CellNetwork, ReLUConvBN, images, set_weights, wave
from torch import nn

import naswot
from naswot.errors import ModelError, NoActivationError
from naswot.options import PassOptions
from naswot.passes import Passes
from naswot.scoring import AGREEMENT
from naswot.types import Batch

IMAGES = images()


def head_kernel(model):
    """K_H of the one ReLU outside any ReLUConvBN."""
    read = []
    model = copy.deepcopy(model).train()
    model.head[1].register_forward_pre_hook(lambda module, args: read.append(args[0].detach().clone()))
    model(IMAGES)
    return slow_kernel([read[0].reshape(len(IMAGES), -1).numpy()], [0.0])


@pytest.mark.parametrize("inplace", [False, True])
def test_containers_count_their_input_once_more(inplace):
    model = set_weights(CellNetwork(inplace=False))
    k_all = slow_network_kernel(copy.deepcopy(model), IMAGES)
    assert naswot.hamming_kernel(model, IMAGES).tolist() == k_all.tolist()
    expected = 2 * k_all - head_kernel(model)
    if inplace:  # in this cell no two edges share an input that is overwritten
        model.edge_b[0], model.edge_c[0].inplace, model.head[1].inplace = nn.ReLU(), True, True
    assert naswot.hamming_kernel(model, IMAGES, taps="mellor").tolist() == expected.tolist()


def test_nasbench201_network_doubles_all_but_the_head():
    space = naswot.get_space("nasbench201")
    torch.manual_seed(0)
    model = space.build((3, 2, 0, 1, 4, 3), width=4, n_cells=1)
    twin = copy.deepcopy(model)
    head = []
    twin.last[1].register_forward_pre_hook(lambda module, args: head.append(args[0].detach().clone()))
    k_all = slow_network_kernel(twin, IMAGES)
    k_head = slow_kernel([head[0].reshape(len(IMAGES), -1).numpy()], [0.0])
    assert naswot.hamming_kernel(model, IMAGES).tolist() == k_all.tolist()
    assert naswot.hamming_kernel(model, IMAGES, taps="mellor").tolist() == (2 * k_all - k_head).tolist()


class Branches(nn.Module):
    """A live branch, one multiplied by zero, one whose result is thrown away."""

    def __init__(self, zeroed: bool, unused: bool) -> None:
        super().__init__()
        self.stem, self.live, self.zeroed, self.unused = nn.Linear(10, 7), nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.flags = zeroed, unused

    def forward(self, x):
        x = self.stem(x)
        y = self.live(x)
        if self.flags[0]:
            y = y + self.zeroed(x) * 0.0
        if self.flags[1]:
            self.unused(x)
        return y


@pytest.mark.parametrize(("zeroed", "unused", "times"), [(False, False, 1), (True, False, 2), (False, True, 1)])
def test_zeroed_branches_count_and_disconnected_ones_do_not(zeroed, unused, times):
    model, x = set_weights(Branches(zeroed, unused)), wave(6, 10)
    once = slow_kernel([model.stem(x).detach().numpy()], [0.0])
    assert naswot.hamming_kernel(model, x, taps="mellor").tolist() == (times * once).tolist()
    if unused:
        assert naswot.hamming_kernel(model, x).tolist() == (2 * once).tolist()


def test_functional_relu_is_not_seen():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.relu = nn.Linear(10, 7), nn.ReLU()

        def forward(self, x):
            return self.relu(F.relu(self.linear(x)) - 0.1)

    model, x = set_weights(Both()), wave(6, 10)
    assert naswot.explain(model, x, taps="mellor").n_units == 7
    assert naswot.explain(model, x).n_units == 14


def test_a_reused_module_counts_per_call():
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(10, 7), relu, nn.Linear(7, 5), relu)
    layers = naswot.explain(model, wave(6, 10), taps="mellor").layers
    assert [(layer.module, layer.function, layer.n_units) for layer in layers] == [("1", "ReLU", 7), ("1", "ReLU", 5)]


def test_names_that_contain_relu_count():
    model = nn.Sequential(nn.Linear(10, 7), nn.LeakyReLU(), nn.ReLU6(), nn.PReLU(), nn.GELU())
    functions = [layer.function for layer in naswot.explain(model, wave(6, 10), taps="mellor").layers]
    assert functions == ["LeakyReLU", "ReLU6", "PReLU"]


def test_no_class_named_relu():
    model = nn.Sequential(nn.Linear(10, 7), nn.GELU())
    with pytest.raises(NoActivationError, match=r"class name contains 'ReLU'.*none; taps='all' sees functional"):
        naswot.score(model, wave(6, 10), taps="mellor")


def test_failing_model():
    with pytest.raises(ModelError, match="raised RuntimeError") as caught:
        naswot.score(nn.Sequential(nn.Linear(3, 7), nn.ReLU()), wave(6, 10), taps="mellor")
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_first_layer_in_place_and_passes_counted():
    model, x = nn.Sequential(ReLUConvBN(3, 4, inplace=True), nn.Flatten(), nn.Linear(256, 3)), images()
    before = x.clone()
    with Passes(model, Batch(x), options=PassOptions(taps="mellor")) as passes:
        passes.observe([AGREEMENT])
        assert (passes.n_forwards, passes.n_backwards) == (2, 1)
        assert passes.n_calls == 2
    assert torch.equal(x, before)
    assert all(p.grad is None for p in model.parameters())
