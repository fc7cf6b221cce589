"""Chinese conversations of people, as entries and the questions that they answer.

CrossWOZ has no FAQ: entries are made of what its restaurants, sights and hotels are asked about,
one for each name and attribute, so that thousands differ in their name alone. The customers'
messages are people's own.

Source: Zhu et al., CrossWOZ: A Large-Scale Chinese Cross-Domain Task-Oriented Dialogue Dataset
(TACL 2020).
"""

from __future__ import annotations

import json
import random
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import InvalidInput
from core.types import Author, FaqEntry, Utterance
from training.evaluation.retrieval import Query

FILE = "val.json"
NAME = "名称"
UNKNOWN = "我们没有{name}的{slot}信息。"
QUESTIONS: Mapping[str, str] = {
    "地址": "{name}在哪里？",
    "电话": "{name}的电话是多少？",
    "营业时间": "{name}几点营业？",
    "门票": "{name}的门票多少钱？",
    "游玩时间": "{name}可以玩多久？",
    "评分": "{name}的评分是多少？",
    "人均消费": "在{name}吃饭人均消费多少？",
    "推荐菜": "{name}有什么推荐菜？",
    "价格": "{name}住一晚多少钱？",
    "酒店类型": "{name}是什么类型的酒店？",
    "酒店设施": "{name}有哪些酒店设施？",
    "周边景点": "{name}周边有什么景点？",
    "周边餐馆": "{name}周边有什么餐馆？",
    "周边酒店": "{name}周边有什么酒店？",
}
ASKED_OF: Mapping[str, Sequence[str]] = {
    "景点": ("地址", "电话", "门票", "游玩时间", "评分", "周边景点", "周边餐馆", "周边酒店"),
    "餐馆": ("地址", "电话", "营业时间", "人均消费", "推荐菜", "评分",
           "周边景点", "周边餐馆", "周边酒店"),
    "酒店": ("地址", "电话", "价格", "酒店类型", "酒店设施", "评分",
           "周边景点", "周边餐馆", "周边酒店"),
}  # fmt: skip
"""What entries are about, by domain."""

_BRACKETS = re.compile(r"[(（].*?[)）]")


def read(folder: Path, count: int, seed: int = 13) -> tuple[list[FaqEntry], list[Query]]:
    """Return the entries, and so many questions on one attribute of one of them.

    A question's `kind` is `now` where it names the place, `ago` where an earlier message does.

    Raises:
        InvalidInput: The folder does not hold `val.json` or `val.json.zip`, or it is no CrossWOZ.
    """
    stored = _read(folder)
    try:
        told = [fact for dialogue in stored.values() for fact in _facts(dialogue["messages"])]
        asked = [q for key, each in stored.items() for q in _queries(key, each["messages"])]
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise InvalidInput(f"{folder}: this is no CrossWOZ ({error!r} is missing).") from error
    random.Random(seed).shuffle(asked)
    return _entries(told), asked[:count]


def _read(folder: Path) -> Mapping[str, Any]:
    plain, packed = folder / FILE, folder / f"{FILE}.zip"
    try:
        if plain.is_file():
            return json.loads(plain.read_text(encoding="utf-8"))
        with zipfile.ZipFile(packed) as archive:
            return json.loads(archive.read(FILE))
    except FileNotFoundError:
        raise InvalidInput(f"{folder} holds no {FILE}.zip: give the folder of CrossWOZ.") from None
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InvalidInput(f"{folder}: {FILE} cannot be read ({error}).") from error


def _facts(messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (domain, name, attribute, value) that the system told; empty where it only named."""
    for message in messages:
        if message["role"] != "sys":
            continue
        for domain in ASKED_OF:
            names = message["sys_state"][domain]["selectedResults"]
            for name in names:
                yield domain, name, "", ""
            if len(names) == 1:
                for slot, values in _told(message, domain).items():
                    yield domain, names[0], slot, "，".join(values)


def _told(message: Mapping[str, Any], domain: str) -> Mapping[str, list[str]]:
    told: dict[str, list[str]] = {}
    for act, of, slot, value in message["dialog_act"]:
        if act == "Inform" and of == domain and slot in ASKED_OF[domain]:
            told.setdefault(slot, []).append(value)
    return told


def _entries(told: Sequence[tuple[str, str, str, str]]) -> list[FaqEntry]:
    """Return an entry for each name and attribute, also for those that nobody asked about."""
    known = {(domain, name, slot): value for domain, name, slot, value in told if slot}
    names = dict.fromkeys((domain, name) for domain, name, _, _ in told)
    return [
        FaqEntry(
            _key(domain, name, slot),
            QUESTIONS[slot].format(name=name),
            known.get((domain, name, slot)) or UNKNOWN.format(name=name, slot=slot),
            locale="zh",
            entity=name,
        )
        for domain, name in names
        for slot in ASKED_OF[domain]
    ]


def _queries(key: str, messages: Sequence[Mapping[str, Any]]) -> Iterator[Query]:
    said: list[Utterance] = []
    for at, message in enumerate(messages[:-1]):
        text = str(message["content"])
        if message["role"] == "usr" and (wanted := _wanted(message, messages[at + 1])):
            domain, name, slot = wanted
            kind = "now" if _BRACKETS.sub("", name) in text else "ago"
            relevant = frozenset({_key(domain, name, slot)})
            yield Query(f"{key}:{at}", text, tuple(said), relevant, kind)
        author = Author.CUSTOMER if message["role"] == "usr" else Author.BOT
        said.append(Utterance(author, text))


def _wanted(
    message: Mapping[str, Any], following: Mapping[str, Any]
) -> tuple[str, str, str] | None:
    """Return the domain, name and attribute that a message asks for; None unless it is one."""
    requests = [(of, slot) for act, of, slot, _ in message["dialog_act"] if act == "Request"]
    if len(requests) != 1 or requests[0][1] not in ASKED_OF.get(requests[0][0], ()):
        return None
    domain, slot = requests[0]
    names = following["sys_state"][domain]["selectedResults"]
    if len(names) != 1 or slot not in _told(following, domain):
        return None
    return domain, names[0], slot


def _key(domain: str, name: str, slot: str) -> str:
    return f"{domain}/{name}/{slot}"
