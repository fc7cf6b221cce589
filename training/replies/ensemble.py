"""Several adapters as one: the mean of the changes that they make.

Source: Wortsman et al., Model soups, ICML 2022. The mean is taken of the changes themselves, not of
LoRA's two factors, whose product of means would be another change: factors side by side, one of
them divided by the number of adapters, give it exactly. It is one adapter for every backend, N
times as large on disk and as dear to train; merged, it costs nothing more when it serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from answering.generators.adapted import WEIGHTS_FILE
from core.errors import InvalidInput
from training.replies.adalora import METHOD as ADALORA
from training.replies.fitting import Bench
from training.replies.loop import Curve, Progress
from training.replies.lora import LAYERS
from training.replies.lora import METHOD as LORA
from training.replies.protocol import save_weights
from training.replies.recipe import Outcome, Recipe


def fit(
    bench: Bench, recipe: Recipe, count: int, out: Path, progress: Progress, curve: Curve
) -> Outcome:
    """Train adapters from several seeds; keep their mean, or the best one if that is better.

    Args:
        bench: Base and examples.
        recipe: Of each; the seeds follow on the recipe's.
        count: How many, two at least.
        out: Is made; holds the one that is kept.
        progress: Takes one line at a time.
        curve: Takes the last one's figures.

    Raises:
        InvalidInput: The method's adapters have no mean, or there is nothing to validate on.
    """
    if bench.method(recipe) not in (LORA, ADALORA):
        raise InvalidInput("--ensemble takes the mean of LoRA adapters; use --method lora or "
                           "adalora", field="ensemble")  # fmt: skip
    if not bench.validation:
        raise InvalidInput("--ensemble needs examples to validate on: give more --data",
                           field="ensemble")  # fmt: skip
    members: list[tuple[Outcome, Path]] = []
    for number in range(count):
        place = out / f"member-{number + 1}"
        progress(f"adapter {number + 1} of {count}")
        seeded = replace(recipe, seed=recipe.seed + number, action_weight=0.0)
        members.append((bench.fit(seeded, place, progress, curve=curve), place))
    size = average([place for _, place in members], out, bench.base_name)
    loss = bench.measure(out).reply
    best, place = min(members, key=lambda member: member[0].loss_best)
    progress(f"validation loss of the mean {loss:.3f}, of the adapters "
             + ", ".join(f"{member.loss_best:.3f}" for member, _ in members))  # fmt: skip
    seconds = sum(member.seconds for member, _ in members)
    if loss < best.loss_best:
        return replace(best, loss_best=loss, adapter_bytes=size, seconds=seconds)
    for file in place.iterdir():
        if file.is_file():
            file.replace(out / file.name)
    return replace(best, seconds=seconds)


def average(folders: Sequence[Path], out: Path, base_name: str) -> int:
    """Write the mean of LoRA adapters as one, and return its size in bytes."""
    from peft import LoraConfig

    scaled = [_scaled(folder) for folder in folders]
    weights: dict[str, torch.Tensor] = {}
    ranks: dict[str, int] = {}
    for name in scaled[0]:
        if not name.endswith(".lora_A.weight"):
            continue
        up = name.replace("lora_A", "lora_B")
        weights[name] = torch.cat([part[name] for part in scaled])
        weights[up] = torch.cat([part[up] for part in scaled], dim=1) / len(scaled)
        layer = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        ranks[layer] = len(weights[name])
    rank = max(ranks.values())
    uneven = ranks if len(set(ranks.values())) > 1 else {}
    config = LoraConfig(
        r=rank, lora_alpha=rank, target_modules=list(LAYERS), task_type="CAUSAL_LM",
        rank_pattern=uneven, alpha_pattern=dict(uneven), base_model_name_or_path=base_name,
        inference_mode=True,
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(out))
    return save_weights(weights, out)


def _scaled(folder: Path) -> dict[str, torch.Tensor]:
    """Return an adapter's factors in fp32, the scale in the second one."""
    from peft import LoraConfig

    config: Any = LoraConfig.from_pretrained(str(folder))
    own = dict(config.alpha_pattern or {})
    # where ranks differ, each layer's alpha is its rank: see `adalora`
    scale = 1.0 if own else config.lora_alpha / config.r
    return {
        name: tensor.float() * (scale if "lora_B" in name else 1.0)
        for name, tensor in load_file(folder / WEIGHTS_FILE).items()
    }
