"""The ResNet-like families of Network Design Spaces (NDS), one benchmark for each official file.

Paper: Radosavovic et al., ICCV 2019, arXiv:1905.13214; files of github.com/facebookresearch/nds. ``flops`` are the
published ones: MACs, plus the bias of the classifier, plus five for each number that is normalised.
"""

from __future__ import annotations

from pathlib import Path

from bench_adapters._nds import REFERENCE, Description, read_nds
from naswot.benchmark import Table, register_benchmark
from naswot.spaces.nds_anynet import (
    AnyNet,
    NDSResNet,
    NDSResNetIN,
    NDSResNeXtA,
    NDSResNeXtB,
    NDSVanilla,
    NDSVanillaIN,
)
from naswot.types import Genotype

_FOLDERS = ("nds", "nds/original")
_BLOCKS = {"plain": "double_plain_block", "basic": "res_basic_block", "bottleneck": "res_bottleneck_block"}


def _read(path: Path, space: AnyNet, stem: str) -> Table:
    return read_nds(path, lambda net: _genotype(net, space, stem))


def _genotype(net: Description, space: AnyNet, stem: str) -> Genotype:
    """Genotype of the field ``net``, whose lists begin with the stem; a ValueError if it is none of the space."""
    _, stride, stem_widths = space.stems[stem]
    (stem_depth, *depths), (stem_width, *widths), (*strides,) = net["ds"], net["ws"], net["ss"]
    found = net["block_type"], stem_depth, strides
    wanted = _BLOCKS[space.block], 1, [stride, 1] + [2] * (space.n_stages - 1)
    if found != wanted:
        raise ValueError(f"expected {wanted} as block type, depth of the stem and strides, but got {found}")
    if stem_width not in stem_widths:
        raise ValueError(f"the stem has {stem_width} channels instead of {stem_widths}")
    stages = [f"d{depth}w{width}" for depth, width in zip(depths, widths, strict=True)]
    if space.block == "bottleneck":
        inner = zip(stages, net["bot_muls"][1:], net["num_gs"][1:], strict=True)
        stages = [f"{stage}r{float(ratio)}g{groups}" for stage, ratio, groups in inner]
    searched = [f"s{stem_width}"] if len(stem_widths) > 1 else []
    return space.parse("-".join(searched + stages))


@register_benchmark(space="nds_vanilla", files=("Vanilla.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_vanilla(path: Path) -> Table:
    """NDS Vanilla: sampled networks without shortcuts, trained on CIFAR-10."""
    return _read(path, NDSVanilla(), "cifar")


@register_benchmark(space="nds_vanilla", files=("Vanilla_reruns.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_vanilla_reruns(path: Path) -> Table:
    """NDS Vanilla, re-runs: a top and a middling network, trained 100 times each on CIFAR-10."""
    return _read(path, NDSVanilla(), "cifar")


@register_benchmark(space="nds_vanilla", files=("Vanilla_lr-wd.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_vanilla_lr_wd(path: Path) -> Table:
    """NDS Vanilla on CIFAR-10, each training with a random learning rate and weight decay."""
    return _read(path, NDSVanilla(), "cifar")


@register_benchmark(space="nds_vanilla_in", files=("Vanilla_lr-wd_in.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_vanilla_lr_wd_in(path: Path) -> Table:
    """NDS Vanilla on ImageNet: 500 networks, each with a random learning rate and weight decay."""
    return _read(path, NDSVanillaIN(), "imagenet")


@register_benchmark(space="nds_resnet", files=("ResNet.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_resnet(path: Path) -> Table:
    """NDS ResNet: sampled networks of residual basic blocks, trained on CIFAR-10."""
    return _read(path, NDSResNet(), "cifar")


@register_benchmark(space="nds_resnet", files=("ResNet_reruns.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_resnet_reruns(path: Path) -> Table:
    """NDS ResNet, re-runs: a top and a middling network, trained 100 times each on CIFAR-10."""
    return _read(path, NDSResNet(), "cifar")


@register_benchmark(space="nds_resnet", files=("ResNet_lr-wd.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_resnet_lr_wd(path: Path) -> Table:
    """NDS ResNet on CIFAR-10, each training with a random learning rate and weight decay."""
    return _read(path, NDSResNet(), "cifar")


@register_benchmark(space="nds_resnet_in", files=("ResNet_lr-wd_in.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_resnet_lr_wd_in(path: Path) -> Table:
    """NDS ResNet on ImageNet: 494 networks, each with a random learning rate and weight decay."""
    return _read(path, NDSResNetIN(), "imagenet")


@register_benchmark(space="nds_resnext_a", files=("ResNeXt-A.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_resnext_a(path: Path) -> Table:
    """NDS ResNeXt-A: sampled networks of narrow bottleneck blocks, trained on CIFAR-10."""
    return _read(path, NDSResNeXtA(), "cifar")


@register_benchmark(space="nds_resnext_a", files=("ResNeXt-A_in.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_resnext_a_in(path: Path) -> Table:
    """NDS ResNeXt-A on ImageNet: 130 networks of narrow bottleneck blocks, trained for 50 epochs."""
    return _read(path, NDSResNeXtA(), "imagenet")


@register_benchmark(space="nds_resnext_b", files=("ResNeXt-B.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_resnext_b(path: Path) -> Table:
    """NDS ResNeXt-B: sampled networks of wide bottleneck blocks, trained on CIFAR-10."""
    return _read(path, NDSResNeXtB(), "cifar")


@register_benchmark(space="nds_resnext_b", files=("ResNeXt-B_in.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_resnext_b_in(path: Path) -> Table:
    """NDS ResNeXt-B on ImageNet: 164 networks of wide bottleneck blocks, trained for 50 epochs."""
    return _read(path, NDSResNeXtB(), "imagenet")
