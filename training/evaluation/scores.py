"""Measures of a reply's wording: against a person's reply, and against the passages it rests on.

None of them is the product's own check, so that it is not judged by itself. Words are in small
letters without punctuation and articles, as DSTC9's and SQuAD's scorers normalise; of a Chinese or
Japanese text each character is a word.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from itertools import pairwise

from snowballstemmer.porter_stemmer import PorterStemmer

METEOR_ALPHA, METEOR_BETA, METEOR_GAMMA = 0.9, 3.0, 0.5
HELD_FROM = 0.5
"""A sentence with fewer of its content words in the sources is unsupported."""
SAME_FROM = 0.5
"""Sentences that share so many of their content words speak of the same thing."""

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_WORD = re.compile(r"[^\W_]+")
_HAN = re.compile("[\u3040-\u30ff\u3400-\u9fff]")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_NEGATION = re.compile(
    r"\b(?:no|not|never|none|nothing|cannot|without|neither|nor|unable|unavailable)\b|n['’]t\b"
    r"|不|没|無|无法|未|ません|ない|\b(?:nicht|kein\w*|nie)\b|\b(?:ne|pas|jamais)\b",
    re.IGNORECASE,
)
_YES = re.compile(r"\W*(?:yes|yep|yeah|sure|of course|certainly|可以|能|是的)\b", re.IGNORECASE)
_NO = re.compile(r"\W*(?:no|nope|unfortunately|sorry|不|没有)(?:\b|(?=[^a-z]))", re.IGNORECASE)
_FUNCTION = frozenset({
    "i", "you", "he", "she", "it", "we", "they", "me", "him", "her", "us", "them", "my", "your",
    "his", "its", "our", "their", "this", "that", "these", "those", "is", "are", "was", "were",
    "be", "been", "being", "am", "do", "does", "did", "have", "has", "had", "will", "would",
    "can", "could", "should", "may", "might", "must", "shall", "and", "or", "but", "if", "so",
    "as", "at", "by", "for", "from", "in", "into", "of", "on", "onto", "to", "with", "about",
    "up", "out", "off", "over", "under", "than", "then", "there", "here", "what", "which", "who",
    "how", "when", "where", "why", "yes", "no", "not", "also", "please", "only", "just", "any",
    "some", "all", "more", "most", "very", "one", "s", "t", "re", "ve", "ll", "d", "m",
})  # fmt: skip


class Support(StrEnum):
    """What the passages say to a sentence."""

    SUPPORTED = "supported"
    UNSUPPORTED = "unsupported"
    CONTRADICTED = "contradicted"


def words(text: str) -> list[str]:
    """Return the words that are compared."""
    lowered = text.lower()
    if _HAN.search(lowered):
        return [character for character in lowered if character.isalnum()]
    return _WORD.findall(_ARTICLE.sub(" ", lowered.replace("'", " ").replace("’", " ")))


def bleu(reply: str, reference: str, order: int = 4) -> float:
    """Return the BLEU of one reply, unsmoothed, in [0, 1]: zero where no n-gram is shared.

    Source: Papineni et al., BLEU (ACL 2002), equations 2 and 3; of single sentences and unsmoothed
    as DSTC9's scorer takes it.
    """
    ours, theirs = words(reply), words(reference)
    if not ours or not theirs:
        return 0.0
    logs = 0.0
    for n in range(1, order + 1):
        mine, known = _ngrams(ours, n), _ngrams(theirs, n)
        shared = sum((mine & known).values())
        if not shared:
            return 0.0
        logs += math.log(shared / max(sum(mine.values()), 1)) / order
    brevity = 1.0 if len(ours) > len(theirs) else math.exp(1 - len(theirs) / len(ours))
    return brevity * math.exp(logs)


def rouge_n(reply: str, reference: str, n: int = 1) -> float:
    """Return the F1 of the n-grams in common, each as often as it stands, in [0, 1].

    Source: Lin, ROUGE (2004), section 2.
    """
    ours, theirs = _ngrams(words(reply), n), _ngrams(words(reference), n)
    return _f1(sum((ours & theirs).values()), sum(ours.values()), sum(theirs.values()))


def rouge_l(reply: str, reference: str) -> float:
    """Return the F1 of the longest common subsequence of words, in [0, 1].

    Source: Lin, ROUGE (2004), section 3, with beta = 1.
    """
    ours, theirs = words(reply), words(reference)
    row = [0] * (len(theirs) + 1)
    for word in ours:
        above = row[:]
        for at, other in enumerate(theirs):
            row[at + 1] = above[at] + 1 if word == other else max(above[at + 1], row[at])
    return _f1(row[-1], len(ours), len(theirs))


def meteor(reply: str, reference: str) -> float:
    """Return METEOR by exact words and stems, in [0, 1].

    Its synonyms need WordNet, a download, and are left out: it is a little lower than with them.

    Source: Lavie and Agarwal, METEOR (WMT 2007), with the parameters of its first version, as in
    NLTK: alpha 0.9, beta 3, gamma 0.5.
    """
    ours, theirs = words(reply), words(reference)
    pairs = _aligned(ours, theirs)
    if not pairs:
        return 0.0
    precision, recall = len(pairs) / len(ours), len(pairs) / len(theirs)
    mean = precision * recall / (METEOR_ALPHA * precision + (1 - METEOR_ALPHA) * recall)
    chunks = 1 + sum((mine + 1, known + 1) != after for (mine, known), after in pairwise(pairs))
    return mean * (1 - METEOR_GAMMA * (chunks / len(pairs)) ** METEOR_BETA)


def token_f1(reply: str, reference: str) -> float:
    """Return the F1 of the words in common, each as often as it stands, in [0, 1]."""
    return rouge_n(reply, reference, 1)


def knowledge_precision(reply: str, passages: str) -> float:
    """Return the share of a reply's words that stand in its passages, in [0, 1].

    Source: K-Precision of Adlakha et al., Evaluating Correctness and Faithfulness of
    Instruction-Following Models for Question Answering (TACL 2024), section 5.
    """
    ours = Counter(words(reply))
    return sum((ours & Counter(words(passages))).values()) / max(sum(ours.values()), 1)


def support(sentence: str, passages: str, said: str = "") -> Support:
    """Return whether passages support a sentence, by words, numbers and negation alone.

    Rough, so read what it marks: a sentence is contradicted where it denies what the passage's
    sentence on the same thing states, or the reverse; unsupported where it has a number that stands
    nowhere, or less than half of its content words.

    Args:
        sentence: Of the reply.
        passages: The texts that it cites.
        said: What the customer said: a reply may repeat it.
    """
    own = _content(sentence)
    if not own or sentence.rstrip().endswith(("?", "？")):  # a question claims nothing
        return Support.SUPPORTED
    known = _content(f"{passages}\n{said}")
    if _NUMBER.findall(sentence) and not set(_NUMBER.findall(sentence)) <= set(
        _NUMBER.findall(f"{passages}\n{said}")
    ):
        return Support.UNSUPPORTED
    if len(own & known) < HELD_FROM * len(own):
        return Support.UNSUPPORTED
    closest, shared = "", 0.0
    for other in sentences(passages):
        if other.rstrip().endswith(("?", "？")):
            continue
        content = _content(other)
        share = len(own & content) / min(len(own), len(content)) if content else 0.0
        if share > shared:
            closest, shared = other, share
    if shared >= SAME_FROM and _denies(closest) != _denies(sentence):
        return Support.CONTRADICTED
    return Support.SUPPORTED


def reply_support(reply: str, passages: str, said: str = "") -> Support:
    """Return the worst that is to be said of a reply's sentences, and of its yes or no."""
    found = {support(sentence, passages, said) for sentence in sentences(reply)}
    if _polarity(reply) * _polarity(passages) < 0 or Support.CONTRADICTED in found:
        return Support.CONTRADICTED
    return Support.UNSUPPORTED if Support.UNSUPPORTED in found else Support.SUPPORTED


def sentences(text: str) -> list[str]:
    """Return the sentences of a text."""
    return [part.strip() for part in _SENTENCE.split(text) if part and part.strip()]


def _polarity(text: str) -> int:
    """Return 1 for a text that begins with a yes, -1 for one that begins with a no, else 0."""
    return 1 if _YES.match(text) else -1 if _NO.match(text) else 0


def _denies(text: str) -> bool:
    return bool(_NEGATION.search(text))


def _content(text: str) -> set[str]:
    return {_stem(word) for word in words(text) if word not in _FUNCTION}


def _ngrams(of: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(of[at : at + n]) for at in range(len(of) - n + 1))


def _f1(shared: int, ours: int, theirs: int) -> float:
    return 2 * shared / (ours + theirs) if shared else 0.0


def _aligned(ours: Sequence[str], theirs: Sequence[str]) -> list[tuple[int, int]]:
    """Return matched places in both, in our order: exact words first, then stems.

    Of several places the one that goes on from the last match is taken: fewer chunks.
    """
    matched: dict[int, int] = {}
    taken: set[int] = set()
    for mine, known in (
        (list(ours), list(theirs)),
        ([_stem(word) for word in ours], [_stem(word) for word in theirs]),
    ):
        for at, word in enumerate(mine):
            free = [i for i, other in enumerate(known) if other == word and i not in taken]
            if at in matched or not free:
                continue
            following = matched.get(at - 1, -2) + 1
            matched[at] = following if following in free else free[0]
            taken.add(matched[at])
    return sorted(matched.items())


@cache
def _stem(word: str) -> str:
    return _stemmer().stemWord(word)


@cache
def _stemmer() -> PorterStemmer:
    return PorterStemmer()
