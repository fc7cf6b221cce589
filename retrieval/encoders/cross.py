"""A small cross-encoder: the encoder's own transformer, a low-rank adapter and a linear head.

Both texts pass through the transformer together, so that each word sees the other text's words;
the head reads the mean state of either text, their distance and their product.

Source: two texts in one pass: Devlin et al., BERT, NAACL 2019; the head's features: Conneau et
al., InferSent, EMNLP 2017; the adapter: Hu et al., LoRA, ICLR 2022.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.errors import ConfigurationError
from retrieval.encoders import adapter as adapters
from retrieval.encoders.adapter import Adapter
from retrieval.encoders.loading import load_encoder
from retrieval.encoders.protocol import Encoder, Scores
from retrieval.encoders.sentence_transformer import SentenceTransformerEncoder

if TYPE_CHECKING:
    import torch

HEAD = "head.safetensors"
CONFIG = "cross.json"
LONGEST_TOKENS = 160
"""Of both texts together; the longer one is cut."""
BATCH_TOKENS = 2048
"""Padded tokens in one pass; more gains nothing on a CPU and costs memory."""
FEATURES = 4
"""What the head reads: the mean of a, of b, their distance, their product."""


@dataclass(frozen=True)
class CrossWeights:
    """What training makes and a folder holds.

    Attributes:
        adapter: Of the transformer; its `base` names the encoder that it belongs to.
        weight: Of the head, shape (classes, 4 * hidden), in half precision.
        bias: Of the head, shape (classes,).
        classes: What the head's rows mean.
    """

    adapter: Adapter
    weight: NDArray[np.float16]
    bias: NDArray[np.float16]
    classes: tuple[str, ...]

    @property
    def digest(self) -> str:
        """One hash for all that changes a score."""
        digest = hashlib.sha256(f"{self.adapter.digest} {' '.join(self.classes)}".encode())
        for values in (self.weight, self.bias):
            digest.update(np.ascontiguousarray(values, "<f2").tobytes())
        return digest.hexdigest()


def write(weights: CrossWeights, folder: Path) -> int:
    """Write weights into a folder, and return their size in bytes."""
    from safetensors.numpy import save

    size = adapters.write(weights.adapter, folder)
    head = save({"weight": weights.weight, "bias": weights.bias})
    config = {
        "classes": list(weights.classes),
        "base": weights.adapter.base,
        "digest": weights.digest,
        "longest_tokens": LONGEST_TOKENS,
    }
    for name, data in ((HEAD, head), (CONFIG, (json.dumps(config, indent=2) + "\n").encode())):
        place = folder / f".{name}.part"
        try:
            place.write_bytes(data)
            place.replace(folder / name)
        finally:
            place.unlink(missing_ok=True)
    return size + len(head)


def read(folder: Path) -> CrossWeights:
    """Return the weights in a folder.

    Raises:
        ConfigurationError: There are none, they cannot be read, or files of two trainings mix.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    adapter = adapters.read(folder)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        head = load_file(folder / HEAD)
        weights = CrossWeights(
            adapter, head["weight"].astype(np.float16), head["bias"].astype(np.float16),
            tuple(str(name) for name in config["classes"]),
        )  # fmt: skip
        is_whole = config["digest"] == weights.digest and len(weights.classes) == len(head["bias"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ConfigurationError(
            f"{folder} holds no cross-encoder ({error}); give a folder with {HEAD} and {CONFIG}, "
            "as `deskhand train verifier` writes it"
        ) from error
    if not is_whole:
        raise ConfigurationError(
            f"{folder} holds files of two trainings (the digest in {CONFIG} is another): copy all "
            "files of one training"
        )
    return weights


class CrossEncoder:
    """Scores pairs of texts; the word embeddings are those of the encoder, not a copy.

    Plain blocking functions, called on one thread at a time.
    """

    def __init__(self, network: Network, name: str, classes: tuple[str, ...]) -> None:
        self.name = name
        self.classes = classes
        self._network = network

    @classmethod
    def load(cls, encoder: Encoder | str | Path, weights: Path | CrossWeights) -> CrossEncoder:
        """Return a scorer.

        Args:
            encoder: A loaded one, whose word embeddings are shared, or its folder.
            weights: A folder as `write` fills it, or the weights themselves.

        Raises:
            ConfigurationError: The weights cannot be read, or belong to another encoder.
        """
        known = read(weights) if isinstance(weights, Path) else weights
        if isinstance(encoder, str | Path):
            place = Path(encoder)
            encoder = load_encoder(place.name, place.parent, "cpu")
        if not isinstance(encoder, SentenceTransformerEncoder):
            raise ConfigurationError(f"{encoder.name} is an encoder that takes no adapter")
        if encoder.name != known.adapter.base:
            raise ConfigurationError(
                f"the cross-encoder was trained on {known.adapter.base}, and the encoder is "
                f"{encoder.name}: train it anew"
            )
        network = Network(encoder, len(known.classes))
        adapters.merge_into_module(network.transformer, known.adapter)
        network.set_head(known)
        network.freeze()
        return cls(network, f"{encoder.name}/{known.digest[:8]}", known.classes)

    def score(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        """Return the logits of each pair, shape (pairs, classes); long texts are cut."""
        import torch

        scores = np.zeros((len(pairs), len(self.classes)), np.float32)
        with torch.inference_mode():
            for numbers in self._network.batches(pairs):
                logits = self._network.logits([pairs[number] for number in numbers])
                scores[numbers] = logits.float().cpu().numpy()
        return scores


class Network:
    """The transformer of an encoder, copied but for its word embeddings, with a fresh head."""

    def __init__(self, encoder: SentenceTransformerEncoder, classes: int) -> None:
        import torch

        first: Any = encoder.model[0]
        self.tokenizer: Any = first.tokenizer
        self.transformer: Any = _copied(first.auto_model)
        self.head = torch.nn.Linear(FEATURES * encoder.dimensions, classes)
        self.device: torch.device = encoder.model.device
        self.head.to(self.device)

    def set_head(self, weights: CrossWeights) -> None:
        """Take over a head's weights.

        Raises:
            ConfigurationError: It was made for states of another size.
        """
        import torch

        if weights.weight.shape != tuple(self.head.weight.shape):
            raise ConfigurationError(
                f"the head is of shape {weights.weight.shape}, and this encoder needs "
                f"{tuple(self.head.weight.shape)}: train it anew"
            )
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(weights.weight.astype(np.float32)))
            self.head.bias.copy_(torch.from_numpy(weights.bias.astype(np.float32)))

    def freeze(self) -> None:
        """Let nothing be trained any more; dropout is off."""
        for module in (self.transformer, self.head):
            module.eval()
            module.requires_grad_(False)

    def batches(self, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Return the numbers of the pairs in groups of like length, longest first."""
        lengths = [len(a) + len(b) for a, b in pairs]
        order = sorted(range(len(pairs)), key=lambda number: -lengths[number])
        groups: list[list[int]] = []
        room = 0
        for number in order:
            if room <= 0:
                groups.append([])
                # three characters a token at least; what is cut needs no room
                longest = min(LONGEST_TOKENS, lengths[number] // 3 + 8)
                room = BATCH_TOKENS // longest
            groups[-1].append(number)
            room -= 1
        return groups

    def logits(self, pairs: Sequence[tuple[str, str]]) -> torch.Tensor:
        """Return logits with their gradient, shape (pairs, classes)."""
        import torch

        inputs = self.tokenizer(
            [a for a, _ in pairs], [b for _, b in pairs], padding=True, truncation=True,
            max_length=LONGEST_TOKENS, return_tensors="pt",
        )  # fmt: skip
        owner = torch.tensor(
            [[-1 if i is None else i for i in inputs.sequence_ids(row)]
             for row in range(len(pairs))]
        ).to(self.device)  # fmt: skip
        sent: Any = {name: tensor.to(self.device) for name, tensor in inputs.items()}
        states: torch.Tensor = self.transformer(**sent).last_hidden_state
        a, b = (_mean(states, owner == side) for side in (0, 1))
        return self.head(torch.cat([a, b, (a - b).abs(), a * b], dim=1))


def _mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean state of the marked tokens, shape (pairs, hidden); of none it is zero."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def _copied(transformer: Any) -> Any:
    embeddings: Any = transformer.get_input_embeddings()
    return copy.deepcopy(transformer, {id(embeddings.weight): embeddings.weight})
