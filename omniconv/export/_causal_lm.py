"""What `to_hugging_face` gives: imported only when asked for, because it imports transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Cache, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from omniconv._errors import check_integer, describe
from omniconv._typing import Tokens
from omniconv.models import Stepper
from omniconv.models.hyena import GatedNetwork
from omniconv.nn import State

CACHE = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"
"""The name of the cache in transformers: the first since 5.24, the second before."""


@dataclass(frozen=True)
class Padding:
    """How many tokens every row has, (batch,), and the side on which it is padded: "left" or "right"."""

    lengths: Tensor
    side: str


class RecurrentCache(Cache):
    """The state of a recurrence behind the tokens of every row, and how many columns of tokens it has `seen`.

    `stepper`: takes the tokens.
    """

    def __init__(self, stepper: Stepper):
        super().__init__(layers=[])
        self.stepper = stepper
        self.state: State | None = None
        self.seen = 0

    def take(self, ids: Tokens, padding: Padding | None, last: bool) -> Tensor:
        """The logits (batch, length, tokens) behind more tokens, or behind the last one only."""
        if padding is None and ids.shape[1] == 1 and self.state is not None:
            logits, self.state = self.stepper.step(ids[:, 0], self.state)
            logits = logits[..., None].clone()  # a decoder overwrites its logits
        else:
            options: dict[str, Any] = {} if padding is None else {"lengths": padding.lengths, "side": padding.side}
            logits, self.state = self.stepper.prefill(ids, self.state, last=last, **options)
        self.seen += ids.shape[1]
        return logits.mT

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns of tokens that were seen, those of padding among them."""
        return self.seen

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """-1: there is none."""
        return -1

    get_max_cache_shape = get_max_length

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, in this order."""
        if self.state is not None:
            self.state = self.state.select(indices.to(self.state.tensors[0].device))

    reorder_cache = batch_select_indices

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row that many times."""
        self.batch_select_indices(torch.arange(max(self.batch_size, 0)).repeat_interleave(repeats))

    def reset(self) -> None:
        """Forget all tokens."""
        self.state, self.seen = None, 0

    def crop(self, *args: Any) -> NoReturn:
        """Refused."""
        raise NotImplementedError(
            "the state of a recurrence does not go back. Deep-copy the cache where it may have to."
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Another one, of the same stepper."""
        other = type(self)(self.stepper)
        other.state, other.seen = None if self.state is None else self.state.clone(), self.seen
        return other

    @property
    def batch_size(self) -> int:
        """Rows, or -1 before the first token."""
        return -1 if self.state is None else self.state.batch

    @property
    def is_initialized(self) -> bool:
        """Whether there was a token."""
        return self.state is not None

    @property
    def is_linear(self) -> list[bool]:
        """For `generate`, which leaves out the tokens that were seen where this is not all true."""
        return [False]

    @property
    def is_compileable(self) -> bool:
        """No."""
        return False

    @property
    def is_croppable(self) -> bool:
        """No."""
        return False


class Config(PretrainedConfig):
    """The shape of a language model of omniconv."""

    model_type = "omniconv"


class CausalLM(PreTrainedModel, GenerationMixin):
    """A language model of omniconv with `generate` of transformers; `to_hugging_face` says how.

    `source`: the model, or its stream. `network`: the model, or that of the stream.
    """

    config_class = Config
    _is_stateful = True

    def __init__(self, source: GatedNetwork | Stepper):
        network = source.network if isinstance(source, Stepper) else source
        super().__init__(
            Config(
                vocab_size=network.out_features,
                hidden_size=network.in_channels,
                num_hidden_layers=len(network.blocks),  # type: ignore[arg-type]
                tie_word_embeddings=False,  # the network ties them itself
            )
        )
        self.network = network
        self._source = (source,)  # in a tuple, so that it is not registered twice
        self.training = network.training

    @property
    def source(self) -> GatedNetwork | Stepper:
        """What was handed in."""
        return self._source[0]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: RecurrentCache | None = None,
        *,
        cache: RecurrentCache | None = None,
        use_cache: bool | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        return_dict: bool | None = None,
    ) -> Any:
        """The logits, and the loss where there are `labels`: see `to_hugging_face`.

        `cache`: the newer name of `past_key_values`. `logits_to_keep`: only those of so many last columns; 0 for all.
        `return_dict`: False for a tuple.
        """
        cache = check_cache(past_key_values, cache)
        use_cache = cache is not None if use_cache is None else use_cache
        check_ids(input_ids)
        check_integer("logits_to_keep", logits_to_keep, minimum=0)
        padding = None
        if attention_mask is not None:
            padding = padding_of(attention_mask, input_ids, 0 if cache is None else cache.seen)
        if padding is not None and padding.side == "right" and logits_to_keep:
            raise ValueError("`attention_mask` is 0 at the right end, where `generate` goes on: pad on the left.")
        if cache is None and use_cache:
            cache = RecurrentCache(self.source.stepper())
        if cache is None:
            mask = None if padding is None else attention_mask != 0
            logits = self.network(input_ids, mask=mask).mT
        else:
            logits = cache.take(input_ids, padding, last=logits_to_keep == 1 and labels is None)
        loss = None if labels is None else next_token_loss(logits, labels)
        output = CausalLMOutputWithPast(
            loss=loss, logits=logits[:, -logits_to_keep:], **{CACHE: cache if use_cache else None}
        )
        return output.to_tuple() if return_dict is False else output

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the network, or raise for a stream."""
        if mode and isinstance(self.source, Stepper):
            raise ValueError("a stream is not trained: train its network, then stream that.")
        return super().train(mode)

    def save_pretrained(self, *args: Any, **options: Any) -> NoReturn:
        """Refused: transformers could not load it."""
        raise NotImplementedError(
            "transformers could not load what this would write. Save the model itself: `model.save_pretrained(folder)` "
            "of omniconv, then `to_hugging_face` of what its `from_pretrained` gives."
        )

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **options: Any
    ) -> None:
        if generation_config.cache_implementation is not None:
            raise ValueError(
                f"`cache_implementation` must be None, for the state of a recurrence is the cache; got "
                f"{generation_config.cache_implementation!r}."
            )
        if model_kwargs.get(CACHE) is not None:
            check_cache(model_kwargs[CACHE], None)
            super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **options)
        elif generation_config.use_cache is not False:
            model_kwargs[CACHE] = RecurrentCache(self.source.stepper())


def check_cache(first: Any, second: Any) -> RecurrentCache | None:
    """Return the cache that was given under one of its names, or raise."""
    if first is not None and second is not None:
        raise ValueError("`past_key_values` and `cache` are names of one argument. Give one.")
    given = second if first is None else first
    if given is not None and not isinstance(given, RecurrentCache):
        raise TypeError(f"`past_key_values` must be what this model gave; got a {type(given).__name__}.")
    return given


def check_ids(ids: Any) -> None:
    """Raise unless there are ids (batch, length), one at least."""
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.shape[1] < 1 or ids.dtype.is_floating_point:
        raise ValueError(f"`input_ids` must be ids (batch, length), one token at least; got {describe(ids)}.")


def padding_of(mask: Any, ids: Tokens, seen: int) -> Padding | None:
    """The padding of new tokens behind so many that were seen, None for none, or raise."""
    batch, length = ids.shape
    allowed = [(batch, length), (batch, seen + length)][: 1 + (seen > 0)]
    if not isinstance(mask, Tensor) or tuple(mask.shape) not in allowed:
        shapes = " or ".join(map(str, allowed))
        raise ValueError(f"`attention_mask` must be {shapes}, 1 for tokens and 0 for padding; got {describe(mask)}.")
    there = mask[:, -length:].to(ids.device) != 0
    if there.all():
        return None
    lengths = there.sum(1)
    place = torch.arange(length, device=ids.device)
    if torch.equal(there, place >= length - lengths[:, None]):
        return Padding(lengths, "left")
    if torch.equal(there, place < lengths[:, None]):
        return Padding(lengths, "right")
    raise ValueError(
        "`attention_mask` must have its zeros, the padding, at the left end of all rows or at the right end of all "
        f"rows; got {first_bad_row(there)}. Without a mask, `generate` takes ids equal to `pad_token_id` for padding."
    )


def first_bad_row(there: Tensor) -> str:
    """A row whose tokens are not together, or a word on rows that differ."""
    for i, row in enumerate(there.tolist()):
        if sum(a != b for a, b in zip([False, *row], [*row, False], strict=True)) > 2:
            return f"zeros between tokens in row {i}"
    return "both, or zeros at both ends of a row"


def next_token_loss(logits: Tensor, labels: Any) -> Tensor:
    """The mean cross-entropy of labels (batch, length) that are not -100, each behind the column before it."""
    if not isinstance(labels, Tensor) or labels.shape != logits.shape[:2]:
        raise ValueError(f"`labels` must be ids {tuple(logits.shape[:2])}; got {describe(labels)}.")
    exact = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(logits[:, :-1].to(exact).flatten(0, 1), labels[:, 1:].to(logits.device).flatten())
