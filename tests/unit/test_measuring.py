"""What is asked of several proxies at once, and how their errors are told."""

from __future__ import annotations

import warnings

import pytest
import torch
from reference.tiny import BATCH, IMAGES, mlp, plain_convnet
from torch import nn

import naswot
from naswot.errors import InputError, OptionError, RegistrationError
from naswot.measuring import run_proxies
from naswot.proxy import Proxy, get_proxy, register_proxy
from naswot.types import Batch


def test_one_proxy_may_be_given_alone():
    model = plain_convnet()
    by_name = naswot.measure(model, BATCH, "zen")
    assert by_name == naswot.measure(model, BATCH, ["zen"]) == naswot.measure(model, BATCH, get_proxy("zen"))


def test_two_scores_of_one_name_are_refused():
    two = [get_proxy("zen", repeats=2), get_proxy("zen", repeats=4)]
    with pytest.raises(OptionError, match="zen is asked for 2 times"):
        naswot.measure(plain_convnet(), BATCH, two)


def test_errors_name_the_proxy_once():
    words = Batch(torch.zeros(4, 6, dtype=torch.int64), torch.arange(4) % 2)
    model = nn.Sequential(nn.Embedding(5, 8), nn.Flatten(), nn.Linear(48, 3))
    with pytest.raises(InputError, match=r"^jacov: the inputs are integers"):
        naswot.measure(model, words, ["params", "jacov"])
    with pytest.raises(InputError, match=r"^dextr(?!: dextr)"):
        naswot.measure(mlp(), Batch(torch.randn(4, 10)), ["dextr"])


@pytest.mark.parametrize("labels", [[0, 5, 1, 1, 1, 1], [0, -100, 1, 1, 1, 1]])
@pytest.mark.parametrize("name", ["snip", "gradsign", "zico", "wrcor", "grasp"])
def test_labels_that_are_no_classes_are_refused(name, labels):
    with pytest.raises(InputError, match=r"the labels go from -?\d+ to -?\d+, but the model has 5 logits"):
        naswot.measure(plain_convnet(), Batch(IMAGES, torch.tensor(labels)), [name])


def test_a_value_with_a_graph_is_taken_without_a_warning():
    proxy = Proxy("raw", lambda seen, passes: passes.outputs().sum(), {}, ("outputs", "gradients"), True, "test")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_proxies(plain_convnet(), BATCH, [proxy])


def test_batches_of_the_wrong_kind_are_explained():
    with pytest.raises(InputError, match=r"naswot\.data\.as_batch"):
        Batch(torch.utils.data.DataLoader([1, 2]))
    with pytest.raises(InputError, match="targets as a tensor"):
        Batch(IMAGES, [0, 1, 2, 3, 4, 0])


@pytest.mark.parametrize("declared", [{"needs": ("output",)}, {"invariant_to": ("input",)}])
def test_declarations_that_do_not_exist_are_refused(declared):
    with pytest.raises(RegistrationError, match="cannot declare"):
        register_proxy(reference="none", **declared)


def test_options_are_told_with_their_values():
    assert get_proxy("zen").defaults == {"repeats": 32, "n_images": 16, "gamma": 0.01}
    assert get_proxy("zen", repeats=2).defaults["repeats"] == 2
    assert get_proxy("params").defaults == {}
