"""Each method of fine-tuning trains, is saved, and serves what it learned; so do the options."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from answering.generators import adapted
from answering.generators.adapted import WEIGHTS_FILE
from answering.generators.rendering import render
from answering.generators.transformers_local import TransformersGenerator
from answering.gguf_merging import read_adapter
from answering.prompting import build
from cli.commands.train.replies import check
from core.errors import ConfigurationError, InvalidInput
from core.types import Author, Decision, Utterance
from tests import tiny_model
from training.replies import ensemble, methods, search, session
from training.replies.cleaning import Lesson
from training.replies.data import QuestionAnswer, ReplyExample
from training.replies.fitting import Bench
from training.replies.loop import HEAD_FILE, against, read_head, schedule
from training.replies.objective import Encoded, Learner, collate, encode
from training.replies.recipe import Recipe
from training.replies.session import Extras, Request, contrasted, run

PARCEL = ReplyExample(
    (Utterance(Author.CUSTOMER, "do you ship to France"),),
    (QuestionAnswer("Where do you ship?", "We ship to France and Spain."),),
    "Yes, we ship to France.",
    "ship",
)
HOURS = ReplyExample(
    (Utterance(Author.CUSTOMER, "when do you open"),),
    (QuestionAnswer("When are you open?", "From nine to five, but not on Sundays."),),
    "From nine to five.",
    "hours",
)
RATES = {"ia3": 5e-2, "prefix": 5e-2, "full": 3e-3, "last_layers": 3e-3}


class Interrupted(Exception):
    """A test pulled the plug."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A tiny base with some examples; two decisions."""
    tokenizer = tiny_model.tokenizer()
    base = tiny_model.save(tmp_path_factory.mktemp("base"))
    answers = [encode(example, tokenizer, render) for example in (PARCEL, HOURS)]
    wrong = replace(PARCEL, sources=HOURS.sources, reply="")
    handed = encode(wrong, tokenizer, render, decision=Decision.HAND_OFF)
    training = [*(answers * 6), *([handed] * 4)]
    return Bench(base, "tiny", training, [*answers, handed], 2, answers[0].ids[:64])


def quiet(_line: str) -> None:
    """Nobody reads along."""


def recipe(**values: Any) -> Recipe:
    return Recipe(**{"epochs": 8, "learning_rate": 1e-2, "rank": 4, **values})


@pytest.mark.parametrize("name", list(methods.METHODS))
def test_each_method_learns_and_serves_exactly_what_it_learned(
    bench: Bench, tmp_path: Path, name: str
) -> None:
    plan = recipe(method=name, learning_rate=RATES.get(name, 1e-2))

    outcome = bench.fit(plan, tmp_path, quiet)

    assert outcome.loss_best < outcome.loss_before - 0.05
    assert bench.measure(tmp_path).reply == pytest.approx(outcome.loss_best, abs=0.02)
    assert adapted.served_anywhere(tmp_path) == methods.named(name).served_anywhere
    config = json.loads((tmp_path / adapted.CONFIG_FILE).read_text())
    assert config["base_model_name_or_path"] == "tiny"
    again = replace(bench, start=tmp_path).fit(replace(plan, max_steps=1), tmp_path / "more", quiet)
    assert again.loss_before == pytest.approx(outcome.loss_best, abs=0.02)


@pytest.mark.parametrize("name", ["lora", "prefix", "bottleneck", "last_layers"])
def test_a_generator_writes_with_what_a_method_trained(
    bench: Bench, tmp_path: Path, name: str
) -> None:
    bench.fit(recipe(method=name, epochs=20, learning_rate=RATES.get(name, 2e-2)), tmp_path, quiet)
    prompt = build(PARCEL.message, PARCEL.sources)

    texts: list[str] = []
    for adapter in (None, tmp_path):
        writer = TransformersGenerator(str(bench.base), "tiny", device="cpu", adapter=adapter)
        one, *others = [r.text for r in writer.generate([prompt, prompt, prompt], 24)]
        assert others == [one, one]
        texts.append(one)

    assert texts[0] != texts[1]


def test_adalora_shares_out_its_ranks_and_is_merged_like_lora(bench: Bench, tmp_path: Path) -> None:
    bench.fit(recipe(method="adalora", epochs=16), tmp_path, quiet)

    ranks = {len(down) for _, down in read_adapter(tmp_path).factors.values()}

    assert len(ranks) > 1
    assert sum(len(down) for _, down in read_adapter(tmp_path).factors.values()) == 4 * 14


def test_an_adapter_of_another_model_is_refused(bench: Bench, tmp_path: Path) -> None:
    bench.fit(recipe(method="full", max_steps=1), tmp_path, quiet)
    other = tiny_model.model()
    other.model.layers = other.model.layers[:1]
    state = load_file(tmp_path / WEIGHTS_FILE)

    with pytest.raises(ValueError, match="no weight"):
        adapted.with_weights(other, state)
    with pytest.raises(InvalidInput, match="no method 'dora'"):
        methods.named("dora")


@pytest.mark.parametrize(
    "values",
    [
        {"dropout": 0.2},
        {"method": "adalora"},
        {"optimizer": "adafactor", "schedule": "linear", "action_weight": 0.3},
    ],
)
def test_an_interrupted_training_ends_as_if_it_had_not_been(
    bench: Bench, tmp_path: Path, values: dict[str, Any]
) -> None:
    plan = recipe(**values)
    whole = bench.fit(plan, tmp_path / "whole", quiet, key="k")

    def pull_the_plug(step: int, _reply: float, _action: float) -> None:
        if step == 8:
            raise Interrupted

    with pytest.raises(Interrupted):
        bench.fit(plan, tmp_path / "parts", quiet, key="k", watch=pull_the_plug)
    rest = bench.fit(plan, tmp_path / "parts", quiet, key="k")

    assert rest.resumed_at == 8
    assert (rest.loss_best, rest.best_step) == (whole.loss_best, whole.best_step)
    one, other = (load_file(tmp_path / part / WEIGHTS_FILE) for part in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_checkpoint_of_other_data_is_not_taken_up(bench: Bench, tmp_path: Path) -> None:
    def pull_the_plug(_step: int, _reply: float, _action: float) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        bench.fit(recipe(), tmp_path, quiet, key="k", watch=pull_the_plug)
    assert bench.fit(recipe(), tmp_path, quiet, key="another").resumed_at == 0


@pytest.mark.parametrize("values", [{"accumulate": 3}, {"checkpointing": True}])
def test_what_saves_memory_changes_nothing(
    bench: Bench, tmp_path: Path, values: dict[str, Any]
) -> None:
    plain = bench.fit(recipe(max_steps=4), tmp_path / "plain", quiet)
    saving = bench.fit(recipe(max_steps=4, **values), tmp_path / "saving", quiet)
    assert saving.loss_best == pytest.approx(plain.loss_best, abs=2e-3)


def test_a_prefix_cannot_be_trained_with_checkpointing(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="prefix cannot be trained"):
        bench.fit(recipe(method="prefix", checkpointing=True), tmp_path, quiet)


@pytest.mark.parametrize(
    "values", [{"precision": "bf16"}, {"optimizer": "adafactor"}, {"adversarial": 0.5}]
)
def test_options_of_the_loop_still_learn(
    bench: Bench, tmp_path: Path, values: dict[str, Any]
) -> None:
    outcome = bench.fit(recipe(**values), tmp_path, quiet)
    assert outcome.loss_best < outcome.loss_before * 0.8


def test_half_precision_on_a_cpu_is_refused(bench: Bench, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InvalidInput, match="fp16 needs a GPU"):
        bench.fit(recipe(precision="fp16"), tmp_path, quiet)


def test_training_ends_when_patience_does(bench: Bench, tmp_path: Path) -> None:
    outcome = bench.fit(recipe(learning_rate=0.9, checks=16, patience=2), tmp_path, quiet)
    assert outcome.stopped_early
    assert outcome.steps == outcome.best_step + 2


def test_the_schedules_end_where_they_should() -> None:
    ends = {kind: schedule(100, 100, 0.1, kind) for kind in ("cosine", "linear", "constant")}
    halves = {kind: schedule(55, 100, 0.1, kind) for kind in ends}
    assert ends == pytest.approx({"cosine": 0, "linear": 0, "constant": 1}, abs=1e-9)
    assert halves == pytest.approx({"cosine": 0.5, "linear": 0.5, "constant": 1})


def test_the_joint_objective_learns_what_was_decided(bench: Bench, tmp_path: Path) -> None:
    plan = recipe(epochs=12, action_weight=1.0)

    outcome = bench.fit(plan, tmp_path, quiet)

    assert outcome.action_accuracy == 1.0
    head = read_head(tmp_path, 32)
    assert head is not None
    assert head.linear.weight.abs().sum() > 0
    assert bench.measure(tmp_path).accuracy == 1.0
    assert bench.fit(recipe(max_steps=1), tmp_path / "without", quiet).action_accuracy is None
    assert not (tmp_path / "without" / HEAD_FILE).exists()


def test_a_message_without_a_reply_teaches_its_decision_alone() -> None:
    tokenizer = tiny_model.tokenizer()
    silent = encode(replace(PARCEL, reply=""), tokenizer, render, decision=Decision.REFUSE)
    spoken = encode(PARCEL, tokenizer, render)
    batch = collate([silent, spoken], pad=2)

    sums = Learner(tiny_model.model())(batch)
    alone = Learner(tiny_model.model())(collate([spoken], pad=2))

    assert silent.ids == spoken.ids[: len(silent.ids)]
    assert sums.reply.item() == pytest.approx(alone.reply.item(), rel=1e-4)
    assert batch["last"].tolist()[0] == batch["last"].tolist()[1]


def test_the_adversarial_step_raises_the_loss_by_a_step_of_the_length_asked_for() -> None:
    tokenizer = tiny_model.tokenizer()
    learner = Learner(tiny_model.model())
    batch = collate([encode(PARCEL, tokenizer, render), encode(HOURS, tokenizer, render)], pad=2)
    before = learner(batch, keeps_embeddings=True)
    before.reply.backward()
    embedded = learner.embedded
    assert embedded is not None
    assert embedded.grad is not None

    nudge = against(embedded.detach(), embedded.grad, batch, 0.5)

    assert learner(batch, nudge=nudge).reply.item() > before.reply.item()
    own = batch["attention_mask"][:, -embedded.shape[1] :].unsqueeze(-1)
    assert float((nudge * (1 - own)).abs().sum()) == 0
    lengths = embedded.detach().norm(dim=-1, keepdim=True)
    mean = float((lengths * own).sum() / own.sum())
    assert nudge.flatten(1).norm(dim=1).tolist() == pytest.approx([0.5 * mean] * 2, rel=1e-3)


def test_an_ensemble_is_the_mean_of_the_changes(bench: Bench, tmp_path: Path) -> None:
    places = [tmp_path / "lora", tmp_path / "adalora"]
    for place in places:
        bench.fit(recipe(method=place.name, epochs=6), place, quiet)

    ensemble.average(places, tmp_path / "mean", "tiny")

    def weights(folder: Path) -> dict[str, torch.Tensor]:
        return dict(adapted.put_on(tiny_model.model(), folder).named_parameters())

    one, other = (weights(place) for place in places)
    for name, tensor in weights(tmp_path / "mean").items():
        assert torch.allclose(tensor, (one[name] + other[name]) / 2, atol=2e-2)
    assert not torch.equal(one["model.layers.0.mlp.up_proj.weight"],
                           other["model.layers.0.mlp.up_proj.weight"])  # fmt: skip


def test_an_ensemble_keeps_what_is_best_of_mean_and_members(bench: Bench, tmp_path: Path) -> None:
    said: list[str] = []
    outcome = ensemble.fit(bench, recipe(), 2, tmp_path, said.append, lambda _s, _f: None)
    assert bench.measure(tmp_path).reply == pytest.approx(outcome.loss_best, abs=0.02)
    assert any("of the mean" in line for line in said)
    with pytest.raises(InvalidInput, match="mean of LoRA"):
        ensemble.fit(bench, recipe(method="ia3"), 2, tmp_path, quiet, lambda _s, _f: None)


def test_a_search_returns_the_recipe_of_its_best_trial(bench: Bench, tmp_path: Path) -> None:
    said: list[str] = []

    found = search.search(
        bench, recipe(action_weight=0.2, batch=4), 3, tmp_path / "trials", said.append
    )

    assert found.trials == 3
    assert found.recipe.learning_rate == found.values["learning_rate"]
    assert found.recipe.rank in search.RANKS
    assert search.WEIGHTS[0] <= found.recipe.action_weight <= search.WEIGHTS[1]
    assert not (tmp_path / "trials").exists()
    assert "best of 3 trials" in said[-1]


LINES = [
    {
        "turns": [{"speaker": "U", "text": f"is it number {n} that you have?"}],
        "passages": [{"id": f"e{n}", "question": f"Q{n}?", "answer": f"The answer is {n}."}],
        "reply": f"Yes, the answer is {n}.",
    }
    for n in range(40)
]


@pytest.fixture
def request_(bench: Bench, tmp_path: Path) -> Request:
    """What a session trains on: forty lines of a file."""
    path = tmp_path / "replies.jsonl"
    path.write_text("\n".join(map(json.dumps, LINES)), encoding="utf-8")
    return Request((path,), None, 0, 1, bench.base, "tiny")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_worse_adapter_leaves_the_better_one_that_is_there(
    request_: Request, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(request_, recipe(epochs=4), out, quiet)
    good = content(out)

    said: list[str] = []
    outcome = run(request_, recipe(learning_rate=1e-6, max_steps=1), out, said.append)

    assert not outcome.is_kept
    assert content(out) == good
    assert "stays as it was" in said[-1]
    better = run(replace(request_, start=out), recipe(epochs=6), out, quiet)
    assert better.is_kept
    assert content(out) != good


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Let no file grow beyond a size: what a full disk looks like to who writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_adapter_that_was_there(request_: Request, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(request_, recipe(max_steps=2, learning_rate=1e-5), out, quiet)
    good = content(out)

    with files_up_to(8_000), pytest.raises(ConfigurationError, match="is as it was"):
        run(request_, recipe(epochs=2), out, quiet)

    assert content(out) == good


def test_a_session_goes_on_after_an_interruption(request_: Request, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def pull_the_plug(line: str) -> None:
        if "step 10/20 validation loss" in line:
            raise Interrupted

    # the plug is pulled before the second checkpoint: it goes on after the first
    with pytest.raises(Interrupted):
        run(request_, recipe(epochs=4, checks=4), out, pull_the_plug)
    assert not (out / WEIGHTS_FILE).exists()
    outcome = run(request_, recipe(epochs=4, checks=4), out, quiet)

    assert outcome.resumed_at == 5
    assert {path.name for path in out.iterdir()} == {
        "adapter_model.safetensors", "adapter_config.json", "training.json", "held-out.jsonl",
        "logs",
    }  # fmt: skip


def test_curves_are_kept_and_a_missing_service_is_said(request_: Request, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    said: list[str] = []
    out = tmp_path / "out"
    run(request_, recipe(max_steps=4), out, said.append, Extras(wandb_project="replies"))

    shown = EventAccumulator(str(out / "logs")).Reload()
    assert [event.step for event in shown.Scalars("loss/training")] == [1, 2, 3, 4]
    assert shown.Scalars("loss/validation")
    assert any("wandb" in line and "not installed" in line for line in said)


def test_one_decision_alone_is_contrasted_with_messages_that_no_source_answers(
    request_: Request,
) -> None:
    plain = session.gather(request_, 0)
    both = session.gather(request_, 0, contrasts=True)

    added = [lesson for lesson in both.own if lesson.decision is Decision.HAND_OFF]
    assert len(both.own) == len(plain.own) + len(added)
    assert 0 < len(added) <= round(len(plain.own) * 0.3)
    assert all(not lesson.example.reply for lesson in added)
    by_message = {lesson.example.message: lesson.example for lesson in plain.own}
    assert all(
        lesson.example.sources != by_message[lesson.example.message].sources for lesson in added
    )


def test_contrasts_are_none_where_all_have_one_entry() -> None:
    assert contrasted([Lesson(PARCEL), Lesson(PARCEL)], 0, share=1.0) == []


def test_adalora_without_steps_to_share_out_is_refused(request_: Request, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="at least 10 steps"):
        run(request_, recipe(method="adalora", max_steps=3), tmp_path / "out", quiet)


def test_what_is_in_the_way_and_no_adapter_is_left_alone(request_: Request, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "adapter_config.json").write_text('{"peft_type": "DESKHAND_BOTTLENECK"}')
    (out / WEIGHTS_FILE).write_bytes(b"not weights")
    with pytest.raises((InvalidInput, ConfigurationError)):
        run(request_, recipe(max_steps=1), out, quiet)
    assert (out / WEIGHTS_FILE).read_bytes() == b"not weights"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"method": "magic"}, "method"),
        ({"optimizer": "sgd"}, "optimizer"),
        ({"schedule": "steps"}, "schedule"),
        ({"precision": "int8"}, "precision"),
        ({"learning_rate": 2.0}, "lr"),
    ],
)
def test_an_option_that_means_nothing_is_named(values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check(Recipe(**values))
    assert caught.value.field == field


def test_examples_of_unequal_parts_add_up() -> None:
    examples = [Encoded((1, 5, 6, 7, 8, 9, 2), 2), Encoded((1, 5, 6, 30, 31, 2), 3)]
    learner = Learner(tiny_model.model())
    whole = learner(collate(examples, 2)).reply.item()
    parts = sum(learner(collate([example], 2)).reply.item() for example in examples)
    assert parts == pytest.approx(whole, rel=1e-4)
