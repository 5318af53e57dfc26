"""A step that memory does not suffice for is told with what to do, and that helps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from omniconv.training import Recipe, StepMemoryError, train
from tests.training.makers import TASK, Means, network, waves, weights

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
LINUX = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
)
WINDOWS = RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")


class Tight(Means):
    """Takes batches of at most so many samples while it trains."""

    def __init__(self, most: int, error: BaseException = CUDA):
        super().__init__()
        self.most, self.error = most, error

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.training and len(x) > self.most:
            raise self.error
        return super().forward(x, mask)


def trained(model: Means, **options: Any) -> Means:
    train(model, TASK, waves(16), recipe=Recipe(epochs=2, batch_size=8, **options))
    return model


@pytest.mark.parametrize("error", [CUDA, LINUX, WINDOWS, MemoryError()])
def test_a_step_that_is_too_large_names_a_smaller_one(error: BaseException) -> None:
    told = r"step 1 needs more memory than there is: a part has 8 samples of size 24\. .*`accumulate=2`.*`batch_size=4`"
    with pytest.raises(StepMemoryError, match=told) as found:
        trained(Tight(7, error))
    assert found.value.__cause__ is error
    assert isinstance(found.value, MemoryError)


def test_following_the_advice_trains_with_the_same_result() -> None:
    whole = weights(trained(Means()))
    with pytest.raises(StepMemoryError, match=r"a part has 4 samples .*`accumulate=4`.*`batch_size=4`"):
        trained(Tight(3), accumulate=2)
    parts = weights(trained(Tight(3), accumulate=4))
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-5, atol=1e-6)


def test_no_more_parts_are_asked_for_than_there_are_samples() -> None:
    with pytest.raises(StepMemoryError, match=r"2 samples .* Take `accumulate=5`.*`batch_size=2`"):
        train(Tight(1), TASK, waves(5), recipe=Recipe(epochs=1, batch_size=5, accumulate=3))
    with pytest.raises(StepMemoryError, match=r"2 samples of size 24\. Take `batch_size=1`\.$"):
        train(Tight(1), TASK, waves(3), recipe=Recipe(epochs=1, batch_size=2))


def test_where_a_part_is_one_sample_the_network_has_to_shrink() -> None:
    with pytest.raises(StepMemoryError, match=r"a part has 1 sample of size 24\. .*smaller network or shorter signals"):
        trained(Tight(0), accumulate=8)


def test_other_errors_of_torch_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^other$"):
        trained(Tight(0, RuntimeError("other")))


def test_what_is_normalised_per_part_is_told() -> None:
    model = network()
    model.head.register_forward_hook(out_of_memory)
    with pytest.raises(StepMemoryError, match="normalisation is per part"):
        train(model, TASK, waves(8), recipe=Recipe(epochs=1, batch_size=8))


def out_of_memory(*given: Any) -> None:
    raise CUDA
