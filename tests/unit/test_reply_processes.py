"""Several processes, as accelerate starts one a GPU, train what one process would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny_model

PROGRAM = """
import sys
from pathlib import Path

from accelerate import Accelerator
from training.replies.fitting import Bench
from training.replies.objective import Encoded
from training.replies.recipe import Recipe

base, out = map(Path, sys.argv[1:])
examples = [Encoded(tuple((7 * i + j) % 250 + 3 for j in range(12 + i % 3)), 4) for i in range(25)]
bench = Bench(base, "tiny", examples, examples[:4], 2)
outcome = bench.fit(Recipe(epochs=2, learning_rate=1e-2, accumulate=2), out, lambda line: None)
print("LOSS", Accelerator().num_processes, outcome.loss_best, flush=True)
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    base = tiny_model.save(tmp_path / "base")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "ACCELERATE_USE_CPU": "true"}

    def losses(*launcher: str) -> list[tuple[int, float]]:
        done = subprocess.run(
            [sys.executable, *launcher, str(program), str(base), str(tmp_path / "out")],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        lines = [line.split() for line in done.stdout.splitlines() if line.startswith("LOSS")]
        return [(int(line[1]), float(line[2])) for line in lines]

    ((_, alone),) = losses()
    together = losses("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

    assert [count for count, _ in together] == [2, 2]
    assert [loss for _, loss in together] == pytest.approx([alone, alone], abs=1e-4)
