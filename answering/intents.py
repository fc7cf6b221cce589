"""What a message wants: a calibrated classifier on embeddings, with out-of-scope as an outcome."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.sparse import csr_array, vstack
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.linear_model import LogisticRegression

from answering import scope, wording
from answering.scope import Scope
from answering.wording import WordingHead
from core.types import Intent

Matrix = NDArray[np.float32]
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Names = NDArray[np.str_]
Flags = NDArray[np.bool_]

OUT_OF_SCOPE = "out_of_scope"
QUESTION = "question"
"""What FAQ entries stand for: a question about this business that no own intent names."""
GENERAL = frozenset({"greeting", "thanks", "goodbye", "human_request", "complaint", "feedback"})
HUMAN_REQUEST = "human_request"
CUED_FROM = 0.15
CUED = 0.9
_PERSON = re.compile(
    r"\b(?:humans?|real (?:person|people|human)|(?:a|some) person|someone|somebody|"
    r"live (?:agent|chat|person)|"
    r"(?:an?|the|your) (?:agent|representative|employee|operator|advisor|manager|supervisor)|agent|"
    r"representative|colleague|staff|menschen?|mitarbeiter|berater|humain|personne|conseiller|"
    r"persona|humano|agente)\b|人工|真人|客服|坐席|经理|オペレーター|担当者",
    re.IGNORECASE,
)
GENERAL_EXAMPLES = Path(__file__).parent / "data" / "general_intents.csv"
HEAD = "intents.npz"
"""The file of a head in its folder."""

INVERSE_PENALTY = 20.0
"""Logistic regression's C on centred unit vectors; 10 to 40 are alike on held-out BANKING77."""
NEIGHBOURS = 5
FEW, FEW_FOLDS = 1_500, 8
"""Of few examples each fold must leave nearly all to learn from, or confidence comes too low."""
LARGE, FOLDS = 4_000, 4
"""Above so many examples one held-out part is enough, and folds would take minutes."""
HELD_OUT = 0.2
RARE, RARE_FOLDS = 1_000, 3
"""Fewer examples of out-of-scope than this are seen in more parts: its threshold rests on them."""
LEFT_OUT = 0.25
"""Share of the intents that stand for out-of-scope in turn, where there are no examples of it."""
SHARE_UNKNOWN = 0.1
"""Of out-of-scope messages, until traffic tells more; examples of it are fewer than messages."""
NAMED_BELOW = 40
"""An intent's name counts as an example where there are fewer examples an intent than this."""
NEAR_TEMPERATURE = 0.05
READ_FROM = 0.5
"""Share of a text's letters that the examples must have, for its words to count."""
SIGNALS = 8
"""How many signals tell what is out of scope."""


@dataclass(frozen=True)
class IntentFigures:
    """How well intents are told on labelled texts; `ece` is the expected calibration error."""

    accuracy: float
    macro_f1: float
    in_scope_accuracy: float
    oos_recall: float
    oos_precision: float
    mcc: float
    ece: float
    n: int


@dataclass(frozen=True)
class Near:
    """A known example near a message.

    Attributes:
        row: Its number among the examples that the head was fitted on, from 0.
        cosine: Around the centre of all examples.
        weight: Its share in what the shown examples say; they sum to 1.
    """

    row: int
    label: str
    cosine: float
    weight: float


@dataclass(frozen=True)
class Sight:
    """What the heads see in some texts; arrays of shape (texts, labels), `near` (texts, 2).

    `worded` is nan for texts in letters that the head on words has hardly seen.
    """

    dense: Floats
    worded: Floats | None
    near: Floats


@dataclass(frozen=True)
class Heads:
    """A linear head on vectors, one on the words where texts are known, and known examples.

    Attributes:
        labels: The columns of both heads.
        centre: Of all examples; e5's vectors lie in a narrow cone (cosines 0.7 to 1).
        weights: Of the head on centred vectors, shape (hidden, labels).
        bias: Shape (labels,).
        worded: The head on n-grams.
        known: Centred vectors of the examples in scope, shape (examples, hidden).
        known_labels: Columns of these, shape (examples,).
        known_rows: Their numbers among all examples.
    """

    labels: tuple[str, ...]
    centre: Matrix
    weights: Floats
    bias: Floats
    worded: WordingHead | None
    known: Matrix
    known_labels: Rows
    known_rows: Rows

    @property
    def inside(self) -> list[int]:
        """The columns of known intents."""
        return [i for i, label in enumerate(self.labels) if label != OUT_OF_SCOPE]

    def see(self, vectors: Matrix, counts: csr_array | None) -> Sight:
        """Return what both heads and the nearest examples say."""
        centred = _centred(vectors, self.centre)
        worded = None
        if self.worded is not None and counts is not None:
            worded = self.worded.scores(counts)
        dense = np.asarray(centred @ self.weights + self.bias, np.float64)
        return Sight(dense, worded, _nearness(centred, self.known))


@dataclass(frozen=True)
class Blend:
    """How much each head counts; fitted so that held-out labels become likeliest.

    `alone` is for texts that only their vector is known of.
    """

    dense: float = 1.0
    worded: float = 0.0
    alone: float = 1.0

    def logits(self, sight: Sight, inside: Sequence[int]) -> Floats:
        """Return calibrated logits of the known intents, shape (texts, inside)."""
        alone = self.alone * sight.dense[:, inside]
        if sight.worded is None:
            return alone
        both = self.dense * sight.dense[:, inside] + self.worded * sight.worded[:, inside]
        return np.where(np.isnan(both), alone, both)


@dataclass(frozen=True)
class Examples:
    """What a head is fitted on.

    Attributes:
        vectors: Shape (examples, hidden).
        labels: Shape (examples,).
        counts: Of their words, shape (examples, buckets); None leaves out the head on words.
        named: Vectors of what intents are called, by label.
        origins: Shape (examples,): the row of which an example was made, its own number where it
            was given, -1 where its label was guessed; only given ones are held out, and what was
            made of them with them.
    """

    vectors: Matrix
    labels: Names
    counts: csr_array | None
    named: Mapping[str, Matrix]
    origins: Rows

    @property
    def given(self) -> Flags:
        """Which examples were given, so that they may be held out; shape (examples,)."""
        return self.origins == np.arange(len(self.origins))

    def besides(self, part: Rows) -> Flags:
        """Return which examples have nothing to do with a part that is held out."""
        return ~np.isin(self.origins, part)

    def heads(self, rows: Rows) -> Heads:
        """Return heads fitted on some of the examples."""
        names, vectors = self.labels[rows], self.vectors[rows]
        centre = vectors.mean(axis=0)
        centred = _centred(vectors, centre)
        known = names != OUT_OF_SCOPE
        labels, columns = np.unique(names, return_inverse=True)
        called = [str(x) for x in labels if str(x) in self.named]
        seen, classes = centred, names
        if called:
            said = _centred(np.stack([self.named[x] for x in called]), centre)
            seen, classes = np.vstack([seen, said]), np.concatenate([names, called])
        weights, bias = _linear(seen, classes)
        worded = None
        if self.counts is not None:
            spoken = vstack([self.counts[rows], wording.counted([*map(in_words, called)])])
            where = np.concatenate([columns, np.searchsorted(labels, called)]).astype(np.int64)
            worded = wording.fit(csr_array(spoken), where, len(labels))
        return Heads(
            tuple(str(x) for x in labels), centre, weights, bias, worded,
            centred[known], columns[known].astype(np.int64), rows[known],
        )  # fmt: skip

    def see(self, heads: Heads, rows: Rows) -> Sight:
        """Return what heads see in some of the examples."""
        return heads.see(self.vectors[rows], None if self.counts is None else self.counts[rows])


@dataclass(frozen=True)
class Rehearsal:
    """What heads that were fitted on one part see in another.

    `truth` holds their labels, out of scope where the heads never saw the label.
    """

    heads: Heads
    sight: Sight
    truth: Names
    rows: Rows


class IntentClassifier:
    """Linear heads for the known intents, and evidence for "none of them".

    A text's vector and its words are read by a head each; how much either counts is fitted on
    held-out examples, which calibrates too. What is out of scope is told by how the heads see a
    text and how far the nearest known examples are, so that also what resembles no example is;
    how many messages are is the `share`, which unlabelled messages correct (`for_traffic`).
    """

    def __init__(
        self,
        heads: Heads,
        blend: Blend,
        evidence: Scope,
        share: float,
        letters: frozenset[str] = frozenset(),
    ) -> None:
        self.labels = heads.labels
        self._letters = letters
        self.share = share
        self._heads = heads
        self._blend = blend
        self._scope = evidence

    @classmethod
    def fit(
        cls,
        vectors: Matrix,
        labels: Sequence[str],
        *,
        texts: Sequence[str] | None = None,
        named: Mapping[str, Matrix] | None = None,
        origins: Sequence[int] | None = None,
        seed: int = 7,
    ) -> IntentClassifier:
        """Fit on labelled unit vectors, shape (texts, hidden); takes seconds.

        Without examples of `out_of_scope`, intents that are left out in turn stand for them.

        Args:
            vectors: Of the examples, as queries.
            labels: As many.
            texts: What the examples say; the words then count as well.
            named: Vectors of `in_words(label)`: where examples are few, what an intent is called
                is one more.
            origins: The row of which each example was made, as noise or a paraphrase of it; its
                own number where it was given, -1 where its label was guessed. Repeated texts are
                found without.
            seed: Of the parts that are held out.
        """
        classifier, _ = cls.rehearsed(
            vectors, labels, texts=texts, named=named, origins=origins, seed=seed
        )
        return classifier

    @classmethod
    def rehearsed(
        cls,
        vectors: Matrix,
        labels: Sequence[str],
        *,
        texts: Sequence[str] | None = None,
        named: Mapping[str, Matrix] | None = None,
        origins: Sequence[int] | None = None,
        seed: int = 7,
    ) -> tuple[IntentClassifier, Rehearsed]:
        """Fit as `fit` does; return also how held-out examples were told."""
        names = np.asarray(labels)
        kinds = np.unique(names)
        made_of = _origins(len(names), texts) if origins is None else np.asarray(origins, np.int64)
        few = (made_of >= 0).sum() < NAMED_BELOW * len(kinds)
        called = {k: v for k, v in (named or {}).items() if k != OUT_OF_SCOPE} if few else {}
        counts = None if texts is None else wording.counted(texts)
        examples = Examples(vectors, names, counts, called, made_of)
        rng = np.random.default_rng(seed)
        rehearsals = list(_rehearsals(examples, rng))
        blend = _fit_blend(rehearsals)
        has_outside = OUT_OF_SCOPE in kinds
        evidence = _fit_scope(rehearsals if has_outside else list(_left_out(examples, rng)), blend)
        if not has_outside and rehearsals:
            evidence = evidence.standardised_by(_signals_of(rehearsals, blend))
        heads = examples.heads(np.arange(len(names)))
        share = max(float((names == OUT_OF_SCOPE).mean()), SHARE_UNKNOWN)
        letters = frozenset("".join(texts or ()).casefold())
        classifier = cls(heads, blend, evidence, scope.bounded(share), letters)
        return classifier, Rehearsed.of(rehearsals, blend, names)

    def for_traffic(self, vectors: Matrix, texts: Sequence[str] | None = None) -> IntentClassifier:
        """Return the classifier for traffic like these unlabelled messages.

        Only the share of out-of-scope messages changes; few messages change it little.
        """
        evidence = self._scope.evidence(self._signals(self._see(vectors, texts)))
        share = scope.share_in(evidence, self.share)
        return IntentClassifier(self._heads, self._blend, self._scope, share, self._letters)

    def predict(self, vectors: Matrix, texts: Sequence[str] | None = None) -> list[list[Intent]]:
        """Return the intents of each text, likeliest first; probabilities sum to 1."""
        probabilities = self.probabilities(vectors, texts)
        names = self.names
        return [
            [Intent(names[i], float(row[i])) for i in np.argsort(-row, kind="stable")]
            for row in probabilities
        ]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of `probabilities`: the known intents, then out of scope."""
        return (*(label for label in self.labels if label != OUT_OF_SCOPE), OUT_OF_SCOPE)

    def probabilities(self, vectors: Matrix, texts: Sequence[str] | None = None) -> Floats:
        """Return calibrated probabilities, shape (texts, names)."""
        sight = self._see(vectors, texts)
        outside = self._scope.chance(self._signals(sight), self.share)
        known = softmax(self._blend.logits(sight, self._heads.inside), axis=1)
        return np.column_stack([known * (1 - outside)[:, None], outside])

    def evaluate(
        self, vectors: Matrix, labels: Sequence[str], texts: Sequence[str] | None = None
    ) -> IntentFigures:
        """Return how well the labels of texts are told."""
        return figures(self.names, self.probabilities(vectors, texts), labels)

    def explain(self, vector: Matrix, count: int = NEIGHBOURS) -> list[Near]:
        """Return the known examples nearest to a message, shape (hidden,), nearest first."""
        heads = self._heads
        if not len(heads.known):
            return []
        cosines = (heads.known @ _centred(vector[None], heads.centre)[0]).astype(np.float64)
        nearest = np.argsort(-cosines, kind="stable")[:count]
        weights = softmax(cosines[nearest] / NEAR_TEMPERATURE)
        return [
            Near(
                int(heads.known_rows[i]),
                heads.labels[heads.known_labels[i]],
                float(cosines[i]),
                float(weight),
            )
            for i, weight in zip(nearest, weights, strict=True)
        ]

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return what `restore` needs, as arrays."""
        heads = self._heads
        kept: dict[str, NDArray[np.generic]] = {
            "labels": np.asarray(heads.labels),
            "centre": heads.centre,
            "weights": heads.weights.astype(np.float32),
            "bias": heads.bias.astype(np.float32),
            "known": heads.known.astype(np.float16),
            "known_labels": heads.known_labels.astype(np.int32),
            "known_rows": heads.known_rows.astype(np.int32),
            "blend": np.asarray([self._blend.dense, self._blend.worded, self._blend.alone]),
            "scope": np.stack([self._scope.middle, self._scope.spread, self._scope.weights[:-1]]),
            "scope_constant": self._scope.weights[-1:],
            "share": np.asarray([self.share]),
            "letters": np.asarray(sorted(map(ord, self._letters)), np.int32),
        }
        if heads.worded is not None:
            kept["worded_idf"] = heads.worded.idf
            kept["worded_weights"] = heads.worded.weights.astype(np.float16)
            kept["worded_bias"] = heads.worded.bias
        return kept

    @classmethod
    def restore(cls, state: Mapping[str, NDArray[np.generic]]) -> IntentClassifier:
        """Return the classifier whose state this is.

        Raises:
            KeyError: It is the state of something else.
        """
        worded = None
        if "worded_idf" in state:
            worded = WordingHead(
                state["worded_idf"].astype(np.float32),
                state["worded_weights"].astype(np.float32),
                state["worded_bias"].astype(np.float32),
            )
        heads = Heads(
            tuple(str(label) for label in state["labels"]),
            state["centre"].astype(np.float32),
            state["weights"].astype(np.float64),
            state["bias"].astype(np.float64),
            worded,
            state["known"].astype(np.float32),
            state["known_labels"].astype(np.int64),
            state["known_rows"].astype(np.int64),
        )
        middle, spread, weights = state["scope"].astype(np.float64)
        constant = state["scope_constant"].astype(np.float64)
        evidence = Scope(middle, spread, np.concatenate([weights, constant]))
        blend = Blend(*(float(value) for value in state["blend"].astype(np.float64)))
        letters = frozenset(chr(letter) for letter in state["letters"].astype(np.int64).tolist())
        share = float(state["share"].astype(np.float64)[0])
        return cls(heads, blend, evidence, share, letters)

    def _see(self, vectors: Matrix, texts: Sequence[str] | None) -> Sight:
        if texts is None or self._heads.worded is None:
            return self._heads.see(vectors, None)
        sight = self._heads.see(vectors, wording.counted(texts))
        if sight.worded is not None:
            sight.worded[[not self._can_read(text) for text in texts]] = np.nan
        return sight

    def _can_read(self, text: str) -> bool:
        """Return whether a text is mostly in letters that the examples have, as Chinese is not."""
        letters = [letter for letter in text.casefold() if letter.isalpha()]
        return sum(letter in self._letters for letter in letters) >= READ_FROM * len(letters)

    def _signals(self, sight: Sight) -> Floats:
        return _scope_signals(self._heads, sight, self._blend)


@dataclass(frozen=True)
class Rehearsed:
    """How held-out examples were told, where each was held out once at most.

    Attributes:
        rows: Of the examples, in rising order.
        told: The label that was likeliest among the known ones.
        own: The probability of the label that the file gives.
        best: The probability of `told`.
    """

    rows: Rows
    told: Names
    own: Floats
    best: Floats

    @classmethod
    def of(cls, rehearsals: Sequence[Rehearsal], blend: Blend, names: Names) -> Rehearsed:
        """Return how the examples of some rehearsals were told."""
        rows, told, own, best = [], [], [], []
        for r in rehearsals:
            inside = r.heads.inside
            labels = np.asarray([r.heads.labels[i] for i in inside])
            columns = {label: i for i, label in enumerate(labels.tolist())}
            chances = softmax(blend.logits(r.sight, inside), axis=1)
            for i in np.flatnonzero(r.truth != OUT_OF_SCOPE):
                top = int(chances[i].argmax())
                rows.append(int(r.rows[i]))
                told.append(str(labels[top]))
                own.append(float(chances[i, columns[str(r.truth[i])]]))
                best.append(float(chances[i, top]))
        order = np.argsort(rows, kind="stable")
        return cls(
            np.asarray(rows, np.int64)[order],
            np.asarray(told, dtype=names.dtype)[order],
            np.asarray(own, np.float64)[order],
            np.asarray(best, np.float64)[order],
        )


def load_head(folder: Path) -> IntentClassifier:
    """Return the head of a folder that `deskhand train intents` wrote.

    Raises:
        OSError, ValueError, KeyError, zipfile.BadZipFile: It is missing or damaged.
    """
    with (folder / HEAD).open("rb") as file, np.load(file, allow_pickle=False) as stored:
        return IntentClassifier.restore(dict(stored))


def in_words(label: str) -> str:
    """Return what an intent is called, for people and for encoders: `card_arrival` in words."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", label)
    return " ".join(re.sub(r"[^\w]|_", " ", split).split()).lower()


def with_cues(text: str, intents: Sequence[Intent]) -> Sequence[Intent]:
    """Return intents in which plain words for a person count, where the classifier half agrees.

    To miss somebody who asks for a person is the worst of all mistakes.
    """
    wish = next((i for i in intents if i.name == HUMAN_REQUEST), None)
    if wish is None or wish.probability < CUED_FROM or not _PERSON.search(text):
        return intents
    rest = [i for i in intents if i is not wish]
    return [Intent(HUMAN_REQUEST, max(wish.probability, CUED)), *rest]


def general_examples() -> list[tuple[str, str]]:
    """Return the examples of general intents that come with the product, as (text, label)."""
    with GENERAL_EXAMPLES.open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def figures(names: Sequence[str], probabilities: Floats, labels: Sequence[str]) -> IntentFigures:
    """Return the figures of predictions whose columns are `names`."""
    from sklearn.metrics import f1_score, matthews_corrcoef

    true = np.asarray(labels)
    best = probabilities.argmax(axis=1)
    told = np.asarray(names)[best]
    right = told == true
    out, said_out = true == OUT_OF_SCOPE, told == OUT_OF_SCOPE
    return IntentFigures(
        accuracy=float(right.mean()),
        macro_f1=float(f1_score(true, told, average="macro", labels=np.unique(true))),
        in_scope_accuracy=_mean(right[~out]),
        oos_recall=_mean(said_out[out]),
        oos_precision=_mean(out[said_out]),
        mcc=float(matthews_corrcoef(true, told)),
        ece=_calibration_error(probabilities.max(axis=1), right),
        n=len(true),
    )


def _mean(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else 0.0


def _calibration_error(confidence: Floats, right: NDArray[np.bool_], bins: int = 15) -> float:
    """Return the expected calibration error: Naeini et al. 2015, equal-width bins."""
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    return float(
        sum(
            (inside := which == b).mean() * abs(confidence[inside].mean() - right[inside].mean())
            for b in range(bins)
            if (which == b).any()
        )
    )


def _origins(count: int, texts: Sequence[str] | None) -> Rows:
    """Return the first row of each text: what is repeated must not be held out from itself."""
    if texts is None:
        return np.arange(count)
    first: dict[str, int] = {}
    return np.asarray([first.setdefault(text, i) for i, text in enumerate(texts)], np.int64)


def _folds(examples: Examples, rng: np.random.Generator) -> list[Rows]:
    """Return parts to hold out in turn, each with its share of every label."""
    given = np.flatnonzero(examples.given)
    names = examples.labels[given]
    folds = FEW_FOLDS if len(given) <= FEW else FOLDS if len(given) <= LARGE else 1
    order = rng.permutation(len(given))
    ordered = given[order[np.argsort(names[order], kind="stable")]]
    if folds == 1:
        step = round(1 / HELD_OUT)
        rare = 0 < (names == OUT_OF_SCOPE).sum() < RARE
        return [np.sort(ordered[i::step]) for i in range(RARE_FOLDS if rare else 1)]
    return [np.sort(ordered[i::folds]) for i in range(folds)]


def _rehearsals(examples: Examples, rng: np.random.Generator) -> Iterator[Rehearsal]:
    """Yield how each part is seen by heads that are fitted on the rest."""
    for part in _folds(examples, rng):
        rest = np.flatnonzero(examples.besides(part))
        if len(part) and _can_learn(examples.labels[rest]):
            yield _rehearse(examples, rest, part)


def _left_out(examples: Examples, rng: np.random.Generator) -> Iterator[Rehearsal]:
    """Yield rehearsals in which a share of the intents is not learned, so that it is unknown."""
    kinds = rng.permutation(np.unique(examples.labels))
    away = max(int(len(kinds) * LEFT_OUT), 1)
    parts = _folds(examples, rng)
    for turn in range(2 if len(parts) == 1 else FOLDS):
        unknown = np.isin(examples.labels, np.roll(kinds, turn * away)[:away])
        part = parts[turn % len(parts)]
        train = np.flatnonzero(examples.besides(part) & ~unknown)
        if not len(part) or not _can_learn(examples.labels[train]):
            continue
        if len(parts) > 1:  # of many examples the part itself shows enough unknown ones
            part = np.union1d(part, np.flatnonzero(unknown & examples.given))
        yield _rehearse(examples, train, part)


def _can_learn(names: Names) -> bool:
    """Return whether two known intents are among some labels."""
    kinds = np.unique(names)
    return len(kinds) > 1 and (kinds != OUT_OF_SCOPE).any()


def _rehearse(examples: Examples, train: Rows, test: Rows) -> Rehearsal:
    heads = examples.heads(train)
    names = examples.labels[test]
    truth = np.where(np.isin(names, heads.labels), names, OUT_OF_SCOPE)
    return Rehearsal(heads, examples.see(heads, test), truth, test)


def _linear(vectors: Matrix, names: Names) -> tuple[Floats, Floats]:
    """Fit a multinomial logistic head; return its weights (hidden, labels) and bias."""
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=300, class_weight="balanced")
    model.fit(vectors, names)
    weights, bias = np.asarray(model.coef_).T, np.asarray(model.intercept_)
    if weights.shape[1] == 1:  # of two labels scikit-learn keeps only the second's
        weights = np.column_stack([-weights[:, 0] / 2, weights[:, 0] / 2])
        bias = np.asarray([-bias[0] / 2, bias[0] / 2])
    return weights.astype(np.float64), bias.astype(np.float64)


def _centred(vectors: Matrix, centre: Matrix) -> Matrix:
    """Return unit vectors around the centre: e5's lie in a narrow cone (cosines 0.7 to 1)."""
    moved = vectors - centre
    return moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-6)


def _nearness(centred: Matrix, known: Matrix) -> Floats:
    """Return the best cosine to a known example and the mean of the best few."""
    count = min(NEIGHBOURS, len(known))
    if not count:
        return np.zeros((len(centred), 2))
    cosines = centred @ known.T
    best = -np.partition(-cosines, count - 1, axis=1)[:, :count]
    return np.column_stack([best.max(axis=1), best.mean(axis=1)]).astype(np.float64)


def _scope_signals(heads: Heads, sight: Sight, blend: Blend) -> Floats:
    """Return what tells that a text is out of scope, shape (texts, signals)."""
    inside, count = heads.inside, len(sight.dense)
    dense = sight.dense[:, inside]
    chances = log_softmax(blend.logits(sight, inside), axis=1)
    columns: list[Floats] = [np.asarray(logsumexp(dense, axis=1))]
    columns += [dense.max(axis=1), chances.max(axis=1), *sight.near.T]
    unread = np.full(count, np.nan)
    if sight.worded is None:
        columns.append(unread)
    else:
        columns.append(sight.worded[:, inside].max(axis=1))
    if len(inside) == len(heads.labels):
        columns += [np.zeros(count)] * 2
    else:
        outside = heads.labels.index(OUT_OF_SCOPE)
        columns.append(sight.dense[:, outside] - dense.max(axis=1))
        columns.append(unread if sight.worded is None else sight.worded[:, outside])
    return scope.stacked(columns)


def _fit_blend(rehearsals: Sequence[Rehearsal]) -> Blend:
    """Return the blend that makes held-out labels likeliest.

    Source: temperature scaling (Guo et al. 2017) with one temperature a head, that is stacking
    by a log-linear pool (Ting and Witten 1999).
    """
    shown = [_shown(r) for r in rehearsals]
    if not sum(len(truth) for _, _, truth in shown):
        return Blend()

    def loss(dense: float, worded: float) -> float:
        total, count = 0.0, 0
        for seen, said, truth in shown:
            logits = dense * seen if said is None else dense * seen + worded * said
            total -= log_softmax(logits, axis=1)[np.arange(len(truth)), truth].sum()
            count += len(truth)
        return total / count

    alone = minimize_scalar(
        lambda log_scale: loss(float(np.exp(log_scale)), 0.0), bounds=(-3, 3), method="bounded"
    )
    scale = float(np.exp(alone.x))
    if any(said is None for _, said, _ in shown):
        return Blend(scale, 0.0, scale)
    both = minimize(
        lambda logs: loss(*(float(x) for x in np.exp(logs))),
        [alone.x, 0.0],
        method="Nelder-Mead",
        options={
            "initial_simplex": [[alone.x, 0.0], [alone.x - 0.3, 0.5], [alone.x, -1.0]],
            "xatol": 0.02,
            "fatol": 1e-4,
            "maxiter": 60,
        },
    )
    dense, worded = (float(x) for x in np.exp(both.x))
    return Blend(dense, worded, scale)


def _shown(r: Rehearsal) -> tuple[Floats, Floats | None, Rows]:
    """Return the scores of examples whose label is known, and its column."""
    inside = r.heads.inside
    columns = {r.heads.labels[i]: j for j, i in enumerate(inside)}
    rows = np.flatnonzero(r.truth != OUT_OF_SCOPE)
    truth = np.asarray([columns[str(t)] for t in r.truth[rows]], np.int64)
    worded = None if r.sight.worded is None else r.sight.worded[rows][:, inside]
    return r.sight.dense[rows][:, inside], worded, truth


def _fit_scope(rehearsals: Sequence[Rehearsal], blend: Blend) -> Scope:
    if not rehearsals:
        return scope.fit(np.zeros((1, SIGNALS)), np.asarray([False]))
    signals = _signals_of(rehearsals, blend)
    return scope.fit(signals, np.concatenate([r.truth == OUT_OF_SCOPE for r in rehearsals]))


def _signals_of(rehearsals: Sequence[Rehearsal], blend: Blend) -> Floats:
    return np.concatenate([_scope_signals(r.heads, r.sight, blend) for r in rehearsals])
