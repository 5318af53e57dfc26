"""CCNN on series that were sampled at any times."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

import omniconv as oc
from omniconv.supports import Gaussian

F64 = torch.float64


def model(size: int = 20, **options: object) -> oc.CCNN:
    given = {"blocks": 2, "width": 6, "support": partial(Gaussian, width=0.3), "dtype": F64, **options}
    found = oc.CCNN(2, 3, size, **given)  # type: ignore[arg-type]
    found.standardize.set([0.5, -1.0], [2.0, 0.7])
    found(torch.randn(8, 2, size, dtype=F64))  # running statistics that are not those of new layers
    return found.eval()


def random_times(batch: int, samples: int, span: float = 19.0) -> Tensor:
    return torch.rand(batch, samples, dtype=F64).mul(span).sort().values


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("head", ["pool", "last", "dense"])
def test_on_the_reference_grid_it_is_the_network_of_the_grid(causal: bool, head: str) -> None:
    network = model(causal=causal, head=head)
    x, times = torch.randn(3, 2, 20, dtype=F64), torch.arange(20).expand(3, -1)
    torch.testing.assert_close(network(x, times=times), network(x), rtol=0, atol=1e-10)
    network.train()
    torch.testing.assert_close(network(x, times=times), network(x), rtol=0, atol=1e-10)


def test_times_may_be_in_any_unit_that_the_span_is_in() -> None:
    network = model()
    minutes = oc.CCNN(**{**network.arguments, "span": 20 * 15.0}, dtype=F64).eval()  # a sample every 15 minutes
    minutes.load_state_dict(network.state_dict())
    x, times = torch.randn(3, 2, 11, dtype=F64), random_times(3, 11)
    torch.testing.assert_close(minutes(x, times=times * 15 + 1e4), network(x, times=times), rtol=0, atol=1e-8)
    assert minutes.arguments["span"] == minutes.span == 300.0


@pytest.mark.parametrize("head", ["pool", "last", "dense"])
@pytest.mark.parametrize("causal", [False, True])
def test_a_series_has_in_company_the_outputs_that_it_has_alone(head: str, causal: bool) -> None:
    network = model(head=head, causal=causal)
    x, times = torch.randn(3, 2, 14, dtype=F64), random_times(3, 14)
    mask = torch.rand(3, 14) > 0.3
    y = network(torch.where(mask[:, None], x, torch.nan), mask=mask, times=torch.where(mask, times, torch.nan))
    for series in range(3):
        seen = mask[series]
        alone = network(x[series : series + 1, :, seen], times=times[series : series + 1, seen])[0]
        together = y[series][:, seen] if head == "dense" else y[series]
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)
        if head == "dense":
            assert not y[series][:, ~seen].any()


def test_channels_may_be_observed_at_times_of_their_own() -> None:
    network = model()
    x, times = torch.randn(2, 2, 14, dtype=F64), random_times(2, 14)
    mask = torch.rand(2, 2, 14) > 0.4
    y = network(x, mask=mask, times=times)
    torch.testing.assert_close(network(torch.where(mask, x, torch.inf), mask=mask, times=times), y)
    everywhere = mask.any(1, keepdim=True).expand_as(mask)
    assert not torch.allclose(network(x, mask=everywhere, times=times), y)
    # A mask for all channels and one for each that say the same are the same.
    torch.testing.assert_close(network(x, mask=everywhere, times=times), network(x, mask=everywhere[:, 0], times=times))


def test_denser_samples_of_one_signal_give_ever_closer_outputs() -> None:
    network = model(40)

    def output(samples: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        inner = torch.rand(1, samples - 2, generator=generator, dtype=F64) * 39
        times = torch.cat([inner, torch.tensor([[0.0, 39.0]], dtype=F64)], dim=-1).sort().values
        signal = torch.stack([torch.sin(0.4 * times), torch.cos(0.25 * times)], dim=1)
        return network(signal, times=times)

    truth = output(1500, 0)
    coarse, fine = ((output(n, 1) - truth).norm() / truth.norm() for n in (80, 500))
    assert fine < 0.2 * coarse
    assert fine < 0.02


def test_it_learns_from_series_at_their_own_times() -> None:
    """Slow against fast oscillations, at random times: only times tell them apart."""
    network = oc.CCNN(1, 2, 30, blocks=1, width=8, span=30.0)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)

    def batch(size: int) -> tuple[Tensor, Tensor, Tensor]:
        times = torch.rand(size, 30).mul(30).sort().values
        labels = torch.arange(size) % 2
        phase = torch.rand(size, 1) * 6
        return torch.sin(times * (0.5 + 0.7 * labels[:, None]) + phase)[:, None], times, labels

    for _ in range(60):
        x, times, labels = batch(32)
        loss = torch.nn.functional.cross_entropy(network(x, times=times), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        oc.refresh(network)
    x, times, labels = batch(200)
    assert (network.eval()(x, times=times).argmax(-1) == labels).float().mean() > 0.95


def test_span_is_saved_with_the_network(tmp_path: object) -> None:
    network = model(span=4.0)
    network.save_pretrained(str(tmp_path))
    loaded = oc.CCNN.from_pretrained(str(tmp_path))
    assert loaded.span == 4.0
    x, times = torch.randn(1, 2, 9, dtype=F64), random_times(1, 9, 4.0)
    torch.testing.assert_close(loaded.double()(x, times=times), network(x, times=times))


def test_errors_name_the_argument() -> None:
    network, x, times = model(), torch.zeros(1, 2, 4, dtype=F64), torch.arange(4.0)[None]
    with pytest.raises(ValueError, match="`times` and a spacing exclude each other"):
        network(x, 0.5, times=times)
    with pytest.raises(ValueError, match="not a view of it at another resolution"):
        network.at_resolution(2.0)(x, times=times)
    with pytest.raises(ValueError, match="`times` must increase strictly"):
        network(x, times=times * 0)
    with pytest.raises(ValueError, match="of one axis"):
        oc.CCNN(1, 2, (4, 4), blocks=1, width=2)(torch.zeros(1, 1, 4, 4), times=times)
    with pytest.raises(ValueError, match="`span` must be finite and above 0"):
        model(span=0.0)
