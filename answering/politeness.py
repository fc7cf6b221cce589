"""Taking greetings and thanks off a message, so that the question in it is what counts; pure."""

from __future__ import annotations

import re

_GREETING = (
    r"(?:hi+|hey+|hello+|hiya|yo|howdy|greetings|good\s+(?:morning|afternoon|evening|day)|"
    r"hallo|guten\s+(?:tag|morgen|abend)|servus|moin|bonjour|bonsoir|salut|hola|"
    r"buen[oa]s(?:\s+(?:d[ií]as|tardes|noches))?|ciao|buongiorno|ol[áa])"
    r"(?:\s+(?:there|again|all|everyone|team|support|guys|folks|bot|dear|sir|madam))*"
)
_THANKS = (
    r"(?:(?:ok(?:ay)?|great|perfect|super|cool|alright)\W+)?"
    r"(?:many\s+thanks|thanks|thank\s+you|thank\s+u|thx|ty|cheers|danke(?:\s+sch[öo]n)?|"
    r"vielen\s+dank|merci(?:\s+beaucoup)?|(?:muchas\s+)?gracias|grazie|bedankt)"
    r"(?:\s+(?:so\s+much|very\s+much|a\s+lot|in\s+advance|for\s+(?:your|the)\s+"
    r"(?:help|reply|answer|info(?:rmation)?|quick\s+\w+)|again|you|im\s+voraus))*"
)
_FRAME = (
    r"(?:i\s+(?:just\s+)?(?:have|had|got)\s+(?:a|one|another|some)\s+(?:quick\s+|short\s+|small\s+)?"
    r"questions?|(?:quick|short|one|another)\s+question|can\s+(?:i|you)\s+(?:please\s+)?(?:ask|help)"
    r"(?:\s+(?:you|me))?(?:\s+(?:something|a\s+question))?|i(?:\s+a|')?m\s+wondering|"
    r"i\s+was\s+wondering|just\s+wondering|i(?:'d|\s+would)\s+like\s+to\s+(?:know|ask)|"
    r"(?:could|can|would)\s+you\s+(?:please\s+)?tell\s+me|please\s+tell\s+me|please|pls|plz|"
    r"sorry(?:\s+to\s+bother\s+you)?|excuse\s+me|bitte|s'il\s+vous\s+pla[iî]t|por\s+favor|"
    r"how\s+are\s+you(?:\s+(?:today|doing))?|hope\s+you(?:'re|\s+are)\s+(?:well|doing\s+well))"
)
_EDGE = r"[\s,.!;:~\-–—…)(\U0001F300-\U0001FAFF\u2600-\u27BF]*"
_HEAD = re.compile(rf"^{_EDGE}(?:{_GREETING}|{_THANKS}|{_FRAME})(?!['\w]){_EDGE}", re.IGNORECASE)
_TAIL = re.compile(
    rf"(?:[\s,.!?;:\-–—]+(?:{_THANKS}|please|pls|plz|bye|good\s*bye|cheers))[\s.!~)]*$",
    re.IGNORECASE,
)
_ZH_HEAD = re.compile(
    r"^[\s,，.。!！~～]*(?:您好|你好|哈喽|嗨|在吗|在么|亲|早上好|下午好|晚上好|早安|打扰一下|不好意思|"
    r"请问一下|请问|想问一下|我想问一下|我想问|咨询一下|麻烦问下|问一下|谢谢你?您?|多谢|感谢|好的)"
    r"[\s,，.。!！?？~～]*"
)
_ZH_TAIL = re.compile(r"[\s,，.。!！?？~～]+(?:谢谢你?您?|多谢|感谢|麻烦了|拜托了)[\s.。!！~～]*$")
_HAN = re.compile("[\u3400-\u9fff]")
_MEANING = re.compile(r"[^\W_]")


def question_part(message: str) -> str:
    """Return a message without greetings, thanks and phrases around its question.

    Empty where nothing else was said: "hi there!", "ok thanks a lot", "您好，在吗".
    """
    text = message.strip()
    head, tail = (_ZH_HEAD, _ZH_TAIL) if _HAN.search(text) else (_HEAD, _TAIL)
    while True:
        shorter = head.sub("", text, count=1)
        trimmed = tail.sub("", shorter, count=1)
        if trimmed == text:
            break
        text = trimmed
    return text.strip() if _MEANING.search(text) else ""
