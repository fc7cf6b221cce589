"""The engine: batched equals one by one, one bad input fails alone, nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from answering.engine import Engine, Told
from answering.engine.jobs import Errand
from answering.engine.waiting import Queue
from answering.generators.protocol import Finish, Generated
from answering.prompting import ChatMessage, Prompt
from core.errors import ConfigurationError, InvalidInput, PermanentError, Unavailable
from retrieval.encoders.protocol import PairScorer, Scores, Vectors


class Letters:
    """An encoder whose vectors count letters; a text with `!` breaks a whole batch."""

    name = "letters"
    dimensions = 26

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        self.begun.set()
        self.gate.wait()
        self.batches.append(list(texts))
        if any("!" in text for text in texts):
            raise ValueError("a text that cannot be read")
        counts = np.asarray([[text.count(chr(97 + i)) + 0.01 for i in range(26)] for text in texts])
        return (counts / np.linalg.norm(counts, axis=1, keepdims=True)).astype(np.float32)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        return self.encode_queries(texts)


class Echo:
    """A generator that repeats; it takes in new prompts while others run, three steps each."""

    name = "echo"

    def __init__(self) -> None:
        self._left: dict[int, tuple[int, str]] = {}
        self._told: dict[int, Callable[[str], None] | None] = {}
        self.added: dict[str, Path] = {}
        self.most_at_once = 0
        self.dropped: list[int] = []
        self.breaks = False
        self.endless = False

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Generated]:
        return [Generated(p.messages[-1].content, Finish.STOP) for p in prompts]

    def start(
        self,
        request_id: int,
        prompt: Prompt,
        max_new_tokens: int,
        told: Callable[[str], None] | None = None,
    ) -> None:
        if not prompt.messages:
            raise InvalidInput("the prompt is empty")
        self._left[request_id] = (3, prompt.messages[-1].content)
        self._told[request_id] = told
        self.most_at_once = max(self.most_at_once, len(self._left))

    def step(self) -> Mapping[int, Generated]:
        if self.breaks:
            self.breaks = False
            raise RuntimeError("out of memory")
        if self.endless:
            return {}
        self._left = {key: (left - 1, text) for key, (left, text) in self._left.items()}
        for key, (left, text) in self._left.items():
            if (told := self._told[key]) is not None:
                told(text[: len(text) - left])
        ended = {k: Generated(t, Finish.STOP) for k, (left, t) in self._left.items() if left == 0}
        for key in ended:
            del self._left[key]
        return ended

    def drop(self, request_id: int) -> None:
        self.dropped.append(request_id)
        self._left.pop(request_id, None)

    def ready_adapter(self, folder: Path) -> Path:
        if folder.name == "wrong":
            raise ConfigurationError("the adapter does not fit this reply model")
        return folder / "ready"

    def add_adapter(self, name: str, place: Path) -> None:
        assert threading.current_thread().name == "engine"
        self.added[name] = place

    def drop_adapter(self, name: str) -> None:
        assert threading.current_thread().name == "engine"
        del self.added[name]

    @property
    def running(self) -> int:
        return len(self._left)

    def close(self) -> None:
        self._left.clear()


class Batches:
    """A generator without continuous batching."""

    name = "batches"

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Generated]:
        self.sizes.append(len(prompts))
        return [Generated(p.messages[-1].content, Finish.STOP) for p in prompts]

    def close(self) -> None: ...


class Server:
    """A generator that is asked from the event loop and never answers `slow`."""

    name = "server"

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Generated]:
        raise AssertionError("the thread of the models asked the server")

    def close(self) -> None: ...

    async def reply(
        self, prompt: Prompt, max_new_tokens: int, told: Told | None = None
    ) -> Generated:
        text = prompt.messages[-1].content
        if text == "slow":
            await asyncio.Event().wait()
        return Generated(text, Finish.STOP)


class Lengths:
    """A scorer: the two texts' lengths are the logits; a text with `!` breaks a whole batch."""

    name = "lengths"
    classes = ("first", "second")

    def __init__(self) -> None:
        self.batches: list[int] = []

    def score(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        self.batches.append(len(pairs))
        if any("!" in one + other for one, other in pairs):
            raise ValueError("a pair that cannot be read")
        return np.asarray([[len(one), len(other)] for one, other in pairs], np.float32)


@contextmanager
def running(
    encoder: Letters,
    generator: Echo | Batches | Server | None = None,
    *,
    queue_limit: int = 512,
    stall_seconds: float = 120.0,
    on_stall: Callable[[], None] = lambda: None,
    scorers: Mapping[str, PairScorer] | None = None,
) -> Generator[Engine]:
    engine = Engine(
        encoder,
        generator,
        scorers=scorers,
        queue_limit=queue_limit,
        stall_seconds=stall_seconds,
        on_stall=on_stall,
    ).start()
    try:
        yield engine
    finally:
        encoder.gate.set()
        engine.close()


async def until(condition: Callable[[], bool]) -> None:
    """Give the engine's thread its turns until something is so; the test's timeout ends it."""
    while not condition():  # noqa: ASYNC110 the condition is another thread's, it sets no event
        await asyncio.sleep(0)


def prompt(text: str) -> Prompt:
    return Prompt((ChatMessage("user", text),))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(st.text("abcxyz ", min_size=1, max_size=30), min_size=1, max_size=3)))
def test_batched_equals_one_by_one(requests: list[list[str]]):
    async def together(engine: Engine) -> list[Vectors]:
        return await asyncio.gather(*(engine.encode(texts) for texts in requests))

    encoder = Letters()
    with running(encoder) as engine:
        found = asyncio.run(together(engine))
    for texts, vectors in zip(requests, found, strict=True):
        assert vectors == pytest.approx(Letters().encode_queries(texts))


async def test_what_waits_together_is_encoded_in_one_pass():
    encoder = Letters()
    encoder.gate.clear()
    with running(encoder) as engine:
        first = asyncio.create_task(engine.encode(["a"]))
        await asyncio.to_thread(encoder.begun.wait)
        others = [asyncio.create_task(engine.encode([letter])) for letter in "bcde"]
        await until(lambda: engine.waiting == 4)
        encoder.gate.set()
        await asyncio.gather(first, *others)
    assert encoder.batches == [["a"], ["b", "c", "d", "e"]]


async def test_one_bad_text_fails_alone():
    with running(Letters()) as engine:
        results = await asyncio.gather(
            engine.encode(["good"]), engine.encode(["bad!"]), engine.encode(["fine"]),
            return_exceptions=True,
        )  # fmt: skip
    assert isinstance(results[1], PermanentError)
    assert not isinstance(results[0], BaseException)
    assert not isinstance(results[2], BaseException)


async def test_a_full_queue_refuses():
    encoder = Letters()
    encoder.gate.clear()
    with running(encoder, queue_limit=2) as engine:
        held = asyncio.create_task(engine.encode(["a"]))
        await asyncio.to_thread(encoder.begun.wait)
        waiting = [asyncio.create_task(engine.encode(["b"])) for _ in range(2)]
        await until(lambda: engine.waiting == 2)
        with pytest.raises(Unavailable):
            await engine.encode(["c"])
        encoder.gate.set()
        await asyncio.gather(held, *waiting)


async def test_a_caller_who_left_and_one_whose_time_is_over_are_skipped():
    encoder = Letters()
    encoder.gate.clear()
    with running(encoder) as engine:
        held = asyncio.create_task(engine.encode(["a"]))
        await asyncio.to_thread(encoder.begun.wait)
        left = asyncio.create_task(engine.encode(["left"]))
        late = asyncio.create_task(engine.encode(["late"], seconds=-1.0))
        await until(lambda: engine.waiting == 2)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        encoder.gate.set()
        with pytest.raises(Unavailable):
            await late
        await held
    assert encoder.batches == [["a"]]


async def test_a_text_longer_than_the_encoder_reads_is_cut():
    encoder = Letters()
    with running(encoder) as engine:
        await engine.encode(["word " * 100_000])
    assert len(encoder.batches[0][0]) < 3_000


async def test_replies_are_written_together_and_each_goes_to_its_caller():
    generator = Echo()
    with running(Letters(), generator) as engine:
        written = await asyncio.gather(
            *(engine.generate(prompt(str(n)), 30.0, 20) for n in range(30))
        )
    assert [w.text for w in written] == [str(n) for n in range(30)]
    assert 1 < generator.most_at_once <= 16


async def test_a_generator_without_steps_works_in_batches():
    generator = Batches()
    with running(Letters(), generator) as engine:
        written = await asyncio.gather(
            *(engine.generate(prompt(str(n)), 30.0, 20) for n in range(30))
        )
    assert [w.text for w in written] == [str(n) for n in range(30)]
    assert sum(generator.sizes) == 30
    assert max(generator.sizes) <= 16


async def test_a_bad_prompt_fails_alone():
    with running(Letters(), Echo()) as engine:
        results = await asyncio.gather(
            engine.generate(prompt("good"), 30.0, 20), engine.generate(Prompt(()), 30.0, 20),
            return_exceptions=True,
        )  # fmt: skip
    assert isinstance(results[0], Generated)
    assert isinstance(results[1], InvalidInput)


async def test_a_step_that_fails_does_not_end_the_engine():
    generator = Echo()
    generator.breaks = True
    with running(Letters(), generator) as engine:
        with pytest.raises(Unavailable):
            await engine.generate(prompt("one"), 30.0, 20)
        assert (await engine.generate(prompt("two"), 30.0, 20)).text == "two"


async def test_a_reply_whose_caller_left_frees_its_place():
    generator = Echo()
    generator.endless = True
    with running(Letters(), generator) as engine:
        task = asyncio.create_task(engine.generate(prompt("one"), 30.0, 20))
        await until(lambda: generator.running > 0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: generator.running == 0)
    assert generator.dropped == [1]


async def test_an_encoding_is_not_held_up_by_replies():
    generator = Echo()
    generator.endless = True
    with running(Letters(), generator) as engine:
        endless = asyncio.create_task(engine.generate(prompt("one"), 30.0, 20))
        await until(lambda: generator.running > 0)
        assert (await engine.encode(["a"])).shape == (1, 26)
        endless.cancel()
        await asyncio.gather(endless, return_exceptions=True)


async def test_an_engine_that_stalls_fails_its_callers_and_says_so():
    stalled = threading.Event()
    encoder = Letters()
    encoder.gate.clear()
    with running(encoder, stall_seconds=0.2, on_stall=stalled.set) as engine:
        with pytest.raises(Unavailable):
            await engine.encode(["a"])
        assert await asyncio.to_thread(stalled.wait, 10.0)
        with pytest.raises(Unavailable):
            await engine.encode(["b"])


async def test_an_engine_that_is_closed_refuses():
    engine = Engine(Letters()).start()
    engine.close()
    with pytest.raises(Unavailable):
        await engine.encode(["a"])


async def test_without_a_model_there_is_no_reply():
    with running(Letters()) as engine, pytest.raises(Unavailable):
        await engine.generate(prompt("one"), 30.0, 20)


async def test_pairs_are_scored_together_and_each_caller_gets_its_own():
    encoder, scorer = Letters(), Lengths()
    encoder.gate.clear()
    with running(encoder, scorers={"verifier": scorer}) as engine:
        held = asyncio.create_task(engine.encode(["a"]))
        await asyncio.to_thread(encoder.begun.wait)
        asked = [
            asyncio.create_task(engine.score_pairs("verifier", [("a" * n, "b")] * n))
            for n in (1, 2, 3)
        ]
        await until(lambda: engine.waiting == 3)
        encoder.gate.set()
        scores = await asyncio.gather(*asked)
        await held
    assert [s.tolist() for s in scores] == [[[n, 1]] * n for n in (1, 2, 3)]
    assert scorer.batches == [6]


async def test_many_pairs_are_split_into_passes():
    scorer = Lengths()
    with running(Letters(), scorers={"verifier": scorer}) as engine:
        scores = await engine.score_pairs("verifier", [("word " * 50, str(n)) for n in range(200)])
    assert scores.shape == (200, 2)
    assert len(scorer.batches) > 2


async def test_no_pairs_have_no_scores_and_an_unknown_scorer_is_away():
    with running(Letters(), scorers={"verifier": Lengths()}) as engine:
        assert (await engine.score_pairs("verifier", [])).shape == (0, 2)
        with pytest.raises(Unavailable, match="no reranker is loaded"):
            await engine.score_pairs("reranker", [("a", "b")])


async def test_a_pair_that_cannot_be_read_fails_alone():
    with running(Letters(), scorers={"verifier": Lengths()}) as engine:
        results = await asyncio.gather(
            engine.score_pairs("verifier", [("a", "b")]),
            engine.score_pairs("verifier", [("bad!", "b")]),
            return_exceptions=True,
        )
    assert not isinstance(results[0], BaseException)
    assert isinstance(results[1], PermanentError)


async def test_the_text_so_far_is_told_while_a_reply_is_written():
    heard: list[str] = []
    with running(Letters(), Echo()) as engine:
        written = await engine.generate(prompt("a reply"), 30.0, 20, heard.append)
    assert heard == ["a rep", "a repl", "a reply", "a reply"]
    assert heard[-1] == written.text


async def test_a_listener_that_fails_does_not_fail_the_reply():
    def broken(text: str) -> None:
        raise ValueError(text)

    with running(Letters(), Echo()) as engine:
        assert (await engine.generate(prompt("one"), 30.0, 20, broken)).text == "one"


async def test_a_slow_server_holds_up_neither_encoding_nor_other_replies():
    with running(Letters(), Server()) as engine:
        slow = asyncio.create_task(engine.generate(prompt("slow"), 30.0, 20))
        await until(lambda: engine.waiting == 1)
        assert (await engine.encode(["a"])).shape == (1, 26)
        assert (await engine.generate(prompt("quick"), 30.0, 20)).text == "quick"
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)
        assert engine.waiting == 0


async def test_a_server_that_does_not_answer_in_time_is_not_waited_for():
    with running(Letters(), Server()) as engine, pytest.raises(Unavailable, match="time"):
        await engine.generate(prompt("slow"), 0.02, 20)


async def test_adapters_are_added_and_freed_on_the_models_thread(tmp_path: Path):
    generator = Echo()
    with running(Letters(), generator) as engine:
        await engine.add_adapter("shop", tmp_path / "shop")
        await engine.add_adapter("bank", tmp_path / "bank")
        await engine.keep_adapters({"bank"})
        with pytest.raises(ConfigurationError, match="does not fit"):
            await engine.add_adapter("wrong", tmp_path / "wrong")
        assert engine.adapters == {"bank"}
    assert generator.added == {"bank": tmp_path / "bank" / "ready"}


async def test_a_model_that_takes_no_adapters_says_so(tmp_path: Path):
    with (
        running(Letters(), Batches()) as engine,
        pytest.raises(ConfigurationError, match="one adapter, for all bases"),
    ):
        await engine.add_adapter("shop", tmp_path)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(
    st.integers(1, 6),
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 5)),
            st.tuples(st.just("take"), st.integers(1, 4)),
            st.tuples(st.just("cancel"), st.integers(0, 5)),
            st.tuples(st.just("later"), st.integers(1, 3)),
        ),
        max_size=40,
    ),
)
def test_a_queue_keeps_order_and_limit_and_gives_out_only_what_is_wanted(
    limit: int, moves: list[tuple[str, int]]
):
    clock, work = Clock(), threading.Condition()
    queue = Queue[Errand](work, limit, clock)
    waiting: list[Errand] = []
    for move, number in moves:
        if move == "put":
            job = Errand(lambda: None, clock.now + number)
            with work:
                if len(waiting) >= limit:
                    with pytest.raises(Unavailable):
                        queue.put(job)
                else:
                    queue.put(job)
                    waiting.append(job)
        elif move == "cancel" and waiting:
            waiting[number % len(waiting)].future.cancel()
        elif move == "later":
            clock.now += number
        elif move == "take":
            taken = queue.take(number)
            wanted = [j for j in waiting if not j.future.cancelled() and clock.now < j.expires_at]
            assert taken == wanted[:number]
            left = waiting.index(taken[-1]) + 1 if len(taken) == number else len(waiting)
            assert all(j.future.done() for j in waiting[:left] if j not in taken)
            waiting = waiting[left:]
        assert len(queue) == len(waiting)
