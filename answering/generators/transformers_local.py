"""Any causal language model that transformers loads, on a GPU or on a CPU, with one adapter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from answering.generators import adapted
from answering.generators.protocol import Finish, Generated
from answering.generators.rendering import render
from answering.prompting import Prompt
from core.errors import ConfigurationError, TransientError

BATCH_TOKENS = 16_384
"""Padded prompt tokens in one pass; what is more waits for the next, so that memory is bounded."""


class TransformersGenerator:
    """A local model in PyTorch; prompts are padded on the left and generated together."""

    def __init__(
        self,
        place: str,
        name: str,
        *,
        device: str = "auto",
        adapter: Path | None = None,
        threads: int = 0,
        dtype: str = "auto",
    ) -> None:
        """Load a model, and merge the adapter, since a merged one costs nothing a token.

        Args:
            place: A folder, or a name on the hub.
            name: For the trace.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            adapter: A folder that `deskhand train replies` or peft wrote.
            threads: CPU threads; 0 leaves torch's choice, which is the cores there are.
            dtype: `auto` is bfloat16 on a GPU, float32 on a CPU.

        Raises:
            ConfigurationError: The model or adapter cannot be loaded, or there is no such device.
        """
        self.name = name
        self.device = _device(device)
        if threads:
            torch.set_num_threads(threads)
        try:
            loaded = _load(place, self.device, adapter, dtype)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ConfigurationError(
                f"the reply model {name} cannot be loaded from {place}: {error}"
            ) from error
        self._tokenizer: Any = loaded[0]
        self._model: Any = loaded[1]
        self._context = int(getattr(self._model.config, "max_position_embeddings", 2_048))
        self._stops = _stop_ids(self._model, self._tokenizer)

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Generated]:
        """Return one result a prompt, in order; a bad prompt fails alone.

        Raises:
            TransientError: The device is out of memory.
        """
        encoded = [self._encode(prompt, max_new_tokens) for prompt in prompts]
        results: list[Generated | None] = [
            item if isinstance(item, Generated) else None for item in encoded
        ]
        good = {
            index: item for index, item in enumerate(encoded) if not isinstance(item, Generated)
        }
        for indices in _within_budget(good):
            made = self._run([good[index] for index in indices], max_new_tokens)
            for index, result in zip(indices, made, strict=True):
                results[index] = result
        return [result for result in results if result is not None]

    def close(self) -> None:
        """Free the model."""
        self._model = self._tokenizer = None
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _encode(self, prompt: Prompt, max_new_tokens: int) -> list[int] | Generated:
        if not prompt.messages or max_new_tokens < 1:
            return Generated("", Finish.ERROR, error="an empty prompt, or no room for a reply")
        text = render(prompt, self._tokenizer)
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) + max_new_tokens > self._context:
            why = f"a prompt of {len(ids)} tokens is longer than the model's context"
            return Generated("", Finish.ERROR, len(ids), error=why)
        return ids

    def _run(self, prompts: list[list[int]], max_new_tokens: int) -> list[Generated]:
        """Generate for a padded batch: ids and mask are (prompts, tokens)."""
        longest = max(map(len, prompts))
        pad = self._tokenizer.pad_token_id
        pad = pad if pad is not None else self._stops[0]
        ids = torch.full((len(prompts), longest), pad)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        try:
            with torch.inference_mode():
                made = self._model.generate(
                    input_ids=ids.to(self.device),
                    attention_mask=mask.to(self.device),
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    num_beams=1,
                    eos_token_id=self._stops,
                    pad_token_id=pad,
                )[:, longest:].tolist()
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise TransientError("the GPU is out of memory for this batch") from error
        return [
            self._result(prompt, written) for prompt, written in zip(prompts, made, strict=True)
        ]

    def _result(self, prompt: list[int], written: list[int]) -> Generated:
        end = next((at for at, token in enumerate(written) if token in self._stops), None)
        kept = written if end is None else written[:end]
        text = self._tokenizer.decode(kept, skip_special_tokens=True).strip()
        finish = Finish.LENGTH if end is None else Finish.STOP
        return Generated(text, finish, len(prompt), len(kept))


def _load(place: str, device: str, adapter: Path | None, dtype: str) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # a worker's log is no terminal
    wanted = ("bfloat16" if device.startswith("cuda") else "float32") if dtype == "auto" else dtype
    tokenizer: Any = AutoTokenizer.from_pretrained(place)
    model: Any = AutoModelForCausalLM.from_pretrained(place, dtype=getattr(torch, wanted))
    if adapter is not None:
        model = adapted.put_on(model, adapter)
    return tokenizer, model.to(device).eval()


def _stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """Return all tokens that end a reply: instruct models often name several."""
    named = model.generation_config.eos_token_id
    ids = list(named) if isinstance(named, list | tuple) else [named]
    return list(
        dict.fromkeys(int(stop) for stop in (*ids, tokenizer.eos_token_id) if stop is not None)
    )


def _within_budget(prompts: dict[int, list[int]]) -> list[list[int]]:
    """Group prompts alike in length, each group within the budget when padded."""
    groups: list[list[int]] = []
    for index in sorted(prompts, key=lambda at: len(prompts[at])):
        length = len(prompts[index])  # the longest so far, to which its group is padded
        if not groups or (len(groups[-1]) + 1) * length > BATCH_TOKENS:
            groups.append([])
        groups[-1].append(index)
    return groups


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigurationError(f"DESKHAND_DEVICE is {wanted}, but torch sees no CUDA device")
    return wanted
