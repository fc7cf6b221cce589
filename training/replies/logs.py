"""Where the curves of a training go: TensorBoard always, Weights & Biases where it is wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import util
from pathlib import Path
from typing import Any

FOLDER = "logs"


class Curves:
    """Takes figures by step."""

    def __init__(
        self,
        out: Path,
        settings: Mapping[str, Any],
        progress: Callable[[str], None],
        wandb_project: str | None = None,
    ) -> None:
        """Open the logs.

        Args:
            out: TensorBoard's files are written to `logs` in it.
            settings: How it is trained, shown beside the curves.
            progress: Is told where a service is wanted that cannot be had.
            wandb_project: Of Weights & Biases; its own environment has the key.
        """
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(out / FOLDER))
        lines = "\n".join(f"    {name}: {value}" for name, value in settings.items())
        self._writer.add_text("settings", lines)
        self._run: Any = None
        if wandb_project and not util.find_spec("wandb"):
            progress("Weights & Biases is wanted and its package is not installed (pip install "
                     "wandb): the curves are in TensorBoard's files alone")  # fmt: skip
        elif wandb_project:
            import wandb  # pyright: ignore[reportMissingImports]

            self._run = wandb.init(project=wandb_project, config=dict(settings))  # pyright: ignore[reportUnknownMemberType]

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """Add figures of a step, such as `{"loss/training": 1.2}`."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        if self._run is not None:
            self._run.log(dict(figures), step=step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
        if self._run is not None:
            self._run.finish()
