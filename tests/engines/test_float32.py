"""The framework's switches for tf32: off where the engines need full float32, and then as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest
import torch

from omniconv.engines import convolve
from omniconv.engines._float32 import full_float32, switches
from omniconv.engines._plan import forget_plans
from omniconv.engines.recurrent import convolve_modes


def values() -> list[object]:
    return [getattr(owner, name) for owner, name, _ in switches()]


OFF = [off for _, _, off in switches()]


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    before = values()
    yield
    for (owner, name, _), value in zip(switches(), before, strict=True):
        setattr(owner, name, value)


def turn_on() -> None:
    """As torch.set_float32_matmul_precision("high") and the default for convolutions do."""
    for owner, name, off in switches():
        setattr(owner, name, "tf32" if off == "ieee" else True)


def test_they_are_off_inside_and_then_as_before() -> None:
    turn_on()
    before = values()

    def fail() -> None:
        with full_float32("cuda"):
            with full_float32("cuda"):
                assert values() == OFF
            assert values() == OFF
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert values() == before
    assert before != OFF


def test_elsewhere_than_on_cuda_nothing_changes() -> None:
    turn_on()
    before = values()
    with full_float32("cpu"):
        assert values() == before


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="no new switches before version 2.9")
def test_the_new_switch_for_convolutions_may_have_been_used() -> None:
    switches()[0][0].fp32_precision = "ieee"
    with pytest.raises(RuntimeError):
        torch.backends.cudnn.allow_tf32  # noqa: B018
    with full_float32("cuda"):
        assert values() == OFF
    assert switches()[0][0].fp32_precision == "ieee"


def test_another_thread_does_not_wait_and_changes_nothing_when_it_leaves() -> None:
    turn_on()
    before = values()

    def enter() -> None:
        with full_float32("cuda"):
            pass

    with full_float32("cuda"):
        thread = Thread(target=enter)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
        assert values() == OFF
    assert values() == before


def test_matrix_products_are_made_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, seen = [False], []

    @contextmanager
    def noted(device: str) -> Iterator[None]:
        inside[0] = True
        yield
        inside[0] = False

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, call, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if str(call).startswith(("aten.bmm", "aten.mm", "aten.baddbmm", "aten.convolution")):
                seen.append(inside[0])
            return call(*args, **(kwargs or {}))

    for name in ("fft", "direct", "recurrent"):
        monkeypatch.setattr(f"omniconv.engines.{name}.full_float32", noted)
    # As on a graphics processor, where engines are called step by step.
    monkeypatch.setattr("omniconv.engines._plan.with_launches", lambda plan: plan)
    forget_plans()
    x = torch.randn(2, 3, 20, requires_grad=True)
    taps = torch.randn(4, 3, 5, requires_grad=True)
    poles = (0.5 * torch.randn(3, 2, dtype=torch.complex128)).requires_grad_()
    with Watch():
        for engine in ("fft", "direct"):
            convolve(x, taps, engine=engine).sum().backward()
        convolve_modes(x, poles, poles, chunk=4)
    forget_plans()
    assert len(seen) >= 9
    assert all(seen)
