"""Made examples keep their label, repeat nothing, leak nothing, and can be made again."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from answering.generators.protocol import Finish, Generated
from answering.prompting import Prompt
from cli.main import run
from core.errors import InvalidInput, TransientError
from core.faq_entries import normalised
from training import augmenting, semi_supervised
from training.augmenting import BY_RULE, Example, augment

TEXTS = (
    ("How do I return a parcel that arrived on Monday?", "return"),
    ("can i cancel my order of 25 euros", "cancel"),
    ("我想取消订单，请问多久可以退款", "cancel"),
    ("Where is my delivery to Germany? I need help", "track"),
)
GIVEN = [Example(text, label, "en", place) for place, (text, label) in enumerate(TEXTS)]


class Model:
    """Answers as it is told, and notes what it was asked."""

    name = "model"

    def __init__(self, *answers: str, finish: Finish = Finish.STOP) -> None:
        self.answers = list(answers)
        self.finish = finish
        self.asked: list[str] = []

    def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Generated]:
        self.asked += [prompt.messages[-1].content for prompt in prompts]
        return [Generated(self.answers.pop(0), self.finish) for _ in prompts]

    def close(self) -> None: ...


@pytest.mark.parametrize("kind", BY_RULE)
def test_what_is_made_keeps_its_label_and_names_its_origin(kind: str) -> None:
    made = augment(GIVEN, [kind], per_example=3)

    assert made
    for example in made:
        assert example.label == GIVEN[example.origin].label
        assert example.source == kind
        assert example.text != GIVEN[example.origin].text


def test_no_text_comes_twice_and_none_that_was_given_or_shall_be_kept_out() -> None:
    first = augment(GIVEN, BY_RULE, per_example=5)
    again = augment(GIVEN, BY_RULE, per_example=5, keep_out=[e.text.upper() for e in first])

    texts = [normalised(e.text) for e in [*GIVEN, *first, *again]]
    assert len(texts) == len(set(texts))


def test_the_same_input_makes_the_same_rows_and_another_seed_makes_others() -> None:
    assert augment(GIVEN, BY_RULE, seed=1) == augment(GIVEN, BY_RULE, seed=1)
    assert augment(GIVEN, BY_RULE, seed=1) != augment(GIVEN, BY_RULE, seed=2)


def test_a_row_more_leaves_what_is_made_of_the_others_as_it_was() -> None:
    alone = augment([replace(GIVEN[1], origin=0)], BY_RULE)
    among = [e for e in augment(GIVEN[:3], BY_RULE) if e.origin == 1]
    assert [e.text for e in alone] == [e.text for e in among]


def test_at_most_so_many_of_each_kind_are_made_of_an_example() -> None:
    made = augment(GIVEN, BY_RULE, per_example=2)
    for kind in BY_RULE:
        for place in range(len(GIVEN)):
            assert sum((e.source, e.origin) == (kind, place) for e in made) <= 2


def test_too_much_is_refused_before_anything_is_made() -> None:
    many = [Example(f"text {n}", "label", "en", n) for n in range(20_000)]
    with pytest.raises(InvalidInput, match="200,000 are the most"):
        augment(many, BY_RULE, per_example=4)


def test_entities_are_swapped_for_others_of_their_kind() -> None:
    text = "My name is Ann, I paid 25 euros on Monday in Berlin"
    swapped = augmenting.swapped(text, random.Random(3))

    kept = [word for word in text.replace(",", "").split() if word in swapped]
    assert kept == ["My", "name", "is", "I", "paid", "on", "in"]
    assert len(swapped.split()) == len(text.split())


def test_codes_and_links_are_no_numbers_to_swap() -> None:
    for text in ("order AB-1234 see x.org/77", "call 12:30", "version 3.1.4 of it"):
        assert augmenting.swapped(text, random.Random(1)) == text


def test_synonyms_keep_the_rest_of_the_text_and_capitals() -> None:
    made = {augmenting.reworded("Parcel is here", random.Random(n)) for n in range(20)}
    assert made == {"Package is here", "Shipment is here"}


def test_chinese_is_reworded_and_mistyped_by_its_own_rules() -> None:
    made = augment([GIVEN[2]], ["typing", "synonyms"], per_example=3)
    assert {e.source for e in made} == {"typing", "synonyms"}
    assert all("取消" in e.text or "撤" in e.text for e in made)


def test_a_models_lines_become_examples_without_their_marks() -> None:
    model = Model('1. "I want to send something back"\n- How can I give it back?\n\nThird way')
    made = augment(GIVEN[:1], ["paraphrase"], per_example=2, model=model)

    assert [e.text for e in made] == ["I want to send something back", "How can I give it back?"]
    assert "How do I return a parcel" in model.asked[0]


def test_what_a_model_writes_instead_of_a_paraphrase_is_left_out() -> None:
    model = Model("您好，怎么退货\n" + "word " * 60 + "\n" + TEXTS[0][0])
    assert augment(GIVEN[:1], ["paraphrase"], model=model) == []


def test_a_line_that_was_cut_short_is_left_out() -> None:
    model = Model("May I send it back?\nIs it possi", finish=Finish.LENGTH)
    made = augment(GIVEN[:1], ["paraphrase"], per_example=3, model=model)
    assert [e.text for e in made] == ["May I send it back?"]


def test_a_prompt_that_a_model_refuses_makes_nothing_and_the_others_go_on() -> None:
    class Refuses(Model):
        def generate(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Generated]:
            good = Generated("May I stop it?", Finish.STOP)
            return [Generated("", Finish.ERROR, error="no"), good]

    made = augment(GIVEN[:2], ["paraphrase"], model=Refuses())
    assert [(e.text, e.label) for e in made] == [("May I stop it?", "cancel")]


def test_a_translation_goes_there_and_back() -> None:
    model = Model("Wie gebe ich ein Paket zurück?", "How can I give a package back?")
    made = augment(GIVEN[:1], ["backtranslation"], model=model)

    assert [(e.text, e.source) for e in made] == [
        ("How can I give a package back?", "backtranslation")
    ]
    assert "into German" in model.asked[0]
    assert "into English" in model.asked[1]
    assert "Wie gebe ich" in model.asked[1]


def test_without_a_model_a_paraphrase_says_what_to_configure() -> None:
    with pytest.raises(InvalidInput, match="DESKHAND_REPLY_MODEL_URL"):
        augment(GIVEN, ["typing", "paraphrase"])


def test_folds_keep_what_was_made_with_its_origin() -> None:
    everything = [*GIVEN, *augment(GIVEN, BY_RULE, per_example=2)]
    parts = augmenting.folds(everything, 2)

    assert sorted(place for part in parts for place in part) == list(range(len(everything)))
    origins = [{everything[place].origin for place in part} for part in parts]
    assert not origins[0] & origins[1]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DESKHAND_DATA_DIR", str(tmp_path / "data"))
    path = tmp_path / "t.csv"
    with path.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([("text", "label"), *TEXTS])
    return path


def test_the_command_writes_given_and_made_rows_and_never_makes_noise_of_noise(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "augment", "--data", "t.csv", "--out", "a.csv"]) == 0
    with Path("a.csv").open(encoding="utf-8", newline="") as written:
        rows = list(csv.DictReader(written))
    assert [row["text"] for row in rows if row["source"] == "given"] == [t for t, _ in TEXTS]
    assert {row["source"] for row in rows} == {"given", *BY_RULE}

    assert run(["train", "augment", "--data", "a.csv", "--out", "b.csv"]) == 0
    assert Path("b.csv").read_text(encoding="utf-8") == Path("a.csv").read_text(encoding="utf-8")
    assert "4 given" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text\nhi\n", "line 1: the header must name text and label"),
        ("text,label\nhi,\n", "line 2: label is empty"),
        ("text,label\n", "holds no examples"),
        ("text,label\nh\xe9llo,a\n", "is not UTF-8"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(
    data: Path, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data.write_bytes(content.encode("latin-1"))
    assert run(["train", "augment", "--data", "t.csv", "--out", "a.csv"]) == 1
    assert message in capsys.readouterr().err
    assert not Path("a.csv").exists()


def test_the_command_says_what_a_paraphrase_needs(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(["train", "augment", "--data", "t.csv", "--out", "a.csv", "--kinds", "paraphrase"])
    assert status == 1
    assert "--model and --url" in capsys.readouterr().err


def test_a_full_disk_leaves_the_file_that_stood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("stood", encoding="utf-8")

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(TransientError, match="No space left"):
        augmenting.write(GIVEN, path)
    assert path.read_text(encoding="utf-8") == "stood"
    assert list(tmp_path.iterdir()) == [path]


def curves(labels: int, per_label: int, seed: int = 0) -> tuple[NDArray[np.float32], list[str]]:
    """Return unit vectors along one curve a label: few of them do not show where it bends."""
    rng = np.random.default_rng(seed)
    bends = np.random.default_rng(99).normal(size=(labels, 3, 24))
    of = np.repeat(np.arange(labels), per_label)
    along = rng.uniform(0, 2, size=len(of))
    half = along.astype(int)
    share = (along - half)[:, None]
    vectors = bends[of, half] * (1 - share) + bends[of, half + 1] * share
    vectors += 0.25 * rng.normal(size=vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), [str(label) for label in of]


def test_unlabelled_messages_are_used_where_they_help_on_held_out_folds() -> None:
    vectors, labels = curves(16, 4)
    unlabelled, hidden = curves(16, 150, seed=1)
    chosen = semi_supervised.extend(vectors, labels, unlabelled)

    assert chosen is not None
    assert chosen.after > chosen.before
    right = [hidden[p] == told for p, told in zip(chosen.places, chosen.labels, strict=True)]
    assert sum(right) / len(right) > 0.9
    assert len(set(chosen.places.tolist())) == len(chosen.labels)


def test_unlabelled_messages_that_have_nothing_to_tell_are_not_used() -> None:
    vectors, labels = curves(16, 4)
    noise = np.random.default_rng(5).normal(size=(400, 24)).astype(np.float32)
    report = semi_supervised.Report()

    assert semi_supervised.extend(vectors, labels, noise, report=report) is None
    assert len(report.trials) == 2


def test_too_few_labelled_messages_are_told() -> None:
    vectors, labels = curves(3, 4)
    with pytest.raises(InvalidInput, match="At least 20 labelled"):
        semi_supervised.extend(vectors, labels, vectors)
