"""Sentences that talk to the bot instead of to people; pure, and without a model.

Whoever can write into an entry (an import of pages, a file from elsewhere) or into a chat can try
to give orders to the model that words replies. Nothing is refused for it: what looks like an order
is only never given to the model (`answering.safety`), and staff are warned of it in their entries.

Source: the kinds of instruction are those of BIPIA (Yi et al., KDD 2025), train part.
"""

from __future__ import annotations

import re
import unicodedata

HIDDEN = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\U000e0000-\U000e007f]")
"""Characters that people do not see and a model reads: zero widths, directions, tags.

Arabic, Hindi and emoji use joiners; taking them out for the search changes no reply.
"""
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|(?<=[。！？])|\n+")

_REPLY = r"(?:response|repl(?:y|ies)|answers?|output)"
_OWN_REPLY = (
    rf"(?:\b(?:your|the|this|each|every) (?:\w+ ){{0,2}}{_REPLY}(?:['’]s)?\b"
    rf"|\b(?:words|letters|characters) of (?:your )?(?:{_REPLY}|messages?)\b)"
)
_SHAPING = (
    r"(?:add|append|insert|integrate|include|incorporate|embed|put|mention|modify|change|adjust|"
    r"alter|augment|enhance|extend|enrich|begin|start|end|finish|close|replace|substitute|swap|"
    r"convert|encode|encrypt|encipher|render|translate|rewrite|rephrase|reverse|scramble|jumble|"
    r"rearrange|shuffle|misspell|introduce|remove|strip|group|combine|join|anagram|format|"
    r"provide|give|write|print|use|repeat|hint|suggest|tease|promote|conclude|deliver|express|"
    r"compose|sprinkle|spell|capitali[sz]e|omit|hide|keep|make|present|phrase|style|share|"
    r"send|turn|transform|weave|slip|offer|recommend)"
)
_ORDERS = re.compile(
    # the rules that the bot follows: ignore, forget, reveal them
    r"\b(?:ignor(?:e|ing)|disregard(?:ing)?|forget|override|overrule|bypass|do not follow|"
    r"don't follow|stop following|instead of following)\b.{0,40}"
    r"\b(?:previous|prior|above|earlier|preceding|foregoing|all (?:of )?(?:the|your)|your|system)\b"
    r".{0,30}\b(?:instructions?|prompts?|rules?|directions?|guidelines?|orders?|commands?|"
    r"restrictions?|sources?|programming)\b"
    r"|\b(?:ignore|disregard|forget) (?:everything|anything|all) (?:above|before|previous|that|you)"
    r"|\b(?:reveal|show|print|repeat|output|tell|display|leak|quote|reproduce)\b.{0,30}"
    r"\b(?:system|initial|hidden|secret|original) (?:prompt|instructions?|message)\b"
    r"|\b(?:repeat|print|output|say) (?:everything|all|the (?:words|text)) (?:above|before)\b"
    r"|^\W*(?:new|updated|real|actual|important|system|admin\w*) (?:instructions?|prompt|override|"
    r"command|message)\b\s*[:\-\u2013]"
    r"|^\W*(?:system|assistant|developer|user)\s*:\s"
    r"|\b(?:note|message|attention|instructions?|reminder) (?:to|for) (?:the |all |any )?"
    r"(?:ai|bot|chatbot|assistant|model|llm|language model)s?\b"
    # who the bot is
    r"|^\W*you are (?:now|no longer|from now on) (?:an?|the|my|called|in \w+ mode)\b"
    r"|\bfrom now on,? (?:you|answer|reply|respond|speak|act|always|only)\b"
    r"|^\W*(?:please )?(?:pretend|act|behave|respond|answer|reply|talk|speak|write) (?:to be|as if|"
    r"as an?|like an?|only (?:with|in)|exclusively)\b"
    r"|\b(?:developer mode|do anything now|unfiltered mode)\b"
    # the reply that the bot is to give
    rf"|(?:^|[,;:]\s*|\b(?:and|then|also|please|must|should|now|to|can you|could you|will you)\s+)"
    rf"{_SHAPING}\b.{{0,160}}{_OWN_REPLY}"
    rf"|^\W*(?:also,? )?(?:in|to|within|with|at the (?:end|start|beginning) of|before|after|"
    rf"throughout) {_OWN_REPLY}\s*(?:,|:)? (?:use|add|include|suggest|tease|hint|mention|also|"
    rf"insert|recommend|invite|write|provide|promote|tell|say)\b"
    rf"|\byour (?:next |whole |entire |final )?{_REPLY} (?:must|has to|needs to|shall) "
    rf"(?:be|contain|include|start|begin|end|only|always|not|also|rhyme|use|have)\b"
    r"|\b(?:respond|reply|answer) (?:only |just |exclusively )?(?:with|using|by) (?:the (?:word|"
    r"phrase|text|sentence)|nothing but|only|exactly|a (?:poem|joke|song|story)|yes to|"
    r"alphanumeric|numbers|emojis?)\b"
    r"|\b(?:in|as) (?:base ?64|rot13|morse|leetspeak|pig latin|reverse order)\b"
    r"|\bwithout (?:any )?(?:spaces|punctuation|vowels)\b"
    r"|\b(?:homophonic|alphanumeric|caesar|substitution) (?:substitution|cipher|code)\b"
    # the same in other languages
    r"|\b(?:ignorier\w*|vergiss|missachte\w*)\b.{0,40}\b(?:anweisung|vorgabe|regel|instruktion)\w*"
    r"|\b(?:ignora|olvida|omite|ignore|oublie[zs]?|esque[çc]a|dimentica|negeer|vergeet)\w*\b.{0,40}"
    r"\b(?:instruccion|instruction|instru[çc]|istruzion|instructie|consigne|regla|regra|r[èe]gle|"
    r"regole|opdracht)\w*"
    r"|(?:忽略|无视|無視|忘记|忘掉|忘记掉).{0,12}(?:指令|指示|提示|规则|規則|要求)"
    r"|(?:指示|命令|プロンプト|ルール).{0,12}(?:無視|忘れ)"
    r"|(?:지시|명령|프롬프트).{0,10}(?:무시|잊)",
    re.IGNORECASE,
)
"""Orders to the bot, as they may stand in an entry or in a message."""

_LEADING = r"^\W*(?:(?:also|then|and|next|now|finally|please|kindly|just|simply),? +){0,2}"
_TASKS = re.compile(
    # what one asks a general assistant for and no approved answer asks a customer for
    rf"{_LEADING}(?:draft|compose|narrate|summari[sz]e|paraphrase|translate|brainstorm|pretend|"
    r"imagine|recite|sing|elaborate|predict|analy[sz]e|evaluate|critique|invent|"
    r"generate|break down|calculate|compute|solve|classify|outline|encode|decode|reverse|encrypt|"
    r"anagram|scramble|jumble|rearrange|misspell|explain|define|discuss|debate|"
    r"describe (?:the (?:life|process|history|main|importance|concept|difference)|how)|"
    r"(?:write|create|develop|provide|make|give|produce|craft|design|prepare|suggest) "
    r"(?:me )?(?:an? |some |the |\d+ )?(?:\w+ ){0,2}(?:poem|story|essay|letter|speech|song|joke|"
    r"haiku|limerick|script|code|function|program|example|summary|list of|overview|recipe|slogan|"
    r"article|blog|post|tweet|equivalent|introduction|plan|itinerary|report|analysis|"
    r"explanation|translation|ad|advertisement|dialogue|riddle|outline|timeline)\b|"
    r"tell (?:me|us) (?:an?|the|about|how|what|why|who)\b|name (?:the|an?|\d+|three|five|some)\b|"
    r"list (?:the|some|all|\d+|three|five|ten)\b|recommend (?:an?|some|the)\b|"
    r"(?:use|replace|substitute|swap|convert|group|combine) (?:\w+ ){0,6}"
    r"(?:letters?|vowels?|words|numbers|symbols|emojis?|consonants?)\b|"
    r"remove (?:all |the )?spaces)",
    re.IGNORECASE,
)
_QUESTION = re.compile(
    r"^\W*(?:(?:and|also|so|now|then|please|hey|hi|hello),? )?(?:what|who|whom|whose|"
    r"when|where|which|why|how|can|could|do|does|did|is|are|"
    r"was|were|will|would|should|have|has)\b[^.!]*\?\s*[\"'”)]?$|[?？]\s*[\"'”)]?$",
    re.IGNORECASE,
)


def visible(text: str) -> str:
    """Return a text without what people do not see: zero-width characters and comments."""
    return _COMMENT.sub(" ", HIDDEN.sub("", text))


def orders_in(text: str) -> tuple[str, ...]:
    """Return the sentences of a customer's message that give orders to the bot about its reply.

    A question or a wish of any kind is none, whatever words it holds: "Can I ignore the warning?"
    """
    return tuple(s for s in _sentences(text) if _ORDERS.search(s))


def strange_in(answer: str) -> tuple[str, ...]:
    """Return the sentences of an entry's answer that an approved answer hardly ever holds.

    These are orders to the bot, tasks for a general assistant ("Write a poem …") and questions: an
    answer tells. To be found here costs an entry nothing but its wording by the model.
    """
    found = [
        s
        for s in _sentences(answer)
        if _ORDERS.search(s) or _TASKS.search(s) or _QUESTION.search(s)
    ]
    if visible(answer) != answer:
        found.append("text that people do not see")
    return tuple(found)


def _sentences(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKC", HIDDEN.sub("", text)).replace("’", "'")
    return [part.strip() for part in _SENTENCE.split(plain) if part.strip()]
