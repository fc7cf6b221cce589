"""Low-rank adapters that share out one budget of ranks among the layers while they learn.

Source: Zhang et al., AdaLoRA, ICLR 2023: W x + P diag(e) Q x, the least important entries of `e`
cut to zero step by step (section 3.2), P and Q held near orthogonal (equation 4).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from training.replies.lora import LAYERS
from training.replies.protocol import Method, Shape, resume_peft, save_weights, trainable

ORTHOGONAL_WEIGHT = 0.5
SPARE = 1.5
"""How many ranks there are at first for each that is left at the end."""


class AdaLora(Method):
    """AdaLoRA; what it learned is saved as plain LoRA, so that all backends can serve it."""

    name = "adalora"
    served_anywhere = True

    def add(self, model: Any, shape: Shape) -> Any:
        """Return a model with fresh factors, and a schedule over the steps to be taken."""
        from peft import AdaLoraConfig, get_peft_model

        config = AdaLoraConfig(
            init_r=max(shape.rank + 1, round(SPARE * shape.rank)),
            target_r=shape.rank,
            tinit=shape.steps // 10,
            tfinal=shape.steps // 3,
            deltaT=max(1, shape.steps // 50),
            total_step=max(1, shape.steps),
            orth_reg_weight=ORTHOGONAL_WEIGHT,
            lora_alpha=2 * shape.rank,
            lora_dropout=shape.dropout,
            target_modules=list(LAYERS),
            task_type="CAUSAL_LM",
        )
        return trainable(get_peft_model(model, config))

    def resume(self, model: Any, folder: Path) -> Any:
        """Return a model that goes on as LoRA: the ranks have been shared out."""
        return resume_peft(model, folder)

    def save(self, model: Any, folder: Path, base_name: str) -> int:
        """Write P diag(e) Q as LoRA's two factors without the ranks that were cut."""
        from peft import LoraConfig

        weights: dict[str, torch.Tensor] = {}
        ranks: dict[str, int] = {}
        for name, down, scale, up in _factors(model):
            kept = torch.nonzero(scale.abs().flatten() > 0).flatten()
            kept = kept if len(kept) else torch.zeros(1, dtype=torch.long, device=scale.device)
            weights[f"{name}.lora_A.weight"] = (down * scale)[kept]
            weights[f"{name}.lora_B.weight"] = up[:, kept]
            ranks[name.removeprefix("base_model.model.")] = len(kept)
        rank = max(ranks.values())
        config = LoraConfig(
            r=rank, lora_alpha=rank, target_modules=list(LAYERS), task_type="CAUSAL_LM",
            rank_pattern=ranks, alpha_pattern=dict(ranks), base_model_name_or_path=base_name,
            inference_mode=True,
        )  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        config.save_pretrained(str(folder))
        return save_weights(weights, folder)

    def adjust(self, model: Any, step: int) -> None:
        """Share out the ranks by what the gradients say of their importance."""
        if _allocates(model):
            model.base_model.update_and_allocate(step)

    def penalty(self, model: Any) -> torch.Tensor | None:
        """Return how far P and Q are from orthogonal, a scalar."""
        distances = [
            _distance(factor)
            for module in model.modules()
            if hasattr(module, "lora_E") and "default" in module.lora_A
            for factor in (module.lora_A["default"], module.lora_B["default"].T)
        ]
        return ORTHOGONAL_WEIGHT * torch.stack(distances).mean() if distances else None

    def memory(self, model: Any) -> dict[str, Any]:
        """Return the running means of the ranks' importance."""
        if not _allocates(model):
            return {}
        allocator = model.base_model.rankallocator
        return {
            name: dict(getattr(allocator, name)) for name in ("ipt", "exp_avg_ipt", "exp_avg_unc")
        }

    def restore(self, model: Any, extra: dict[str, Any]) -> None:
        """Take up the running means."""
        for name, value in extra.items():
            setattr(model.base_model.rankallocator, name, dict(value))


def _allocates(model: Any) -> bool:
    return hasattr(model.base_model, "update_and_allocate")


def _distance(factor: torch.Tensor) -> torch.Tensor:
    """Return ||F F^T - 1|| of a factor with its ranks as rows."""
    return torch.linalg.norm(factor @ factor.T - torch.eye(len(factor), device=factor.device))


def _factors(model: Any) -> Iterator[tuple[str, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield name, Q (rank, in), e (rank, 1) and P (out, rank) with the scale in it.

    One that goes on as LoRA has no e of its own: it is one.
    """
    for name, module in model.named_modules():
        if not hasattr(module, "lora_A") or "default" not in module.lora_A:
            continue
        down, up = module.lora_A["default"], module.lora_B["default"]
        if not hasattr(module, "lora_E"):
            scale = torch.ones(down.weight.shape[0], 1, device=down.weight.device)
            yield name, down.weight, scale, up.weight * module.scaling["default"]
            continue
        share = module.scaling["default"] / (module.ranknum["default"] + 1e-5)
        yield name, down, module.lora_E["default"], up * share


METHOD = AdaLora()
