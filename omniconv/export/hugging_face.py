"""Language models for the tools around Hugging Face `transformers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omniconv._errors import describe, require
from omniconv.models import Stepper
from omniconv.models.generate import check_tokens
from omniconv.models.hyena import GatedNetwork
from omniconv.nn import DenseHead

if TYPE_CHECKING:
    from omniconv.export._causal_lm import CausalLM


def to_hugging_face(model: GatedNetwork | Stepper) -> CausalLM:
    """A language model as a `transformers.PreTrainedModel` with `generate`: beam search, logits processors, streamers.

    `model`: a `Hyena` or `MultiHyena` with tokens and head "dense", which is shared, not copied; or a stream of one.

    `forward(input_ids, attention_mask, past_key_values, use_cache, labels)` gives a `CausalLMOutputWithPast`: logits
    (batch, length, tokens) and, with `labels`, the mean cross-entropy of the next token, where -100 does not count.
    `attention_mask`: (batch, length), or with a cache (batch, tokens seen + length): 1 for tokens, 0 for padding, which
    is on the left, or, for all logits, on the right.
    `use_cache`: whether tokens go through the recurrence, without gradients, and its state comes back as
    `past_key_values`; None for whether one was given. Otherwise it is the network itself, with gradients.

    A prompt is run once and every further token once, at what `model.stepper()` takes for it: constant memory and time
    need a stream. A cache continues the model as it was when the cache began; it cannot be cropped, so there is no
    assisted generation. A stream is in evaluation mode, on the device where it was made, and not trained.
    `save_pretrained` is refused: save the model itself.

    Raises `TypeError` or `ValueError` that names what does not fit, `ImportError` that names the extra `transformers`.

    >>> import torch
    >>> from omniconv.models import Hyena
    >>> model = Hyena(8, 256, size=64, blocks=1, width=8, tokens=256, tied=True, head="dense").eval()
    >>> prompts = torch.randint(256, (2, 10))
    >>> to_hugging_face(model).generate(prompts, max_new_tokens=5, num_beams=3).shape  # doctest: +SKIP
    torch.Size([2, 15])
    """
    if not isinstance(model, GatedNetwork | Stepper):
        raise TypeError(f"`model` must be a Hyena, a MultiHyena or a stream of one; got {describe(model)[:80]}.")
    check_language_model(model)
    require("transformers", extra="transformers", purpose="a model for Hugging Face transformers")
    from omniconv.export._causal_lm import CausalLM

    return CausalLM(model)


def check_language_model(model: GatedNetwork | Stepper) -> None:
    """Raise unless a model predicts the next token behind every one of its tokens."""
    network = model.network if isinstance(model, Stepper) else model
    if not isinstance(network.head, DenseHead):
        raise ValueError(
            f'`model` must give logits behind every token: build it with head="dense"; it has a '
            f"{type(network.head).__name__}."
        )
    stepper = model if isinstance(model, Stepper) else Stepper(model, model.causal_part())
    check_tokens(stepper, ())
