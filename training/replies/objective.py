"""The loss: how surprised the model is by the reply, and by the reply alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from answering.prompting import build
from training.replies.data import ReplyExample

IGNORED = -100
"""The label of tokens that the loss leaves out: prompt and padding."""


@dataclass(frozen=True)
class Encoded:
    """An example as token ids; the last `reply_tokens` are the reply and its end."""

    ids: tuple[int, ...]
    reply_tokens: int


def encode(
    example: ReplyExample, tokenizer: Any, render: Callable[..., str], language: str = "en"
) -> Encoded:
    """Return an example as the model will see it when it serves.

    Args:
        example: What to learn.
        tokenizer: Of the model; its end-of-sequence token ends the reply.
        render: The generators' own rendering of a prompt as text.
        language: Of the reply.
    """
    prompt = build(example.message, example.sources, example.history, language)
    before: list[int] = tokenizer(render(prompt, tokenizer), add_special_tokens=False)["input_ids"]
    reply: list[int] = tokenizer(example.reply, add_special_tokens=False)["input_ids"]
    reply = [*reply, int(tokenizer.eos_token_id)]
    return Encoded((*before, *reply), len(reply))


def collate(examples: Sequence[Encoded], pad: int) -> dict[str, torch.Tensor]:
    """Return a right-padded batch without the beginning that all examples share.

    Returns:
        `prefix` (1, shared tokens), and `input_ids`, `attention_mask` and `labels`
        (batch, tokens) of what follows; the mask covers the prefix too.
    """
    shared = shared_beginning(examples)
    longest = max(len(example.ids) for example in examples) - shared
    ids = torch.full((len(examples), longest), pad)
    mask = torch.zeros((len(examples), shared + longest), dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for row, example in enumerate(examples):
        rest = example.ids[shared:]
        ids[row, : len(rest)] = torch.tensor(rest)
        mask[row, : len(example.ids)] = 1
        reply = slice(len(rest) - example.reply_tokens, len(rest))
        labels[row, reply] = ids[row, reply]
    prefix = torch.tensor([examples[0].ids[:shared]], dtype=torch.long)
    return {"prefix": prefix, "input_ids": ids, "attention_mask": mask, "labels": labels}


def shared_beginning(examples: Sequence[Encoded]) -> int:
    """Return how many first tokens are the same in all prompts; one of each is left over."""
    first = examples[0].ids
    most = min(len(example.ids) - example.reply_tokens - 1 for example in examples)
    for position in range(most):
        if any(example.ids[position] != first[position] for example in examples):
            return position
    return most


def reply_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the mean cross-entropy of the reply tokens, a scalar.

    Two savings that change nothing: the beginning that all prompts share (the instruction, a
    third of the tokens) runs once and its keys and values are repeated, with their gradient; and
    the head, a quarter of the small model's work, runs only on the positions that predict a reply
    token: (replies' tokens, hidden) instead of (batch, tokens, hidden).
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = causal.model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        past_key_values=_prefix_cache(causal, batch),
        use_cache=True,
    ).last_hidden_state
    wanted = batch["labels"][:, 1:]
    predicts = wanted != IGNORED
    logits = causal.lm_head(hidden[:, :-1][predicts])
    return functional.cross_entropy(logits.float(), wanted[predicts])


def _prefix_cache(causal: Any, batch: dict[str, torch.Tensor]) -> Any:
    from transformers import DynamicCache

    cache: Any = DynamicCache(config=causal.config)
    if batch["prefix"].shape[1]:
        causal.model(input_ids=batch["prefix"], past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(batch["input_ids"].shape[0])
    return cache
