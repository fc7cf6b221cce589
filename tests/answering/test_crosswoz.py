"""CrossWOZ as entries and questions; the dialogue here is our own, in the set's form."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from core.errors import InvalidInput
from core.types import Author
from training.evaluation import crosswoz


def turn(role: str, text: str, acts: list[list[str]], chosen: tuple[str, ...] = ()) -> Any:
    state = {domain: {"selectedResults": []} for domain in crosswoz.ASKED_OF}
    state["餐馆"]["selectedResults"] = list(chosen)
    return {"role": role, "content": text, "dialog_act": acts, "sys_state": state}


NAME = "绿柳茶楼(北门店)"
DIALOGUE = {
    "1": {
        "messages": [
            turn("usr", "推荐一家餐馆。", [["Request", "餐馆", "名称", ""]]),
            turn("sys", f"推荐{NAME}。", [["Inform", "餐馆", "名称", NAME]], (NAME,)),
            turn("usr", "它在哪儿？", [["Request", "餐馆", "地址", ""]]),
            turn("sys", "北门街1号。", [["Inform", "餐馆", "地址", "北门街1号"]], (NAME,)),
            turn("usr", "绿柳茶楼的电话呢？", [["Request", "餐馆", "电话", ""]]),
            turn("sys", "010-1。", [["Inform", "餐馆", "电话", "010-1"]], (NAME,)),
            turn("usr", "谢谢。", [["General", "thank", "none", "none"]]),
            turn("sys", "不客气。", []),
        ]
    }
}


def test_what_people_ask_about_a_place_becomes_entries_and_questions(tmp_path: Path):
    (tmp_path / "val.json").write_text(json.dumps(DIALOGUE), encoding="utf-8")
    entries, asked = crosswoz.read(tmp_path, 10)
    assert len(entries) == len(crosswoz.ASKED_OF["餐馆"])
    by_id = {entry.id: entry for entry in entries}
    assert by_id[f"餐馆/{NAME}/地址"].answer == "北门街1号"
    assert {q.text: (q.kind, len(q.history)) for q in asked} == {
        "它在哪儿？": ("ago", 2),
        "绿柳茶楼的电话呢？": ("now", 4),
    }
    assert all(query.relevant <= by_id.keys() for query in asked)
    assert asked[0].history[1].author is Author.BOT


def test_the_set_is_read_as_it_is_published(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "val.json.zip", "w") as archive:
        archive.writestr("val.json", json.dumps(DIALOGUE))
    assert len(crosswoz.read(tmp_path, 1)[1]) == 1


def test_a_folder_without_it_is_named(tmp_path: Path):
    with pytest.raises(InvalidInput, match=r"holds no val\.json\.zip"):
        crosswoz.read(tmp_path, 1)
    (tmp_path / "val.json").write_text('{"1": {}}')
    with pytest.raises(InvalidInput, match="no CrossWOZ"):
        crosswoz.read(tmp_path, 1)
