"""The NASNet-like families of Network Design Spaces (NDS), one benchmark for each official file.

Paper: Radosavovic et al., ICCV 2019, arXiv:1905.13214; files of github.com/facebookresearch/nds. ``flops`` are the
published ones: MACs, where a dilated convolution counts as many places as it would have without dilation; plus one for
each number that passes a ReLU or the global pooling; plus the area of the window for each number that a pooling gives;
plus one for each class.
"""

from __future__ import annotations

from pathlib import Path

from bench_adapters._nds import REFERENCE, read_nds
from naswot.benchmark import Table, register_benchmark
from naswot.spaces.nds_cells import NDSDARTS, NDSENAS, NDSPNAS, NDSAmoeba, NDSNASNet

_FOLDERS = ("nds", "nds/original")


@register_benchmark(space="nds_darts", files=("DARTS.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_darts(path: Path) -> Table:
    """NDS DARTS: sampled cells, widths and depths, trained on CIFAR-10 for 100 epochs."""
    return read_nds(path, NDSDARTS().from_description)


@register_benchmark(space="nds_darts", files=("DARTS_in.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_darts_in(path: Path) -> Table:
    """NDS DARTS on ImageNet: 121 cells, widths and depths, trained for 50 epochs."""
    return read_nds(path, NDSDARTS().from_description)


@register_benchmark(space="nds_darts", files=("DARTS_fix-w-d.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_darts_fix_w_d(path: Path) -> Table:
    """NDS DARTS on CIFAR-10, all of one width and depth."""
    return read_nds(path, NDSDARTS().from_description)


@register_benchmark(space="nds_darts", files=("DARTS_fix-w-d_in.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_darts_fix_w_d_in(path: Path) -> Table:
    """NDS DARTS on ImageNet, 499 of width 32 and depth 22, trained for 5 epochs only."""
    return read_nds(path, NDSDARTS().from_description)


@register_benchmark(space="nds_darts", files=("DARTS_lr-wd.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_darts_lr_wd(path: Path) -> Table:
    """NDS DARTS on CIFAR-10, each training with a random learning rate and weight decay."""
    return read_nds(path, NDSDARTS().from_description)


@register_benchmark(space="nds_darts", files=("DARTS_lr-wd_in.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_darts_lr_wd_in(path: Path) -> Table:
    """NDS DARTS on ImageNet: 515 networks, each with a random learning rate and weight decay."""
    return read_nds(path, NDSDARTS().from_description)


@register_benchmark(space="nds_enas", files=("ENAS.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_enas(path: Path) -> Table:
    """NDS ENAS: sampled cells, widths and depths, trained on CIFAR-10 for 100 epochs."""
    return read_nds(path, NDSENAS().from_description)


@register_benchmark(space="nds_enas", files=("ENAS_in.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_enas_in(path: Path) -> Table:
    """NDS ENAS on ImageNet: 117 cells, widths and depths, trained for 50 epochs."""
    return read_nds(path, NDSENAS().from_description)


@register_benchmark(space="nds_enas", files=("ENAS_fix-w-d.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_enas_fix_w_d(path: Path) -> Table:
    """NDS ENAS on CIFAR-10, all of one width and depth."""
    return read_nds(path, NDSENAS().from_description)


@register_benchmark(space="nds_nasnet", files=("NASNet.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_nasnet(path: Path) -> Table:
    """NDS NASNet: sampled cells, widths and depths, trained on CIFAR-10 for 100 epochs."""
    return read_nds(path, NDSNASNet().from_description)


@register_benchmark(space="nds_nasnet", files=("NASNet_in.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_nasnet_in(path: Path) -> Table:
    """NDS NASNet on ImageNet: 122 cells, widths and depths, trained for 50 epochs."""
    return read_nds(path, NDSNASNet().from_description)


@register_benchmark(space="nds_pnas", files=("PNAS.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_pnas(path: Path) -> Table:
    """NDS PNAS: sampled cells, widths and depths, trained on CIFAR-10 for 100 epochs."""
    return read_nds(path, NDSPNAS().from_description)


@register_benchmark(space="nds_pnas", files=("PNAS_in.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_pnas_in(path: Path) -> Table:
    """NDS PNAS on ImageNet: 119 cells, widths and depths, trained for 50 epochs."""
    return read_nds(path, NDSPNAS().from_description)


@register_benchmark(space="nds_pnas", files=("PNAS_fix-w-d.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_pnas_fix_w_d(path: Path) -> Table:
    """NDS PNAS on CIFAR-10, all of one width and depth."""
    return read_nds(path, NDSPNAS().from_description)


@register_benchmark(space="nds_amoeba", files=("Amoeba.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_amoeba(path: Path) -> Table:
    """NDS Amoeba: sampled cells, widths and depths, trained on CIFAR-10 for 100 epochs."""
    return read_nds(path, NDSAmoeba().from_description)


@register_benchmark(space="nds_amoeba", files=("Amoeba_in.json",), folders=_FOLDERS, reference=REFERENCE)
def nds_amoeba_in(path: Path) -> Table:
    """NDS Amoeba on ImageNet: 124 cells, widths and depths, trained for 50 epochs."""
    return read_nds(path, NDSAmoeba().from_description)
