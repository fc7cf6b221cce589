"""`deskhand eval verifier`: how well unsupported replies are told from supported ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cli import configuration
from cli.commands.eval import common
from cli.printing import AsJson
from core.errors import InvalidInput


def verifier(
    context: typer.Context,
    begin: Annotated[
        Path | None, typer.Option(help="BEGIN's folder, or one TSV file of it.")
    ] = None,
    dstc9: Annotated[
        Path | None, typer.Option(help="Folder of grounded_dstc9_pairs, for counterfactuals.")
    ] = None,
    cases: Annotated[
        Path | None,
        typer.Option(help='JSONL of {"passage" or "passages", "reply", "label", "kind"?}.'),
    ] = None,
    own: Annotated[
        Path | None, typer.Option(help="JSONL of good replies: how many are refused wrongly.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="A verifier's folder; the one that ships when not given.")
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Also what was trained or fitted on.")
    ] = False,
    encoder: common.EncoderName = None,
    json: AsJson = False,
) -> None:
    """Measure the verifier on replies whose support is known.

    Of --begin's folder, --dstc9 and --own only the quarter is measured that was neither trained
    nor fitted on; one file of BEGIN and --cases are measured whole.
    """
    from answering import verifier as answering
    from retrieval.encoders.cross import CrossEncoder
    from training import verifier as material
    from training.evaluation import verifier as evaluation

    sets: dict[str, list[material.Case]] = {}
    if begin is not None:
        files = material.begin_files(begin)
        if begin.is_dir() and not whole:
            files = {k: [c for c in v if material.is_measured(c)] for k, v in files.items()}
        sets |= {f"BEGIN {name}": some for name, some in files.items()}
        if len(files) > 1:
            sets["BEGIN together"] = [case for some in files.values() for case in some]
    if dstc9 is not None:
        unseen = material.dstc9_cases(dstc9, "val_unseen")
        sets["counterfactuals, unseen entries"] = _apart(unseen, whole)
    if own is not None:
        sets["own replies"] = _apart(material.shop_cases(own), whole)
    if cases is not None:
        sets["cases"] = material.read_cases(cases)
    if not any(sets.values()):
        raise InvalidInput("give --begin, --dstc9, --own or --cases", field="cases")
    folder = weights or answering.SHIPPED
    loaded = common.encoder_of(configuration.of(context), encoder)
    scorer = CrossEncoder.load(loaded, folder)
    combination = answering.read_combination(folder)
    figures: dict[str, Any] = {
        name: evaluation.report(some, scorer, combination) for name, some in sets.items() if some
    }
    common.show(f"Verifier {scorer.name}", figures, as_json=json)


def _apart(cases: list[Any], whole: bool) -> list[Any]:
    from training.verifier import is_measured

    return [case for case in cases if whole or is_measured(case)]
