"""The fused step of language models: what the stream gives, in buffers of constant size."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from omniconv.models import CCNN, Hyena, MultiHyena
from omniconv.models.hyena import GatedNetwork
from omniconv.nn import State
from omniconv.recurrence import Decoder, stream

F32, F64 = torch.float32, torch.float64


def model(name: str, dtype: torch.dtype = F64, **options: Any) -> GatedNetwork:
    torch.manual_seed(0)
    shared: dict[str, Any] = {"blocks": 2, "tokens": 11, "tied": True, "head": "dense"} | options
    if name == "hyena":
        return Hyena(6, 11, 40, width=6, **shared).to(dtype).eval()
    return MultiHyena(6, 11, 40, n_filters=2, head_width=3, **shared).to(dtype).eval()


@pytest.mark.parametrize("name", ["hyena", "multi_hyena"])
@pytest.mark.parametrize(("dtype", "close"), [(F64, 1e-12), (F32, 1e-5)])
def test_steps_are_those_of_the_stream(name: str, dtype: torch.dtype, close: float) -> None:
    streamed = stream(model(name, dtype), order=6)
    decoder = Decoder(streamed, 3, state_dtype=dtype)
    ids = torch.randint(11, (3, 30))
    lengths = torch.tensor([9, 4, 7])
    expected, state = streamed.prefill(ids[:, :9], lengths=lengths, last=True)
    given, held = decoder.prefill(ids[:, :9], lengths=lengths, last=True)
    assert torch.equal(given, expected)
    for token in ids[:, 9:].unbind(1):
        expected, state = streamed.step(token, state)
        given, held = decoder.step(token, held)
        torch.testing.assert_close(given, expected, rtol=close, atol=close)


@pytest.mark.parametrize("name", ["hyena", "multi_hyena"])
def test_a_state_in_bfloat16_is_near(name: str) -> None:
    """Its error is that of rounding to 8 bits; and it is not float32's."""
    streamed = stream(model(name, F32), order=6)
    outputs = []
    for dtype in (F32, torch.bfloat16):
        decoder = Decoder(streamed, 1, state_dtype=dtype)
        _, state = decoder.prefill(torch.randint(11, (1, 20), generator=torch.Generator().manual_seed(1)))
        for token in range(10):
            logits, state = decoder.step(torch.tensor([token]), state)
        outputs.append(logits)
    error = float((outputs[0] - outputs[1]).norm() / outputs[0].norm())
    assert 1e-6 < error < 0.02


def test_a_decoder_holds_one_state() -> None:
    streamed = stream(model("hyena"), order=4)
    decoder = Decoder(streamed, 2, state_dtype=F64)
    ids = torch.randint(11, (2, 5))
    _, before = decoder.prefill(ids)
    kept = before.clone()
    assert decoder.nbytes == kept.nbytes
    first, _ = decoder.step(ids[:, 0], before)
    first = first.clone()
    with pytest.raises(ValueError, match="`state` must be the one that this decoder returned last"):
        decoder.step(ids[:, 0], before)
    decoder.load(kept)
    again, _ = decoder.step(ids[:, 0], kept)
    assert torch.equal(first, again)
    _, state = decoder.prefill(ids)
    with pytest.raises(ValueError, match=r"`x` must be ids \(2,\)"):
        decoder.step(ids, state)
    with pytest.raises(ValueError, match="`state` must be a `State` of 2 rows, as the decoder has; got one of 1"):
        decoder.load(State((torch.zeros(1, 2),)))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"blocks\.0\.mixer\.long\.0 stays taps in this stream"):
        Decoder(stream(model("hyena")), 2, state_dtype=F64)
    with pytest.raises(ValueError, match=r"blocks\.0 must be of order 2; it is of order 3"):
        Decoder(stream(model("hyena", order=3), order=4), 2, state_dtype=F64)
    with pytest.raises(ValueError, match=r"blocks\.0 must have a short convolution of 3 taps; it has 4"):
        Decoder(stream(model("multi_hyena", short=4), order=4), 2, state_dtype=F64)
    with pytest.raises(ValueError, match="`batch` must be at least 1"):
        Decoder(stream(model("hyena"), order=4), 0, state_dtype=F64)
    with pytest.raises(TypeError, match=r"`state_dtype` must be one of \(torch.float64,\)"):
        Decoder(stream(model("hyena"), order=4), 1)
    with pytest.raises(TypeError, match="`streamed` must be a stream of a Hyena"):
        Decoder(stream(CCNN(1, 2, 32, blocks=1, width=4, causal=True).eval()), 1)
    signals = Hyena(2, 3, 32, blocks=1, width=4, head="dense").eval()
    with pytest.raises(ValueError, match="`streamed` must take tokens"):
        Decoder(stream(signals, order=4), 1)
