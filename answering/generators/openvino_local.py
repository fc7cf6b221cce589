"""The reply model on a CPU: OpenVINO GenAI on a GGUF file, with continuous batching.

By far the fastest runtime on a CPU (a third of transformers' core-milliseconds a token). The
adapter is merged into the file beforehand (`answering.gguf_merging`), since this runtime ignores
adapters beside a GGUF.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from answering.generators import continuous
from answering.generators.protocol import Finish, Generated
from answering.generators.rendering import chatml
from answering.prompting import Prompt
from core.errors import ConfigurationError, InvalidInput

CONTEXT_TOKENS = 2_048
"""The longest prompt that is taken in; the model was trained on up to 8,192."""
CACHE_BLOCKS = 640
"""Of 16 tokens each: 26 usual prompts with their replies at once; beyond that some wait their turn.
The cache of prefixes fills all of it in time: 0.24 GB for the 135M model (0.37 MB a block)."""
ADAPTER_CACHE_BLOCKS = 256
"""Of a further adapter's model: ten usual prompts at once."""
TOKENIZER_FILE = "tokenizer.json"
MAX_RUNNING = 64
TOLD_EVERY = 4
"""New tokens after which the text so far is told: a sentence has some fifteen."""
EXACT = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
}
"""By default activations are rounded to 8 bits in groups, and where two tokens are almost equally
likely a reply in a batch may differ from the same reply alone. These settings made 16 of 16 equal,
at 1.4 times the core time alone and 1.8 times at 16."""


@dataclass
class _Underway:
    """A prompt that is being answered."""

    model: _Model
    handle: Any
    prompt_tokens: int
    told: Callable[[str], None] | None
    ids: list[int] = field(default_factory=list[int])
    finish: Any = None
    shown: int = 0

    def read(self) -> None:
        """Take in the tokens that are there, and tell the text so far every few of them."""
        while self.handle.can_read():
            for output in self.handle.read().values():
                self.ids.extend(output.generated_ids)
                self.finish = output.finish_reason
        if self.told is not None and len(self.ids) - self.shown >= TOLD_EVERY:
            self.shown = len(self.ids)
            self.told(self.model.tokenizer.decode(self.ids).rstrip("\ufffd").strip())


class _OwnTokens:
    """The tokenizer that the runtime finds in a GGUF file."""

    def __init__(self, pipeline: Any) -> None:
        self._tokenizer: Any = pipeline.get_tokenizer()
        self.end = int(self._tokenizer.get_eos_token_id())

    def encode(self, text: str) -> Any:
        """Return ids as the runtime takes them, shape (1, tokens)."""
        return self._tokenizer.encode(text, add_special_tokens=False).input_ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return a text without special tokens."""
        return self._tokenizer.decode(list(ids))


class _FileTokens:
    """A `tokenizer.json`, as training uses it: the runtime's own differs where spaces repeat."""

    def __init__(self, file: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer: Any = Tokenizer.from_file(str(file))
        self.end = int(self._tokenizer.token_to_id("<|im_end|>"))

    def encode(self, text: str) -> Any:
        """Return ids as the runtime takes them, shape (1, tokens)."""
        import openvino

        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return openvino.Tensor(np.asarray([ids], dtype=np.int64))

    def decode(self, ids: Sequence[int]) -> str:
        """Return a text without special tokens."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)


class _Model:
    """One set of weights, with the cache of its own prefixes."""

    def __init__(self, place: Path, scheduling: Any, properties: Mapping[str, Any]) -> None:
        import openvino_genai

        try:
            with _writable(place) as readable:
                self.pipeline: Any = openvino_genai.ContinuousBatchingPipeline(
                    str(readable), scheduling, "CPU", dict(properties)
                )
            tokens = place / TOKENIZER_FILE
            self.tokenizer = (
                _FileTokens(tokens) if place.is_dir() else _OwnTokens(self.pipeline)
            )  # fmt: skip
        except Exception as error:  # tokenizers raises plain Exception
            raise ConfigurationError(
                f"the reply model {place} cannot be loaded: {_first_line(error)}; remove it and "
                "run `deskhand models prepare`"
            ) from error


class OpenVinoGenerator:
    """A GGUF model whose prompts join and leave the batch at every step.

    Each further adapter is a model of its own: the runtime ignores adapters beside a GGUF, and with
    an exported model a token costs twice as much and a batch must share one adapter (ENGINE.md
    section 7). So prompts of one adapter share a batch, and a step goes over all of them.
    """

    def __init__(self, model: Path, name: str, threads: int = 0, *, exact: bool = False) -> None:
        """Load a model that speaks ChatML.

        Args:
            model: A folder from `openvino_saving` or a GGUF file, with the adapter merged.
            name: Of model and adapter, for the trace.
            threads: CPU threads; 0 takes the cores that this process may use.
            exact: Full precision, so that a reply never depends on what else is in the batch.

        Raises:
            ConfigurationError: The file cannot be read.
        """
        import openvino_genai

        self.name = name
        self._genai: Any = openvino_genai
        self._properties = {
            "INFERENCE_NUM_THREADS": threads or len(os.sched_getaffinity(0)),
            **(EXACT if exact else {}),
        }
        self._models = {"": self._load(model, CACHE_BLOCKS)}
        self._underway: dict[int, _Underway] = {}
        self._own_ids = continuous.own_ids()

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Generated]:
        """Return one result a prompt, in order; a bad prompt fails alone."""
        return continuous.generate(self, self._own_ids, prompts, max_new_tokens)

    def start(
        self,
        request_id: int,
        prompt: Prompt,
        max_new_tokens: int,
        told: Callable[[str], None] | None = None,
    ) -> None:
        """Take in a prompt; its first token comes with the next step.

        Raises:
            InvalidInput: The prompt is empty or longer than the model's context, or its adapter is
                not loaded.
        """
        if not prompt.messages or max_new_tokens < 1:
            raise InvalidInput("an empty prompt, or no room for a reply", field="prompt")
        model = self._models.get(prompt.adapter)
        if model is None:
            raise InvalidInput(f"the adapter {prompt.adapter} is not loaded", field="adapter")
        ids = model.tokenizer.encode(chatml(prompt))
        length = int(ids.shape[1])
        if length + max_new_tokens > CONTEXT_TOKENS:
            raise InvalidInput(
                f"a prompt of {length} tokens is longer than the model's context", field="prompt"
            )
        handle = model.pipeline.add_request(
            self._unsigned(request_id), ids, self._greedy(model, max_new_tokens)
        )
        self._underway[request_id] = _Underway(model, handle, length, told)

    def step(self) -> Mapping[int, Generated]:
        """Run one step of all that was started; return those that ended in it."""
        for model in self._models.values():
            if model.pipeline.has_non_finished_requests():
                model.pipeline.step()
        running = self._genai.GenerationStatus.RUNNING
        ended: dict[int, Generated] = {}
        for request_id, underway in list(self._underway.items()):
            if underway.handle.get_status() != running:
                ended[request_id] = self._take(request_id)
            elif underway.told is not None:
                underway.read()
        return ended

    def drop(self, request_id: int) -> None:
        """Stop a generation that nobody waits for any more."""
        underway = self._underway.pop(request_id, None)
        if underway is None:
            return
        underway.handle.cancel()
        pipeline = underway.model.pipeline
        others = any(other.model is underway.model for other in self._underway.values())
        if not others and pipeline.has_non_finished_requests():
            pipeline.step()  # lets the scheduler free what the last one held

    @property
    def running(self) -> int:
        """How many were started and have not ended."""
        return len(self._underway)

    def add_adapter(self, name: str, place: Path) -> None:
        """Load the file that a further adapter was merged into.

        Args:
            name: What prompts call it.
            place: The GGUF file.

        Raises:
            ConfigurationError: The file cannot be read.
        """
        if name not in self._models:
            self._models[name] = self._load(place, ADAPTER_CACHE_BLOCKS)

    def drop_adapter(self, name: str) -> None:
        """Free an adapter; prompts that run on it are failed at the next step."""
        model = self._models.pop(name, None)
        for underway in self._underway.values():
            if underway.model is model:
                underway.handle.cancel()

    def close(self) -> None:
        """Free the models."""
        for request in list(self._underway):
            self.drop(request)
        self._models.clear()

    def _load(self, file: Path, blocks: int) -> _Model:
        return _Model(file, self._scheduling(blocks), self._properties)

    def _take(self, request_id: int) -> Generated:
        underway = self._underway.pop(request_id)
        underway.told = None  # the engine tells the whole reply itself
        underway.read()
        if not underway.ids and underway.finish is None:
            error = "the model had no room for the prompt"
            return Generated("", Finish.ERROR, underway.prompt_tokens, error=error)
        full = underway.finish == self._genai.GenerationFinishReason.LENGTH
        text = underway.model.tokenizer.decode(underway.ids).strip()
        finish = Finish.LENGTH if full else Finish.STOP
        return Generated(text, finish, underway.prompt_tokens, len(underway.ids))

    @staticmethod
    def _greedy(model: _Model, max_new_tokens: int) -> Any:
        import openvino_genai

        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = max_new_tokens
        config.do_sample = False
        config.eos_token_id = model.tokenizer.end
        config.stop_token_ids = {model.tokenizer.end}
        return config

    def _scheduling(self, blocks: int) -> Any:
        config = self._genai.SchedulerConfig()
        config.num_kv_blocks = blocks
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
    if model.is_dir() or os.access(model, os.W_OK) or not model.exists():
        yield model
        return
    with tempfile.TemporaryDirectory(prefix="deskhand-model-") as folder:
        yield Path(shutil.copyfile(model, Path(folder) / model.name))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1][:200] if str(error).strip() else "no reason given"
