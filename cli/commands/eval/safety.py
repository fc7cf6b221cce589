"""`deskhand eval safety`: hidden instructions, over-defence, masking, premises."""

from __future__ import annotations

import asyncio
import json as json_module
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import configuration
from cli.commands.eval import common
from cli.printing import AsJson

if TYPE_CHECKING:
    from core.settings import Settings
    from training.evaluation.safety import Attack, Outcome


def safety(
    context: typer.Context,
    bipia: Annotated[
        Path | None, typer.Option(help="BIPIA's folder: runs the model on its text attacks.")
    ] = None,
    injecguard: Annotated[
        Path | None, typer.Option(help="InjecGuard's folder of benign prompts.")
    ] = None,
    pii: Annotated[Path | None, typer.Option(help="presidio-research's folder.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where each reply is written, as JSONL.")] = None,
    bare: Annotated[
        bool, typer.Option("--bare", help="Also what the model alone would have said.")
    ] = False,
    reply_model: Annotated[
        str | None, typer.Option(help="A name or path, instead of the one that is set.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Measure what steers replies, what is held back without need, and what is masked."""
    from training.evaluation import safety as measured
    from training.evaluation.samples import sample_entries

    entries = sample_entries()
    figures: dict[str, Any] = {}
    if injecguard is not None:
        figures |= measured.over_defence(_folder(injecguard), entries)
    if pii is not None:
        figures |= measured.masking_figures(_folder(pii))
    english = [entry for entry in entries if entry.locale.startswith("en")]
    figures |= measured.premise_figures(english, held_out=False)
    figures |= measured.premise_figures(english, held_out=True)
    if bipia is not None:
        settings = configuration.of(context)
        if reply_model is not None:
            settings = settings.model_copy(update={"reply_model": reply_model})
        attacks = measured.attacks_of(_folder(bipia), entries)
        outcomes, alone = asyncio.run(_attack(settings, attacks, bare=bare))
        figures |= measured.injection_figures(outcomes)
        if bare:
            figures |= measured.bare_figures(alone)
        if out is not None:
            _write(out, outcomes)
    common.show("Safety", figures, as_json=json)


def _folder(path: Path) -> Path:
    from core.errors import InvalidInput

    if not path.is_dir():
        raise InvalidInput(f"There is no folder {path}.")
    return path


def _write(out: Path, outcomes: Sequence[Outcome]) -> None:
    rows = [
        {**asdict(o), "attack": {"kind": o.attack.kind, "text": o.attack.text},
         "place": o.attack.place, "entry": o.attack.clean.id}
        for o in outcomes
    ]  # fmt: skip
    lines = [json_module.dumps(row, ensure_ascii=False) for row in rows]
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


async def _attack(
    settings: Settings, attacks: Sequence[Attack], *, bare: bool
) -> tuple[list[Outcome], list[Outcome]]:
    """Return what is said to each attack, and what the model writes that nothing guards."""
    from answering import prompting, saying
    from core.types import KnowledgeBase, KnowledgeBaseId, ReplyStyle, Tier
    from training.evaluation import report
    from training.evaluation.safety import SECONDS, outcome_of, question_of

    pipeline = common.pipeline(settings)
    base = KnowledgeBase(KnowledgeBaseId(0), "evaluated")
    words = saying.Words("en", ReplyStyle.GENERATED, frozenset({"en"}), 1.0)

    async def generate(prompt: Any, seconds: float, on_text: Any) -> Any:
        return await pipeline.engine.generate(prompt, seconds, saying.NEW_TOKENS, on_text)

    tell = report.progress("Attacks", len(attacks))
    outcomes: list[Outcome] = []
    alone: list[Outcome] = []
    try:
        for attack in attacks:
            question, choice = question_of(attack, base)
            said = await saying.answer(question, attack.message, choice, words, generate)
            outcomes.append(outcome_of(attack, said.text, said.tier))
            if bare:
                prompt = prompting.build(attack.message, [attack.entry])
                written = await generate(prompt, SECONDS, None)
                alone.append(outcome_of(attack, written.text, Tier.GENERATED))
            tell(len(outcomes))
    finally:
        await asyncio.to_thread(pipeline.close)
    return outcomes, alone
