"""The loss: how surprised the model is by the reply alone, and by what was decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from answering.prompting import build
from core.types import Decision
from training.replies.data import ReplyExample

IGNORED = -100
"""The label of tokens that the loss leaves out: prompt and padding."""
DECISIONS = tuple(Decision)
"""In the order of the action head's outputs."""


@dataclass(frozen=True)
class Encoded:
    """An example as token ids; the last `reply_tokens` are the reply and its end.

    Attributes:
        decision: What was decided, as a place in `DECISIONS`.
    """

    ids: tuple[int, ...]
    reply_tokens: int
    decision: int = 0


def encode(
    example: ReplyExample,
    tokenizer: Any,
    render: Callable[..., str],
    language: str = "en",
    decision: Decision = Decision.ANSWER,
) -> Encoded:
    """Return an example as the model will see it when it serves.

    Args:
        example: What to learn; without a reply, the decision alone is learned.
        tokenizer: Of the model; its end-of-sequence token ends the reply.
        render: The generators' own rendering of a prompt as text.
        language: Of the reply.
        decision: What was decided about the message.
    """
    prompt = build(example.message, example.sources, example.history, language)
    before: list[int] = tokenizer(render(prompt, tokenizer), add_special_tokens=False)["input_ids"]
    place = DECISIONS.index(decision)
    if not example.reply:
        return Encoded(tuple(before), 0, place)
    reply: list[int] = tokenizer(example.reply, add_special_tokens=False)["input_ids"]
    reply = [*reply, int(tokenizer.eos_token_id)]
    return Encoded((*before, *reply), len(reply), place)


def collate(
    examples: Sequence[Encoded], pad: int, *, shares: bool = True
) -> dict[str, torch.Tensor]:
    """Return a right-padded batch without the beginning that all examples share.

    Args:
        examples: At least one.
        pad: The padding token's id.
        shares: Whether the shared beginning is taken out.

    Returns:
        `prefix` (1, shared tokens), and `input_ids`, `attention_mask` and `labels`
        (batch, tokens) of what follows; the mask covers the prefix too. `last` and `decisions`
        (batch,) are where each prompt ends in `input_ids`, and what was decided.
    """
    shared = shared_beginning(examples) if shares else 0
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
    last = [len(example.ids) - shared - example.reply_tokens - 1 for example in examples]
    return {
        "prefix": torch.tensor([examples[0].ids[:shared]], dtype=torch.long),
        "input_ids": ids,
        "attention_mask": mask,
        "labels": labels,
        "last": torch.tensor(last),
        "decisions": torch.tensor([example.decision for example in examples]),
    }


def shared_beginning(examples: Sequence[Encoded]) -> int:
    """Return how many first tokens are the same in all prompts; one of each is left over."""
    first = examples[0].ids
    most = min(len(example.ids) - example.reply_tokens - 1 for example in examples)
    for position in range(most):
        if any(example.ids[position] != first[position] for example in examples):
            return position
    return most


class Sums(NamedTuple):
    """What a batch's examples add up to, so that batches of any size can be put together.

    Attributes:
        reply: Cross-entropy of all reply tokens.
        action: Cross-entropy of all decisions; zero without an action head.
        right: How many decisions the head gets right.
    """

    reply: torch.Tensor
    action: torch.Tensor
    right: torch.Tensor


class ActionHead(nn.Module):
    """Tells what was decided from the hidden state of a prompt's last token.

    One linear layer on the state from which the reply is written too, so that both losses shape
    the same weights.
    """

    def __init__(self, hidden: int) -> None:
        """Make a head that begins undecided."""
        super().__init__()
        self.linear = nn.Linear(hidden, len(DECISIONS))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits (batch, decisions) for states (batch, hidden)."""
        return self.linear(hidden.float())


class Learner(nn.Module):
    """The model with what is trained on it, as one module whose output are the losses.

    One module, so that accelerate can wrap it: gradients of several GPUs are put together only
    for what runs through the wrapper.
    """

    def __init__(
        self, model: Any, head: ActionHead | None = None, *, checkpointing: bool = False
    ) -> None:
        """Put model and head together; `checkpointing` trades time for memory."""
        super().__init__()
        self.model = model
        self.head = head
        self.checkpointing = checkpointing
        self.embedded: torch.Tensor | None = None

    def forward(
        self,
        batch: dict[str, torch.Tensor],
        nudge: torch.Tensor | None = None,
        keeps_embeddings: bool = False,
    ) -> Sums:
        """Return the sums of a batch's losses.

        Two savings that change nothing: the beginning that all prompts share (the instruction, a
        third of the tokens) runs once and its keys and values are repeated, with their gradient;
        and the language model's head, a quarter of the small model's work, runs only on the
        positions that predict a reply token: (replies' tokens, hidden).

        Args:
            batch: As `collate` returns it.
            nudge: Is added to the embeddings of `input_ids`, (batch, tokens, hidden).
            keeps_embeddings: Leaves the embeddings in `embedded`, with their gradient to come.
        """
        causal = causal_of(self.model)
        wanted: dict[str, Any] = {"input_ids": batch["input_ids"]}
        if nudge is not None or keeps_embeddings:
            inputs = causal.get_input_embeddings()(batch["input_ids"])
            inputs = inputs.detach().requires_grad_() if keeps_embeddings else inputs + nudge
            self.embedded = inputs if keeps_embeddings else None
            wanted = {"inputs_embeds": inputs}
        hidden = self._states(causal, batch, wanted)
        labels = batch["labels"][:, 1:]
        predicts = labels != IGNORED
        reply = (hidden[:0] * 0).sum().float()  # zero, and with a way back where no row has a reply
        if predicts.any():
            logits = causal.lm_head(hidden[:, :-1][predicts])
            reply = functional.cross_entropy(logits.float(), labels[predicts], reduction="sum")
        action = right = torch.zeros_like(reply)
        if self.head is not None:
            at_end = hidden[torch.arange(len(hidden), device=hidden.device), batch["last"]]
            decided = self.head(at_end)
            action = functional.cross_entropy(decided, batch["decisions"], reduction="sum")
            right = (decided.argmax(1) == batch["decisions"]).sum()
        return Sums(reply, action, right)

    def _states(
        self, causal: Any, batch: dict[str, torch.Tensor], wanted: dict[str, Any]
    ) -> torch.Tensor:
        """Return the last hidden states of what follows the prefix: (batch, tokens, hidden)."""
        mask = batch["attention_mask"]
        if self.checkpointing:  # layers that are run again cannot add to a cache
            return causal.model(**wanted, attention_mask=mask, use_cache=False).last_hidden_state
        cache, virtual = _first_cache(self.model, causal)
        if batch["prefix"].shape[1]:
            causal.model(input_ids=batch["prefix"], past_key_values=cache, use_cache=True)
        if batch["prefix"].shape[1] or virtual:
            cache.batch_repeat_interleave(len(mask))
        mask = torch.cat([mask.new_ones((len(mask), virtual)), mask], dim=1)
        return causal.model(
            **wanted, attention_mask=mask, past_key_values=cache, use_cache=True
        ).last_hidden_state


def causal_of(model: Any) -> Any:
    """Return the causal language model within what peft wraps around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def reply_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the mean cross-entropy of the reply tokens, a scalar; see `Learner`."""
    return Learner(model)(batch).reply / (batch["labels"] != IGNORED).sum()


def _first_cache(model: Any, causal: Any) -> tuple[Any, int]:
    """Return the cache that a prompt begins with: empty, or a learned prefix, and its length."""
    from transformers import DynamicCache

    if getattr(model, "active_peft_config", None) is not None:
        config = model.active_peft_config
        if config.is_prompt_learning:
            return model.get_prompt(1), int(config.num_virtual_tokens)
    return DynamicCache(config=causal.config), 0
