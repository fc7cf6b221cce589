"""Labels: staff's word, files of them, and what is inferred from how people used the bot."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from cli.main import run
from core import conversations, faq, label_files, labels
from core.db import feedback
from core.db import labels as rows
from core.db.connect import Database
from core.db.labels import Label
from core.errors import InvalidInput, NotFound
from core.types import (
    Author,
    Choice,
    Citation,
    ConversationId,
    Decision,
    FaqEntry,
    Intent,
    MessageId,
    Passage,
    Question,
    Reply,
    Tier,
    Trace,
    TurnId,
)
from tests.storage.spine import Spine

ANSWERS = {
    "returns": "You can send everything back within thirty days, and we pay the return label.",
    "hours": "Our shop in the old town is open from nine to six, except on Sundays.",
}
PASSAGES = tuple(
    Passage(FaqEntry(entry_id, f"About {entry_id}?", answer), 1.0, chance)
    for (entry_id, answer), chance in zip(ANSWERS.items(), (0.8, 0.1), strict=True)
)


def reply(decision: Decision = Decision.ANSWER) -> Reply:
    """Return a reply that rests on `returns`, or what else is decided about it."""
    answered = decision is Decision.ANSWER
    return Reply(
        Choice(decision, "a test said so", PASSAGES[:1]),
        ANSWERS["returns"] if answered else "A person will come.",
        Tier.APPROVED,
        "en",
        citations=(Citation("returns", "About returns?"),) if answered else (),
        confidence=0.8,
        trace=Trace(
            intents=(Intent("return", 0.9),), passages=PASSAGES, thresholds={"answer_from": 0.7}
        ),
    )


@pytest.fixture
async def talk(spine: Spine) -> Talk:
    """A conversation with a bot that answers by `returns`."""
    for entry_id, answer in ANSWERS.items():
        values = {"id": entry_id, "question": f"About {entry_id}?", "answer": answer}
        await faq.create(spine.database, {**values, "status": "published"}, author="ada")
    return Talk(spine)


class Talk:
    """What customers, the bot and agents do in turn."""

    def __init__(self, spine: Spine) -> None:
        self.spine = spine
        self.database = spine.database

    async def ask(
        self, text: str, decision: Decision = Decision.ANSWER, chat: str = "C1"
    ) -> TurnId:
        async def answered(_: Question) -> Reply:
            return reply(decision)

        self.spine.scripted.does = answered
        conversation = await self.spine.hear(text, chat)
        await self.spine.answer(conversation)
        asked = [m for m in await self.spine.said(conversation) if m.author is Author.CUSTOMER]
        assert asked[-1].turn_id is not None
        return asked[-1].turn_id

    async def rate(self, turn: TurnId, verdict: str, sender: str = "U1") -> None:
        message = await self.spine.value(
            "select message_id from reply where turn_id = %(turn)s", turn=turn
        )
        async with self.database.transaction() as conn:
            await feedback.store_feedback(
                conn, self.spine.inbox.id, MessageId(message), event_id=str(uuid4()),  # type: ignore[arg-type]
                sender=sender, sender_name="", verdict=verdict,
            )  # fmt: skip

    async def agent_says(self, turn: TurnId, *said: str) -> None:
        found = await self.spine.value(
            "select conversation_id from turn where id = %(turn)s", turn=turn
        )
        name = str(ConversationId(found))  # type: ignore[arg-type]
        await conversations.take(self.spine.desk, name, "eve")
        for text in said:
            await conversations.say(self.spine.desk, name, "eve", text)

    async def labels(self) -> list[Label]:
        async with self.database.transaction() as conn:
            base_id = await self.spine.value("select id from knowledge_base")
            return await rows.load(conn, base_id)  # type: ignore[arg-type]

    async def only_label(self) -> Label:
        (label,) = await self.labels()
        return label


async def test_staffs_word_replaces_their_earlier_one_on_a_turn(talk: Talk) -> None:
    turn = await talk.ask("can i send it back")
    await labels.add(talk.database, turn, entry_id="returns", author="ada")
    await labels.add(talk.database, turn, none=True, author="bob")

    label = await talk.only_label()
    assert (label.text, label.entry_id, label.author) == ("can i send it back", None, "bob")
    assert (label.chosen_entry_id, label.confidence, label.is_correct) == ("returns", 0.8, False)
    assert label.means_none


async def test_what_staff_do_not_speak_of_stays_as_they_said_before(talk: Talk) -> None:
    turn = await talk.ask("can i send it back")
    await labels.add(talk.database, turn, entry_id="returns")
    await labels.add(talk.database, turn, intent="return_item")
    await labels.add(talk.database, turn, entry_id="hours")

    label = await talk.only_label()
    assert (label.entry_id, label.intent, label.is_correct) == ("hours", "return_item", False)


async def test_an_intent_alone_says_nothing_about_the_answer(talk: Talk) -> None:
    turn = await talk.ask("can i send it back")
    label = await labels.add(talk.database, turn, intent="return_item")

    assert (label.is_correct, label.means_none, label.only_refutes) == (None, False, False)


async def test_a_label_carries_what_was_said_before(talk: Talk) -> None:
    await talk.ask("do you sell lamps")
    turn = await talk.ask("and can i send them back")

    label = await labels.add(talk.database, turn, entry_id="returns")
    assert [said["author"] for said in label.history] == ["customer", "bot"]
    assert label.history[0]["text"] == "do you sell lamps"


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ({}, InvalidInput, "--entry ID, --none or --intent"),
        ({"entry_id": "returns", "none": True}, InvalidInput, "not both"),
        ({"entry_id": "return"}, NotFound, "is returns meant?"),
        ({"intent": "Not A Word"}, InvalidInput, "such as order_status"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    talk: Talk, said: dict[str, Any], error: type[InvalidInput], message: str
) -> None:
    turn = await talk.ask("can i send it back")
    with pytest.raises(error, match=message.replace("?", r"\?")):
        await labels.add(talk.database, turn, **said)
    assert await talk.labels() == []


async def test_a_turn_that_does_not_exist_is_told(talk: Talk) -> None:
    with pytest.raises(NotFound, match="There is no turn"):
        await labels.add(talk.database, uuid4(), none=True)


async def test_a_thumb_up_says_that_the_answer_was_right_and_one_down_that_it_was_wrong(
    talk: Talk,
) -> None:
    liked = await talk.ask("can i send it back")
    disliked = await talk.ask("when can i come", chat="C2")
    await talk.rate(liked, "up")
    await talk.rate(disliked, "down")

    assert await labels.gather(talk.database) == labels.Gathered(feedback=2, agent=0)
    told = {label.turn_id: label for label in await talk.labels()}
    assert (told[liked].entry_id, told[liked].is_correct) == ("returns", True)
    assert told[disliked].only_refutes
    assert told[disliked].chosen_entry_id == "returns"
    assert all(label.weight < 1 and label.source == "feedback" for label in told.values())


async def test_gathering_again_changes_nothing_until_somebody_thinks_otherwise(talk: Talk) -> None:
    turn = await talk.ask("can i send it back")
    await talk.rate(turn, "up")
    await labels.gather(talk.database)

    assert await labels.gather(talk.database) == labels.Gathered()
    await talk.rate(turn, "down")
    assert await labels.gather(talk.database) == labels.Gathered(feedback=1)
    assert (await talk.only_label()).is_correct is False


async def test_what_staff_said_is_never_overwritten_by_what_is_inferred(talk: Talk) -> None:
    turn = await talk.ask("can i send it back")
    await talk.rate(turn, "down")
    await labels.gather(talk.database)
    await labels.add(talk.database, turn, entry_id="returns", author="ada")
    await labels.gather(talk.database)

    label = await talk.only_label()
    assert (label.source, label.is_correct) == ("staff", True)


async def test_an_agents_answer_in_an_entrys_words_names_the_entry(talk: Talk) -> None:
    turn = await talk.ask("what about my parcel", Decision.HAND_OFF)
    await talk.agent_says(
        turn, "Hello Ann!", "Everything can be sent back within thirty days, we pay the label."
    )
    await labels.gather(talk.database)

    label = await talk.only_label()
    assert (label.source, label.entry_id, label.turn_id) == ("agent", "returns", turn)
    assert label.is_correct is True
    assert 0.4 < label.weight < 1


async def test_an_agents_answer_in_words_of_their_own_says_that_no_entry_answered(
    talk: Talk,
) -> None:
    turn = await talk.ask("can you engrave a name on it", Decision.HAND_OFF)
    await talk.agent_says(
        turn, "Engraving costs twelve euros, takes about one week, and fits twenty letters."
    )
    await labels.gather(talk.database)

    label = await talk.only_label()
    assert label.means_none
    assert (label.source, label.is_correct, label.weight) == ("agent", False, 0.3)


async def test_an_agents_greeting_says_nothing(talk: Talk) -> None:
    turn = await talk.ask("can you engrave a name on it", Decision.HAND_OFF)
    await talk.agent_says(turn, "Hello, one moment please, I will look.")

    assert await labels.gather(talk.database) == labels.Gathered()


async def test_a_question_that_is_asked_again_at_once_speaks_against_its_answer(
    talk: Talk,
) -> None:
    first = await talk.ask("how long does the refund take")
    await talk.ask("how long does the refund take??")
    await labels.gather(talk.database)

    label = await talk.only_label()
    assert (label.turn_id, label.only_refutes, label.weight) == (first, True, 0.3)


async def test_a_like_question_about_something_else_speaks_against_nothing(talk: Talk) -> None:
    await talk.ask("how long is the delivery to Germany")
    await talk.ask("how long is the delivery to France")

    assert await labels.gather(talk.database) == labels.Gathered()


async def test_a_verdict_counts_more_than_asking_again(talk: Talk) -> None:
    first = await talk.ask("how long does the refund take")
    await talk.ask("how long does the refund take??")
    await talk.rate(first, "up")
    await labels.gather(talk.database)

    assert (await talk.only_label()).is_correct is True


async def test_questions_that_staff_have_settled_are_not_asked_of_them_again(talk: Talk) -> None:
    settled = await talk.ask("can i send it back")
    await talk.ask("Can I  send it back", chat="C2")
    open_turn = await talk.ask("do you sell lamps", chat="C3")
    await talk.ask("do you sell lamps", chat="C4")
    await labels.add(talk.database, settled, entry_id="returns")

    found = await labels.open_turns(talk.database)
    assert [asked.text for asked in found.asked] == ["do you sell lamps"]
    assert found.times == [2]
    assert open_turn not in found.refuted
    assert found.questions == {"returns": "About returns?", "hours": "About hours?"}


def given(lines: Sequence[dict[str, Any]], name: str = "l.jsonl") -> list[label_files.Line]:
    return label_files.read([json.dumps(line) + "\n" for line in lines], name)


async def test_a_file_is_taken_in_once_however_often_it_is_given(talk: Talk) -> None:
    lines = given(
        [
            {"text": "may i return it", "entry_id": "returns", "label": "return_item"},
            {"text": "tell me a joke", "none": True, "locale": "de"},
            {"text": "lamps?", "not": ["hours"]},
        ]
    )
    assert await labels.take_in(talk.database, lines, "l.jsonl") == labels.Stored(4, 0)
    assert await labels.take_in(talk.database, lines, "l.jsonl") == labels.Stored(0, 4)

    told = await talk.labels()
    assert {label.source for label in told} == {"file"}
    assert [(e.text, e.locale) for e in told if e.means_none] == [("tell me a joke", "de")]
    assert [e.text for e in told if e.only_refutes] == ["lamps?"]


async def test_a_line_that_names_no_entry_keeps_the_whole_file_out(talk: Talk) -> None:
    lines = given([{"text": "a", "entry_id": "hours"}, {"text": "b", "entry_id": "hour"}])
    with pytest.raises(NotFound, match=r"l\.jsonl line 2: there is no entry 'hour'; is hours"):
        await labels.take_in(talk.database, lines, "l.jsonl")
    assert await talk.labels() == []


async def test_two_imports_at_once_store_each_label_once(talk: Talk) -> None:
    lines = given([{"text": f"question {n}", "none": True} for n in range(20)])
    await asyncio.gather(*(labels.take_in(talk.database, lines, "l") for _ in range(3)))
    assert len(await talk.labels()) == 20


@pytest.fixture
def command(
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Any:
    """Runs a command and returns its status and what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DESKHAND_DATABASE_URL", database_url)
    monkeypatch.setenv("DESKHAND_DATA_DIR", str(tmp_path / "data"))

    async def called(*arguments: str) -> tuple[int, str, str]:
        status = await asyncio.to_thread(run, list(arguments))
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return called


async def test_what_is_next_shows_the_masked_text_the_bots_choice_and_ids_to_answer_with(
    talk: Talk, command: Any
) -> None:
    turn = await talk.ask("send it back, i am ann@example.org")
    status, out, _ = await command("labels", "next", "--json")

    (shown,) = json.loads(out)
    assert status == 0
    assert (shown["turn"], shown["text"]) == (str(turn), "send it back, i am [e-mail]")
    assert shown["chosen"] == ["returns"]
    assert [c["entry_id"] for c in shown["candidates"]] == ["returns", "hours"]

    status, out, _ = await command("labels", "next")
    assert f"{turn}  " in out
    assert "0.80  returns  About returns?" in out
    assert "ann@example.org" not in out


async def test_what_a_command_labels_is_exported_and_known_when_it_comes_back(
    talk: Talk, command: Any
) -> None:
    turn = await talk.ask("send it back, i am ann@example.org")
    status, out, _ = await command("labels", "add", "--turn", str(turn), "--entry", "hours")
    assert (status, out) == (0, "Noted: the bot was wrong.\n")
    assert (await command("labels", "next"))[1].startswith("Nothing to label")

    for name in ("out.jsonl", "out.csv"):
        assert (await command("labels", "export", name))[0] == 0
        text = Path(name).read_text(encoding="utf-8")
        assert "ann@example.org" not in text
        status, out, _ = await command("labels", "import", name, "--json")
        assert json.loads(out) == {"stored": 0, "known": 1}

    exported = json.loads(Path("out.jsonl").read_text(encoding="utf-8"))
    assert (exported["relevant"], exported["not"]) == (["hours"], ["returns"])
    assert (await command("labels", "export", "raw.csv", "--raw"))[0] == 0
    assert "ann@example.org" in Path("raw.csv").read_text(encoding="utf-8")


async def test_only_what_a_training_takes_is_exported(talk: Talk, command: Any) -> None:
    lines = given(
        [
            {"text": "may i return it", "entry_id": "returns", "label": "return_item"},
            {"text": "tell me a joke", "none": True},
        ]
    )
    await labels.take_in(talk.database, lines, "l.jsonl")
    await command("labels", "export", "i.csv", "--only", "intents")
    await command("labels", "export", "e.jsonl", "--only", "entries")

    from training.evaluation.report import read_labelled

    assert read_labelled(Path("i.csv")) == [("may i return it", "return_item")]
    assert json.loads(Path("e.jsonl").read_text(encoding="utf-8"))["relevant"] == ["returns"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("labels", "import", "none.csv"), "There is no file none.csv"),
        (("labels", "export", "x.txt"), "x.txt is neither .csv nor .jsonl"),
        (("labels", "export", "x.csv", "--only", "some"), "'some' is none of"),
        (("labels", "export", "x.csv", "--source", "gods"), "no source 'gods'"),
        (("labels", "export", "no/x.csv"), "cannot be written"),
        (("labels", "next", "--base", "nowhere"), "no knowledge base named nowhere"),
    ],
)
async def test_what_goes_wrong_is_one_clear_line(
    database: Database, command: Any, arguments: Sequence[str], message: str
) -> None:
    status, _, err = await command(*arguments)
    assert status == 1
    assert message in err
    assert err.count("\n") == 1
