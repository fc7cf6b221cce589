"""The words of a text, for comparing texts without a model; pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Set as AbstractSet

_PIECE = re.compile(
    r"(?P<cjk>[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af]+)"
    r"|(?P<word>[^\W_]+)"
)
_COMMON = frozenset(
    """
    a an and any are as at be by can could d did do does for from get got had has have hello hey
    hi how i if in is it ll m may me my no of on or please re s shall should so some t thank
    thanks that the there they this to us ve was we were what when where which who why will with
    would yes you your
    """.split()  # noqa: SIM905  a list of quoted words is harder to read
)
"""Words that nearly every message holds, so that sharing them says nothing."""
_COMMON_CJK = frozenset("的了吗呢啊吧呀嘛么我你您请是")


def words(text: str) -> frozenset[str]:
    """Return the words of a text without case; of Chinese, Japanese and Korean, pairs of signs.

    Common words are left out, unless there are no others.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    found: set[str] = set()
    for piece in _PIECE.finditer(folded):
        run = piece["cjk"]
        if run is None:
            found.add(piece["word"])
            continue
        kept = "".join(c for c in run if c not in _COMMON_CJK) or run
        found.update(kept[i : i + 2] for i in range(max(len(kept) - 1, 1)))
    return frozenset(found - _COMMON) or frozenset(found)


def likeness(one: AbstractSet[str], other: AbstractSet[str]) -> float:
    """Return what two sets of words share, in [0, 1]: their Dice coefficient."""
    total = len(one) + len(other)
    return 2 * len(one & other) / total if total else 0.0
