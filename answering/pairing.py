"""Two engines as one: the encoder's and the reply model's, of which each can be replaced alone."""

from __future__ import annotations

from collections.abc import Sequence

from answering.engine import Engine, Told
from answering.generators.protocol import Generated
from answering.prompting import Prompt
from core.errors import Unavailable
from retrieval.encoders.protocol import Encoder, PairScorer, Scores, Vectors


class NoEncoder:
    """Stands in an engine that only writes replies."""

    name = "none"
    dimensions = 0

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Raise Unavailable."""
        raise Unavailable("this engine only writes replies")

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Raise Unavailable."""
        raise Unavailable("this engine only writes replies")


class Pair:
    """An engine that encodes and an engine that writes, with the interface of one.

    They run beside each other, so a new encoder can fill its indexes while the old one answers, and
    a pipeline on the new one goes on with the reply model that is loaded.

    Args:
        encoding: Started; only its encoder is used.
        replying: Started; only its generator is used. None where only approved answers are given.
    """

    def __init__(self, encoding: Engine, replying: Engine | None) -> None:
        self.encoding = encoding
        self.replying = replying
        self.encoder: Encoder = encoding.encoder
        self.generator = replying.generator if replying else None

    def close(self) -> None:
        """Stop both engines."""
        self.encoding.close()
        if self.replying is not None:
            self.replying.close()

    async def encode(self, texts: Sequence[str], *, seconds: float = 30.0) -> Vectors:
        """See `Engine.encode`."""
        return await self.encoding.encode(texts, seconds=seconds)

    async def encode_passages(self, texts: Sequence[str], *, seconds: float = 3600.0) -> Vectors:
        """See `Engine.encode_passages`."""
        return await self.encoding.encode_passages(texts, seconds=seconds)

    async def encode_examples(self, texts: Sequence[str]) -> Vectors:
        """See `Engine.encode_examples`."""
        return await self.encoding.encode_examples(texts)

    async def score_pairs(
        self, name: str, pairs: Sequence[tuple[str, str]], *, seconds: float = 30.0
    ) -> Scores:
        """See `Engine.score_pairs`; scorers share the encoder's base, and so its engine."""
        return await self.encoding.score_pairs(name, pairs, seconds=seconds)

    async def generate(
        self, prompt: Prompt, seconds: float, new_tokens: int, on_text: Told | None = None
    ) -> Generated:
        """See `Engine.generate`."""
        if self.replying is None:
            raise Unavailable("no reply model is loaded")
        return await self.replying.generate(prompt, seconds, new_tokens, on_text)

    @property
    def scorers(self) -> dict[str, PairScorer]:
        """What reads pairs of texts, by name."""
        return self.encoding.scorers

    @property
    def waiting(self) -> int:
        """How many requests wait or run."""
        return self.encoding.waiting + (self.replying.waiting if self.replying else 0)

    @property
    def seconds_a_reply(self) -> float:
        """How long a generation takes now."""
        return self.replying.seconds_a_reply if self.replying else 0.0


def encoding_part(engine: Engine | Pair) -> Engine:
    """Return the engine that encodes."""
    return engine.encoding if isinstance(engine, Pair) else engine


def replying_part(engine: Engine | Pair) -> Engine | None:
    """Return the engine that writes replies, None where nothing writes any."""
    if isinstance(engine, Pair):
        return engine.replying
    return engine if engine.generator is not None else None


def release(old: Engine | Pair, kept: Sequence[Engine | Pair]) -> None:
    """Free the models of an engine that others do not go on using; nothing may run on it.

    Blocks until the threads have ended.
    """
    encoding = {id(encoding_part(engine)) for engine in kept}
    replying = {id(replying_part(engine)) for engine in kept}
    for engine in {id(e): e for e in (encoding_part(old), replying_part(old)) if e}.values():
        if id(engine) not in encoding | replying:
            engine.close()
        if id(engine) not in replying and engine.generator is not None:
            generator, engine.generator = engine.generator, None
            generator.close()
        if id(engine) not in encoding:
            engine.encoder = NoEncoder()
            engine.scorers = {}
