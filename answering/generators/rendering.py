"""A prompt as the text that a model was trained on."""

from __future__ import annotations

from typing import Any

from answering.prompting import Prompt


def render(prompt: Prompt, tokenizer: Any) -> str:
    """Return a prompt in the tokenizer's own chat template, up to where the reply begins."""
    if not getattr(tokenizer, "chat_template", None):
        return chatml(prompt)
    messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


def chatml(prompt: Prompt) -> str:
    """Return a prompt in ChatML, SmolLM2's template."""
    said = "".join(
        f"<|im_start|>{message.role}\n{message.content}<|im_end|>\n" for message in prompt.messages
    )
    return f"{said}<|im_start|>assistant\n"
