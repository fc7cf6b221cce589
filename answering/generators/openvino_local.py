"""The reply model on a CPU: OpenVINO GenAI on a GGUF file, with continuous batching.

By far the fastest runtime on a CPU (a third of transformers' core-milliseconds a token). The
adapter is merged into the file beforehand (`answering.gguf_merging`), since this runtime ignores
adapters beside a GGUF.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from answering.generators import continuous
from answering.generators.protocol import Finish, Generated
from answering.generators.rendering import chatml
from answering.prompting import Prompt
from core.errors import ConfigurationError, InvalidInput

CONTEXT_TOKENS = 2_048
"""The longest prompt that is taken in; the model was trained on up to 8,192."""
CACHE_BLOCKS = 2_048
"""Of 16 tokens each: 32 long prompts at once, some 0.4 GB for the 135M model when full."""
MAX_RUNNING = 64
EXACT = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
}
"""By default activations are rounded to 8 bits in groups, and where two tokens are almost equally
likely a reply in a batch may differ from the same reply alone. These settings made 16 of 16 equal,
at 1.4 times the core time alone and 1.8 times at 16."""


class OpenVinoGenerator:
    """A GGUF model whose prompts join and leave the batch at every step."""

    def __init__(self, model: Path, name: str, threads: int = 0, *, exact: bool = False) -> None:
        """Load a GGUF file that speaks ChatML.

        Args:
            model: The file, with the adapter merged.
            name: Of model and adapter, for the trace.
            threads: CPU threads; 0 takes the cores that this process may use.
            exact: Full precision, so that a reply never depends on what else is in the batch.

        Raises:
            ConfigurationError: The file cannot be read.
        """
        import openvino_genai

        self.name = name
        self._genai: Any = openvino_genai
        properties = {
            "INFERENCE_NUM_THREADS": threads or len(os.sched_getaffinity(0)),
            **(EXACT if exact else {}),
        }
        try:
            with _writable(model) as file:
                self._pipeline: Any = openvino_genai.ContinuousBatchingPipeline(
                    str(file), self._scheduling(), "CPU", properties
                )
        except RuntimeError as error:
            raise ConfigurationError(
                f"the reply model {model} cannot be loaded: {_first_line(error)}; remove it and "
                "run `deskhand models prepare`"
            ) from error
        self._tokenizer: Any = self._pipeline.get_tokenizer()
        self._handles: dict[int, tuple[Any, int]] = {}
        self._own_ids = continuous.own_ids()

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Generated]:
        """Return one result a prompt, in order; a bad prompt fails alone."""
        return continuous.generate(self, self._own_ids, prompts, max_new_tokens)

    def start(self, request_id: int, prompt: Prompt, max_new_tokens: int) -> None:
        """Take in a prompt; its first token comes with the next step.

        Raises:
            InvalidInput: The prompt is empty or longer than the model's context.
        """
        if not prompt.messages or max_new_tokens < 1:
            raise InvalidInput("an empty prompt, or no room for a reply", field="prompt")
        ids = self._tokenizer.encode(chatml(prompt), add_special_tokens=False).input_ids
        length = int(ids.shape[1])
        if length + max_new_tokens > CONTEXT_TOKENS:
            raise InvalidInput(
                f"a prompt of {length} tokens is longer than the model's context", field="prompt"
            )
        handle = self._pipeline.add_request(
            self._unsigned(request_id), ids, self._greedy(max_new_tokens)
        )
        self._handles[request_id] = (handle, length)

    def step(self) -> Mapping[int, Generated]:
        """Run one step of all that was started; return those that ended in it."""
        if self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        running = self._genai.GenerationStatus.RUNNING
        ended = [
            request
            for request, (handle, _length) in self._handles.items()
            if handle.get_status() != running
        ]
        return {request: self._take(request) for request in ended}

    def drop(self, request_id: int) -> None:
        """Stop a generation that nobody waits for any more."""
        handle, _length = self._handles.pop(request_id, (None, 0))
        if handle is not None:
            handle.cancel()
            if not self._handles and self._pipeline.has_non_finished_requests():
                self._pipeline.step()  # lets the scheduler free what the last one held

    @property
    def running(self) -> int:
        """How many were started and have not ended."""
        return len(self._handles)

    def close(self) -> None:
        """Free the model."""
        for request in list(self._handles):
            self.drop(request)
        self._pipeline = self._tokenizer = None

    def _take(self, request_id: int) -> Generated:
        handle, length = self._handles.pop(request_id)
        outputs = handle.read_all()
        if not outputs:
            return Generated("", Finish.ERROR, length, error="the model had no room for the prompt")
        ids: list[int] = outputs[0].generated_ids
        full = outputs[0].finish_reason == self._genai.GenerationFinishReason.LENGTH
        text = self._tokenizer.decode(ids).strip()
        return Generated(text, Finish.LENGTH if full else Finish.STOP, length, len(ids))

    def _greedy(self, max_new_tokens: int) -> Any:
        config = self._genai.GenerationConfig()
        config.max_new_tokens = max_new_tokens
        config.do_sample = False
        config.eos_token_id = self._tokenizer.get_eos_token_id()
        config.stop_token_ids = {self._tokenizer.get_eos_token_id()}
        return config

    def _scheduling(self) -> Any:
        config = self._genai.SchedulerConfig()
        config.num_kv_blocks = CACHE_BLOCKS
        config.enable_prefix_caching = True  # the constant instruction is computed once
        config.dynamic_split_fuse = True  # a long prompt never holds up others' next tokens
        config.max_num_seqs = MAX_RUNNING
        return config

    @staticmethod
    def _unsigned(request_id: int) -> int:
        return request_id % (1 << 63)


@contextmanager
def _writable(model: Path) -> Generator[Path]:
    """Lend a file that may be written to: the runtime opens a GGUF for writing, and only reads it.

    Another user's file, or one in an image, is copied for as long as it is loaded.
    """
    if os.access(model, os.W_OK) or not model.exists():
        yield model
        return
    with tempfile.TemporaryDirectory(prefix="deskhand-model-") as folder:
        yield Path(shutil.copyfile(model, Path(folder) / model.name))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1][:200] if str(error).strip() else "no reason given"
