"""Figures of `eval replies`: detection, selection, generation, grounding, abstaining, cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from answering.languages import language_of
from answering.prompting import plain
from answering.verifier import Judge
from core.types import Author, Decision, FaqEntry, Tier
from training.evaluation import scores
from training.evaluation.replies import ABSTAINING, Result, as_expected, seeks_knowledge
from training.evaluation.scores import Support

WORDING: Mapping[str, Callable[[str, str], float]] = {
    "bleu_1": lambda ours, theirs: scores.bleu(ours, theirs, 1),
    "bleu_2": lambda ours, theirs: scores.bleu(ours, theirs, 2),
    "bleu_3": lambda ours, theirs: scores.bleu(ours, theirs, 3),
    "bleu_4": lambda ours, theirs: scores.bleu(ours, theirs, 4),
    "meteor": scores.meteor,
    "rouge_1": lambda ours, theirs: scores.rouge_n(ours, theirs, 1),
    "rouge_2": lambda ours, theirs: scores.rouge_n(ours, theirs, 2),
    "rouge_l": scores.rouge_l,
}
WORST_FIRST = (Support.CONTRADICTED, Support.UNSUPPORTED)
WORTH_A_LANGUAGE = 3
"""A reply of fewer words shows no language."""


def figures(results: Sequence[Result], entries: Sequence[FaqEntry]) -> dict[str, Any]:
    """Return the figures of what the pipeline said.

    Shares and means are in [0, 1], `seconds_…` in seconds. `generation_…` is over answers that have
    a reference; `dstc10_…` is over questions, weighted by detection; `unsupported` and
    `contradicted` are the shares of answers with such a sentence (`scores.support`). `tiers` and
    `languages` are tables: lists of rows with the same keys.

    Args:
        results: What was said.
        entries: The base.
    """
    by_id = {entry.id: entry for entry in entries}
    shown: dict[str, Any] = {}
    shown |= _detection(results)
    shown |= _selection(results)
    shown |= _generation(results)
    shown |= dstc10(results)
    shown |= _grounding(results, by_id)
    shown |= _abstaining(results)
    shown |= _languages_met(results)
    expected = [r for r in results if r.case.expect]
    if expected:
        shown["as_expected"] = mean([as_expected(r) for r in expected])
    seconds = [r.seconds for r in results]
    shown["seconds_p50"] = float(np.quantile(seconds, 0.5, method="higher")) if seconds else 0.0
    shown["seconds_p95"] = float(np.quantile(seconds, 0.95, method="higher")) if seconds else 0.0
    shown["n"] = len(results)
    shown["tiers"] = tiers(results, by_id)
    shown["languages"] = _by_language(results)
    return shown


def dstc10(results: Sequence[Result]) -> dict[str, float]:
    """Return the figures of DSTC9 Track 1 and DSTC10 Track 2 (their task 2).

    Each score is summed over the questions that were taken for questions. Divided by all that were
    taken for questions it is a precision, by all that are questions a recall; the figure is their
    F1. So who looks up too much or too little loses in every figure.

    Source: the tracks' scorer, described in Kim et al., Beyond Domain APIs (SIGDIAL 2020),
    section 5, and Kim et al., "How Robust r u?" (ASRU 2021). Differences: METEOR without synonyms,
    n-grams of ROUGE counted as often as they stand.
    """
    known = [r for r in results if r.case.answerable is not None]
    truly = [r for r in known if is_question(r)]
    taken = [r for r in known if seeks_knowledge(r.reply)]
    both = [r for r in truly if seeks_knowledge(r.reply)]

    def weighted(values: Sequence[float]) -> float:
        precision = sum(values) / len(taken) if taken else 0.0
        recall = sum(values) / len(truly) if truly else 0.0
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    shown = {
        "dstc10_detection_f1": weighted([1.0] * len(both)),
        "dstc10_mrr@5": weighted([reciprocal(r) for r in both]),
        "dstc10_recall@1": weighted([float(reciprocal(r) == 1.0) for r in both]),
        "dstc10_recall@5": weighted([float(reciprocal(r) > 0.0) for r in both]),
    }
    if any(r.case.reference for r in truly):
        for name, measure in WORDING.items():
            shown[f"dstc10_{name}"] = weighted(
                [measure(text_of(r), r.case.reference) for r in both]
            )
    return shown


async def judged(
    results: Sequence[Result], entries: Sequence[FaqEntry], judge: Callable[[], Judge]
) -> list[Result]:
    """Return results with what the verifier says of answers that a model wrote.

    It is the product's own check: of what passed it in serving it says little, of another style or
    another model's replies more. Answers quoted from an entry are supported by construction.

    Args:
        results: What was said.
        entries: The base.
        judge: Makes the verifier's judge of one reply.
    """
    by_id = {entry.id: entry for entry in entries}
    made: list[Result] = []
    for result in results:
        if _decided(result) is not Decision.ANSWER or result.reply.tier is not Tier.GENERATED:
            made.append(result)
            continue
        cited = [by_id[c.entry_id] for c in result.reply.citations if c.entry_id in by_id]
        verdicts = await judge().verdicts(text_of(result), cited)
        labels = {str(verdict.label) for verdict in verdicts.values()}
        worst = next((s for s in WORST_FIRST if s in labels), Support.SUPPORTED)
        made.append(replace(result, verdict=worst))
    return made


def tiers(results: Sequence[Result], by_id: Mapping[str, FaqEntry]) -> list[dict[str, Any]]:
    """Return how answers were worded and why: the share of each way, its error, what it costs.

    `error` is the share with a wrong entry, or with an unsupported or contradicted sentence.
    `milliseconds` is the mean of the whole answer, `wording` the part for writing and checking.
    """
    answered = [r for r in results if r.reply.choice.decision is Decision.ANSWER]
    groups: defaultdict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in answered:
        groups[str(result.reply.tier), reason_of(result)].append(result)
    rows: list[dict[str, Any]] = []
    for (tier, reason), some in sorted(groups.items(), key=lambda pair: -len(pair[1])):
        is_wrong = [_is_wrong(r) or support_of(r, by_id) is not Support.SUPPORTED for r in some]
        rows.append(
            {
                "tier": tier,
                "reason": reason,
                "n": len(some),
                "share": len(some) / len(answered),
                "error": mean(is_wrong),
                "milliseconds": 1000 * mean([r.seconds for r in some]),
                "wording": mean([_wording_milliseconds(r) for r in some]),
            }
        )
    return rows


def text_of(result: Result) -> str:
    """Return the words of a reply without their markup."""
    return plain(result.reply.text)


def reason_of(result: Result) -> str:
    """Return why an answer is worded as it is; empty where the model wrote it."""
    return str(result.reply.trace.reason or "")


def support_of(result: Result, by_id: Mapping[str, FaqEntry]) -> Support:
    """Return whether the cited entries support an answer, by `scores.reply_support`."""
    cited = [by_id[c.entry_id] for c in result.reply.citations if c.entry_id in by_id]
    said = [u.text for u in result.case.history if u.author is Author.CUSTOMER]
    passages = "\n".join(plain(entry.answer) for entry in cited)
    questions = [entry.question for entry in cited]
    return scores.reply_support(
        text_of(result), passages, "\n".join([*questions, *said, result.case.message])
    )


def is_question(result: Result) -> bool:
    """Return whether a case seeks knowledge: an entry answers it, or one should."""
    return bool(result.case.answerable)


def reciprocal(result: Result) -> float:
    """Return 1 / rank of the first relevant entry among five, 0 where there is none."""
    found = (
        1 / place
        for place, (key, _) in enumerate(result.passages[:5], start=1)
        if key in result.case.relevant
    )
    return next(found, 0.0)


def mean(values: Sequence[float | bool]) -> float:
    """Return the mean, 0 of nothing."""
    return float(sum(values)) / len(values) if values else 0.0


def _detection(results: Sequence[Result]) -> dict[str, float]:
    known = [r for r in results if r.case.answerable is not None]
    said = [seeks_knowledge(r.reply) for r in known]
    true = [is_question(r) for r in known]
    hits = sum(s and t for s, t in zip(said, true, strict=True))
    precision = hits / sum(said) if any(said) else 0.0
    recall = hits / sum(true) if any(true) else 0.0
    both = precision + recall
    return {
        "detection_precision": precision,
        "detection_recall": recall,
        "detection_f1": 2 * precision * recall / both if both else 0.0,
    }


def _selection(results: Sequence[Result]) -> dict[str, float]:
    asked = [r for r in results if r.case.relevant]
    answered = [r for r in results if r.reply.choice.decision is Decision.ANSWER]
    return {
        "selection_recall@1": mean([reciprocal(r) == 1.0 for r in asked]),
        "selection_recall@5": mean([reciprocal(r) > 0.0 for r in asked]),
        "selection_mrr@5": mean([reciprocal(r) for r in asked]),
        "answered": len(answered) / max(len(results), 1),
        "wrong_among_answered": mean([_is_wrong(r) for r in answered]),
        "abstained": mean([r.reply.choice.decision in ABSTAINING for r in results]),
    }


def _generation(results: Sequence[Result]) -> dict[str, float]:
    answered = [r for r in results if r.reply.choice.decision is Decision.ANSWER]
    compared = [(text_of(r), r.case.reference) for r in answered if r.case.reference]
    shown = {
        f"generation_{name}": mean([measure(*pair) for pair in compared])
        for name, measure in WORDING.items()
        if compared
    }
    return {
        **shown,
        "generation_token_f1": mean([scores.token_f1(*pair) for pair in compared]),
        "generated": mean([r.reply.tier is Tier.GENERATED for r in answered]),
    }


def _grounding(results: Sequence[Result], by_id: Mapping[str, FaqEntry]) -> dict[str, float]:
    answered = [r for r in results if r.reply.choice.decision is Decision.ANSWER]
    found = [support_of(r, by_id) for r in answered]
    cited = [
        "\n".join(
            f"{by_id[c.entry_id].question} {plain(by_id[c.entry_id].answer)}"
            for c in r.reply.citations
            if c.entry_id in by_id
        )
        for r in answered
    ]
    return {
        "knowledge_precision": mean(
            [
                scores.knowledge_precision(text_of(r), passages)
                for r, passages in zip(answered, cited, strict=True)
            ]
        ),
        "unsupported": mean([each is Support.UNSUPPORTED for each in found]),
        "contradicted": mean([each is Support.CONTRADICTED for each in found]),
    } | {
        f"verifier_{support}": mean([r.verdict is support for r in answered])
        for support in WORST_FIRST
        if any(r.verdict for r in answered)
    }


def _abstaining(results: Sequence[Result]) -> dict[str, float]:
    """Return how often the bot answers what can be answered, and abstains where nothing does.

    Small talk is no question that could be unanswerable.
    """
    can = [r for r in results if r.case.answerable]
    cannot = [
        r for r in results if r.case.answerable is False and r.case.expect != Decision.SMALL_TALK
    ]
    shown: dict[str, float] = {}
    if can:
        shown["answerable_answered"] = mean([_decided(r) is Decision.ANSWER for r in can])
    if cannot:
        shown["unanswerable_abstained"] = mean([_decided(r) in ABSTAINING for r in cannot])
        shown["unanswerable_answered"] = mean([_decided(r) is Decision.ANSWER for r in cannot])
    return shown


def _languages_met(results: Sequence[Result]) -> dict[str, float]:
    judged = [match for r in results if (match := _language_match(r)) is not None]
    return {"language_match": mean(judged)} if judged else {}


def _language_match(result: Result) -> bool | None:
    """Return whether a reply is in the language of what the customer wrote; None of few words.

    Told anew from the words of both, whatever language the pipeline took them for.
    """
    text = text_of(result)
    if len(scores.words(text)) < WORTH_A_LANGUAGE:
        return None
    before = [u.text for u in result.case.history if u.author is Author.CUSTOMER]
    theirs = language_of(result.case.message, earlier=before, fallback="en")
    return language_of(text, fallback=theirs) == theirs


def _by_language(results: Sequence[Result]) -> list[dict[str, Any]]:
    groups: defaultdict[str, list[Result]] = defaultdict(list)
    for result in results:
        groups[result.reply.language].append(result)
    rows: list[dict[str, Any]] = []
    for language, some in sorted(groups.items(), key=lambda pair: -len(pair[1])):
        answered = [r for r in some if _decided(r) is Decision.ANSWER]
        matches = [match for r in some if (match := _language_match(r)) is not None]
        rows.append(
            {
                "language": language,
                "n": len(some),
                "answered": len(answered) / len(some),
                "wrong_among_answered": mean([_is_wrong(r) for r in answered]),
                "language_match": mean(matches),
            }
        )
    return rows


def _decided(result: Result) -> Decision:
    return result.reply.choice.decision


def _is_wrong(result: Result) -> bool:
    return not {c.entry_id for c in result.reply.citations} & result.case.relevant


def _wording_milliseconds(result: Result) -> float:
    spent = result.reply.trace.milliseconds
    return spent.get("say", spent.get("generate", 0.0) + spent.get("check", 0.0))
