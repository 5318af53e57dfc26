"""The fused step of language models: what the stream gives, in buffers of constant size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from omniconv.models import CCNN, Hyena, MultiHyena
from omniconv.models.hyena import GatedNetwork
from omniconv.nn import State
from omniconv.recurrence import Decoder, Recurrence, Stream, stream

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
@pytest.mark.parametrize("factor", [0.5, 0.7, 0.9, 1.05, 1.2, 1.49, 1.5, 2.0])
@pytest.mark.parametrize(("lowpass", "order"), [(False, 4), (True, 10)])
@pytest.mark.filterwarnings("ignore:.*the kernel holds frequencies")
def test_steps_of_a_view_are_those_of_its_stream(name: str, factor: float, lowpass: bool, order: int) -> None:
    """Its short convolutions have taps of their own, two to ten, and the stream goes on after a chunk."""
    streamed = stream(model(name).at_resolution(factor, lowpass=lowpass), order=order)
    decoder, ids = Decoder(streamed, 3, state_dtype=F64), torch.randint(11, (3, 24))
    _, state = streamed.prefill(ids[:, :4])
    _, held = decoder.prefill(ids[:, :4])
    for token in ids[:, 4:].unbind(1):
        expected, state = streamed.step(token, state)
        given, held = decoder.step(token, held)
        torch.testing.assert_close(given, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*the kernel holds frequencies")
def test_a_view_whose_short_convolution_became_a_recurrence_is_refused() -> None:
    streamed = stream(model("hyena").at_resolution(0.5, lowpass=True), order=4)
    with pytest.raises(ValueError, match=r"blocks\.0\.mixer\.short became a recurrence in this stream.*`order` of 9"):
        Decoder(streamed, 1, state_dtype=F64)


@pytest.mark.parametrize("short", [1, 2, 4])
def test_short_convolutions_of_any_taps(short: int) -> None:
    streamed = stream(model("multi_hyena", short=short), order=4)
    decoder, ids = Decoder(streamed, 2, state_dtype=F64), torch.randint(11, (2, 9))
    _, held = decoder.prefill(ids)
    _, state = streamed.prefill(ids)
    for token in ids[:, :5].unbind(1):
        expected, state = streamed.step(token, state)
        given, held = decoder.step(token, held)
        torch.testing.assert_close(given, expected, rtol=1e-12, atol=1e-12)


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


@pytest.mark.parametrize("name", ["hyena", "multi_hyena"])
@pytest.mark.parametrize(("options", "factor"), [({}, 1.0), ({"short": 2}, 1.0), ({"head": "last"}, 2.0)])
def test_chunks_and_steps_in_turn(name: str, options: dict[str, Any], factor: float) -> None:
    streamed = stream(model(name, **options).at_resolution(factor), order=4)
    decoder, ids = Decoder(streamed, 2, state_dtype=F64), torch.randint(11, (2, 20))
    state, held = streamed.prefill(ids[:, :2])[1], decoder.prefill(ids[:, :2])[1]
    for chunk in ids[:, 2:].split([1, 1, 4, 1, 2, 1, 8], dim=1):
        if chunk.shape[1] == 1:
            expected, state = streamed.step(chunk[:, 0], state)
            given, held = decoder.step(chunk[:, 0], held)
        else:
            expected, state = streamed.prefill(chunk, state)
            given, held = decoder.prefill(chunk, held)
        torch.testing.assert_close(given, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["hyena", "multi_hyena"])
def test_chunks_go_on_from_a_state_in_bfloat16(name: str) -> None:
    """From what is remembered: it is rounded, and scaled back."""
    streamed = slowest(stream(model(name, F32), order=6), 0.99)
    decoder, ids = Decoder(streamed, 2, state_dtype=torch.bfloat16), torch.randint(11, (2, 20))
    whole = streamed.prefill(ids)[0]
    _, held = decoder.prefill(ids[:, :9])
    _, held = decoder.step(ids[:, 9], held)
    given = decoder.prefill(ids[:, 10:], held)[0]
    assert 1e-6 < float((given - whole[..., 10:]).norm() / whole[..., 10:].norm()) < 0.02


def test_a_chunk_behind_a_state_that_is_gone_is_refused() -> None:
    streamed = stream(model("hyena"), order=4)
    decoder, ids = Decoder(streamed, 2, state_dtype=F64), torch.randint(11, (2, 5))
    _, first = decoder.step(ids[:, 0], decoder.prefill(ids)[1])
    decoder.step(ids[:, 1], first)
    with pytest.raises(ValueError, match="`state` must be the one that this decoder returned last"):
        decoder.prefill(ids, first)


def test_states_of_others_are_refused_and_change_nothing() -> None:
    streamed, ids = stream(model("hyena"), order=4), torch.randint(11, (2, 5))
    decoder = Decoder(streamed, 2, state_dtype=F64)
    _, held = decoder.prefill(ids)
    before = [(block.window.clone(), block.state.clone()) for block in decoder.blocks]
    other = stream(model("hyena"), order=8).prefill(ids)[1]
    good = held.tensors
    real = State((*good[:3], good[3].real))
    for state, message in (
        (other, "tensor 1 must be complex"),
        (real, "tensor 3 must be complex"),
        (State(good[:2]), "4 tensors"),
    ):
        with pytest.raises(ValueError, match=f"`state`.*{message}"):
            decoder.load(state)
        for block, (window, modal) in zip(decoder.blocks, before, strict=True):
            assert torch.equal(block.window, window)
            assert torch.equal(block.state, modal)
    decoder.step(ids[:, 0], held)


def test_ids_are_those_of_tokens() -> None:
    streamed, ids = stream(model("hyena"), order=4), torch.randint(11, (2, 5))
    decoder = Decoder(streamed, 2, state_dtype=F64)
    _, held = decoder.prefill(ids)
    before = decoder.blocks[0].state.clone()
    for token, error, message in (
        (torch.tensor([0, 11]), ValueError, "`x` must hold ids from 0 to 10; got 0 to 11"),
        (torch.tensor([-1, 3]), ValueError, "`x` must hold ids from 0 to 10; got -1 to 3"),
        (torch.tensor([1.5, 2.0]), TypeError, "`x` must be a tensor of integers, the ids of tokens; got a float32"),
        (torch.tensor([True, False]), TypeError, "`x` must be a tensor of integers, the ids of tokens; got a bool"),
    ):
        with pytest.raises(error, match=message):
            decoder.step(token, held)
    assert torch.equal(decoder.blocks[0].state, before)
    decoder.step(torch.tensor([10, 0], dtype=torch.int32), held)


def slowest(streamed: Stream, modulus: float) -> Stream:
    """The same stream, with poles of the second block scaled to that modulus at most."""
    modal = streamed.recurrences[next(name for name in streamed.recurrences if name.startswith("blocks.1"))]
    found = modal.recurrence
    poles = found.poles * (modulus / found.poles.abs().max())
    modal.recurrence = Recurrence(poles, found.residues, found.direct)
    return streamed


def test_poles_too_slow_for_bfloat16_warn() -> None:
    """A state that takes in less than half a unit in its last place stays where it is."""
    streamed = slowest(stream(model("hyena", F32), order=2), 1 - 2**-8 * 0.99)
    with pytest.warns(
        UserWarning, match=r"`state_dtype`.*modulus 0\.9961328 in blocks\.1.*Use state_dtype=torch\.float32"
    ):
        Decoder(streamed, 1, state_dtype=torch.bfloat16)
    Decoder(streamed, 1)  # warnings are errors
    Decoder(slowest(streamed, 1 - 2**-8 * 1.01), 1, state_dtype=torch.bfloat16)


def test_a_pole_on_the_unit_circle_has_a_finite_state_in_bfloat16() -> None:
    streamed = slowest(stream(model("hyena", F32), order=2), 1.0)
    with pytest.warns(UserWarning, match=r"modulus 1\.0000000"):
        decoder = Decoder(streamed, 1, state_dtype=torch.bfloat16)
    logits, _ = decoder.step(torch.tensor([3]), decoder.prefill(torch.tensor([[1, 2, 4]]))[1])
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", ["hyena", "multi_hyena"])
def test_poles_are_those_of_the_stream(name: str) -> None:
    """And not rounded, but for a state that is coarser."""
    streamed = stream(model(name, F32), order=2)
    for decoder, dtype in ((Decoder(streamed, 1), F64), (Decoder(streamed, 1, state_dtype=torch.bfloat16), F32)):
        for block, (_, modal) in zip(decoder.blocks, streamed.recurrences.items(), strict=True):
            poles = modal.recurrence.poles
            assert torch.equal(block.poles, torch.stack([poles.real, poles.imag], 1).permute(2, 1, 0).to(dtype))


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
    with pytest.raises(ValueError, match="`state` must be a `State` of 2 rows, as `init_state` gives it; got one of 1"):
        decoder.load(State((torch.zeros(1, 2),)))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"blocks\.0\.mixer\.long\.0 stays taps in this stream"):
        Decoder(stream(model("hyena")), 2, state_dtype=F64)
    with pytest.raises(ValueError, match=r"blocks\.0 must be of order 2; it is of order 3"):
        Decoder(stream(model("hyena", order=3), order=4), 2, state_dtype=F64)
    with pytest.raises(ValueError, match="`batch` must be at least 1"):
        Decoder(stream(model("hyena"), order=4), 0, state_dtype=F64)
    with pytest.raises(TypeError, match=r"`state_dtype` must be one of \(torch.float64,\)"):
        Decoder(stream(model("hyena"), order=4), 1)
    with pytest.raises(TypeError, match="`streamed` must be a stream of a Hyena"):
        Decoder(stream(CCNN(1, 2, 32, blocks=1, width=4, causal=True).eval()), 1)
    with pytest.raises(TypeError, match="`streamed` must be a stream of a Hyena or MultiHyena; got NoneType None"):
        Decoder(None, 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r'`streamed` must have the head "dense" or "last".*"pool"'):
        Decoder(stream(model("hyena", head="pool"), order=4), 1, state_dtype=F64)
    signals = Hyena(2, 3, 32, blocks=1, width=4, head="dense").eval()
    with pytest.raises(ValueError, match="`streamed` must take tokens"):
        Decoder(stream(signals, order=4), 1)


class Recorded:
    """What stands for a graph of a device: `replay` takes the recorded step again, into the recorded buffer."""

    def __init__(self, decoder: Decoder, used: list[str]) -> None:
        self.decoder, self.used = decoder, used

    def replay(self) -> None:
        assert self.used[-1] == "device"
        assert self.decoder._logits is not None
        self.decoder._logits.copy_(self.decoder._forward())


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> tuple[Decoder, list[str]]:
    """A decoder that records without a device, and what it used of `torch.cuda`."""
    decoder, used = Decoder(stream(model("hyena"), order=4), 2, state_dtype=F64), list[str]()

    def entered(name: str) -> Any:
        @contextmanager
        def context(*given: Any, **named: Any) -> Iterator[None]:
            used.append(" ".join([name, *named]))
            yield

        return context

    def aside(device: torch.device) -> Any:
        return SimpleNamespace(wait_stream=lambda other: None)

    for name in ("stream", "device", "graph"):
        monkeypatch.setattr(torch.cuda, name, entered(name))
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, aside)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: Recorded(decoder, used))
    return decoder, used


def test_steps_of_a_graph_are_those_of_the_stream(recording: tuple[Decoder, list[str]]) -> None:
    (decoder, used), ids = recording, torch.randint(11, (2, 5))
    _, state = decoder.streamed.prefill(ids)
    decoder.prefill(ids)
    for token in torch.randint(11, (3, 2)):
        expected, state = decoder.streamed.step(token, state)
        decoder._token.copy_(token)
        torch.testing.assert_close(decoder._replayed(), expected, rtol=1e-12, atol=1e-12)
    assert used == ["stream", "device", "graph stream", *["device"] * 3]


def test_a_step_that_cannot_be_recorded_changes_nothing(
    recording: tuple[Decoder, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, _ = recording
    decoder.prefill(torch.randint(11, (2, 5)))
    before = [(block.window.clone(), block.state.clone()) for block in decoder.blocks]
    steps, forward = [0], decoder._forward

    def fails() -> Any:
        steps[0] += 1
        if steps[0] == 4:
            raise RuntimeError("not permitted when stream is capturing")
        return forward()

    monkeypatch.setattr(decoder, "_forward", fails)
    with pytest.raises(RuntimeError, match="capturing"):
        decoder._replayed()
    assert steps == [4]
    assert decoder._graph is None
    for block, (window, state) in zip(decoder.blocks, before, strict=True):
        assert torch.equal(block.window, window)
        assert torch.equal(block.state, state)
