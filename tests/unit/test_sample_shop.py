"""The sample shop is content: these tests keep it consistent and its test set honest."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SHOP = ROOT / "cli" / "commands" / "sample_shop"
GENERAL = ROOT / "answering" / "data" / "general_intents.csv"

GENERAL_INTENTS = {"greeting", "thanks", "goodbye", "human_request", "complaint", "feedback"}
SHOP_INTENTS = {
    "order_status",
    "returns",
    "shipping",
    "payment",
    "product_info",
    "warranty_repair",
    "account",
    "gift_cards",
    "stores",
    "business",
}
LOCALES = {"en", "zh", "de", "fr", "es", "ja"}

NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
LINK = re.compile(r"\]\(([^)]*)\)")
CODE = re.compile(r"`([^`]*)`")


@cache
def lines(name: str) -> list[dict[str, Any]]:
    text = (SHOP / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@cache
def entries() -> dict[str, dict[str, Any]]:
    return {entry["id"]: entry for entry in lines("faq.jsonl")}


@cache
def examples(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def numbers(text: str) -> set[str]:
    return set(NUMBER.findall(LINK.sub("]", text)))


def said(turns: list[dict[str, str]], speaker: str = "US") -> list[str]:
    return [turn["text"] for turn in turns if turn["speaker"] in speaker]


def plain(text: str) -> str:
    """Return a text without case, spaces and punctuation: what makes two wordings the same."""
    return "".join(re.findall(r"\w", text.lower()))


def test_the_faq_is_large_enough_in_both_languages_and_every_id_is_unique():
    counted = Counter(entry["locale"] for entry in lines("faq.jsonl"))

    assert counted["en"] >= 84
    assert counted["zh"] >= 42
    assert len(entries()) == len(lines("faq.jsonl"))


@pytest.mark.parametrize("entry", lines("faq.jsonl"), ids=lambda entry: entry["id"])
def test_an_entry_is_complete(entry: dict[str, Any]):
    assert entry["question"].strip()
    assert entry["answer"].strip()
    assert 3 <= len(entry["alternates"]) <= 6
    assert len({plain(text) for text in entry["alternates"]}) == len(entry["alternates"])
    assert entry["tags"]
    assert entry["status"] == "published"
    assert entry["source_url"].startswith("https://brackenfold.example/")


@pytest.mark.parametrize(
    "entry", [e for e in lines("faq.jsonl") if e["locale"] == "zh"], ids=lambda entry: entry["id"]
)
def test_a_chinese_entry_names_the_same_numbers_links_and_codes_as_its_english_twin(
    entry: dict[str, Any],
):
    assert entry["id"].endswith("-zh")
    twin = entries()[entry["id"].removesuffix("-zh")]

    assert numbers(entry["answer"]) == numbers(twin["answer"])
    for pattern in (LINK, CODE):
        assert sorted(pattern.findall(entry["answer"])) == sorted(pattern.findall(twin["answer"]))


def test_no_wording_belongs_to_two_entries_of_one_language():
    owners: dict[tuple[str, str], set[str]] = {}
    for entry in lines("faq.jsonl"):
        for text in (entry["question"], *entry["alternates"]):
            owners.setdefault((entry["locale"], plain(text)), set()).add(entry["id"])

    assert [key for key, ids in owners.items() if len(ids) > 1] == []


def test_general_intents_have_enough_examples():
    counted = Counter((row["label"], row["locale"]) for row in examples(GENERAL))

    assert {label for label, _ in counted} == GENERAL_INTENTS | {"out_of_scope"}
    assert {locale for _, locale in counted} == LOCALES
    for intent in GENERAL_INTENTS:
        assert counted[intent, "en"] >= 25
        assert counted[intent, "zh"] >= 12
    assert counted["out_of_scope", "en"] >= 80
    assert counted["out_of_scope", "zh"] >= 40


def test_the_shops_intents_have_enough_examples():
    counted = Counter((row["label"], row["locale"]) for row in examples(SHOP / "intents.csv"))

    assert {label for label, _ in counted} == SHOP_INTENTS | {"out_of_scope"}
    for intent in SHOP_INTENTS:
        assert counted[intent, "en"] >= 20
        assert counted[intent, "zh"] >= 8


def test_no_example_has_two_labels():
    labels: dict[str, set[str]] = {}
    for row in examples(GENERAL) + examples(SHOP / "intents.csv"):
        labels.setdefault(row["text"].strip().lower(), set()).add(row["label"])

    assert [text for text, found in labels.items() if len(found) > 1] == []


def test_test_conversations_end_with_the_customer_and_name_entries_that_exist():
    cases = lines("conversations.jsonl")

    assert len(cases) >= 60
    assert len({case["id"] for case in cases}) == len(cases)
    for case in cases:
        assert case["turns"][-1]["speaker"] == "U"
        assert case["expect"] in {"answer", "small_talk", "refuse", "hand_off"}
        assert case["answerable"] == bool(case["relevant"]) == (case["expect"] == "answer")
        assert set(case["relevant"]) <= entries().keys()


def test_a_references_numbers_stand_in_the_relevant_entries_or_the_conversation():
    for case in lines("conversations.jsonl"):
        known = [entries()[key]["answer"] for key in case["relevant"]] + said(case["turns"])
        assert numbers(case["reference"]) <= numbers(" ".join(known)), case["id"]


def test_no_test_wording_stands_in_a_training_file():
    trained = {
        plain(text) for e in lines("faq.jsonl") for text in (e["question"], *e["alternates"])
    }
    trained |= {plain(row["text"]) for row in examples(GENERAL) + examples(SHOP / "intents.csv")}
    trained |= {plain(text) for pair in lines("replies.jsonl") for text in said(pair["turns"], "U")}

    tested = [case["turns"][-1]["text"] for case in lines("conversations.jsonl")]

    assert [text for text in tested if plain(text) in trained] == []


def test_there_are_enough_training_pairs_of_each_kind():
    pairs = lines("replies.jsonl")
    count = len(pairs)
    refusals = sum(pair["reply"].startswith("No,") for pair in pairs)
    consents = sum(pair["reply"].startswith("Yes,") for pair in pairs)

    assert count >= 220
    assert refusals >= 50
    assert consents >= 50
    assert sum(len(pair["passages"]) > 1 for pair in pairs) >= count // 3


def test_a_training_replys_numbers_stand_in_its_passages_or_turns():
    for pair in lines("replies.jsonl"):
        known = [f"{passage['question']} {passage['answer']}" for passage in pair["passages"]]
        known += said(pair["turns"])
        assert numbers(pair["reply"]) <= numbers(" ".join(known)), pair["reply"]


def test_a_training_passage_of_the_shop_is_the_entry_as_it_stands():
    for pair in lines("replies.jsonl"):
        for passage in pair["passages"]:
            entry = entries().get(passage["id"])
            if entry is None:  # a passage of another business
                continue
            assert passage["question"] == entry["question"]
            assert passage["answer"] == entry["answer"]


def test_a_training_reply_is_short_and_asks_nothing():
    for pair in lines("replies.jsonl"):
        assert pair["decision"] == "answer"
        assert pair["turns"][-1]["speaker"] == "U"
        assert not pair["reply"].endswith("?")
        assert len(pair["reply"]) <= 240


def test_system_texts_exist_in_all_languages():
    general = json.loads((ROOT / "core" / "texts.json").read_text(encoding="utf-8"))
    own = json.loads((SHOP / "texts.json").read_text(encoding="utf-8"))

    assert general.keys() == own.keys() == LOCALES
    for locale in LOCALES:
        assert general[locale].keys() == general["en"].keys()
        assert own[locale].keys() == {"greeting", "refuse"}
        assert all("Brackenfold" in text for text in own[locale].values())
