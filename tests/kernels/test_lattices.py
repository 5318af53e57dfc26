"""Kernels that keep a value for every lag refuse what no memory holds, before they try."""

from __future__ import annotations

import pytest
import torch

from omniconv.kernels import Bumps, Free, KernelFactory, Multiscale, Table


@pytest.mark.parametrize("kernel", [Table, Free, Multiscale, Bumps])
def test_lattices_that_no_memory_holds_are_refused(kernel: KernelFactory) -> None:
    with pytest.raises(ValueError, match=r"`reach` on 24 axes makes a lattice of 2\.8e\+11 values"):
        kernel(24, 1, reach=1)


def test_channels_count() -> None:
    Table(1, 2, reach=10, device="meta")
    with pytest.raises(ValueError, match="`reach` on 1 axes"):
        Table(1, 2**24, reach=10, device="meta")


def test_the_scale_of_many_free_taps_is_found_from_some() -> None:
    torch.manual_seed(0)
    kernel = Free(1, 3, reach=2**20, smoothing=3)
    assert kernel.heights().square().mean().item() == pytest.approx(1.0, abs=0.01)
