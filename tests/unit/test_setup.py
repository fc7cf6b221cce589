"""The set-up script: when it has nothing to do, and what it says when a step fails."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def setup(tmp_path: Path) -> ModuleType:
    """The script, as it stands in a project folder of its own."""
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/setup", "pyproject.toml", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    path = str(tmp_path / "scripts" / "setup")
    spec = importlib.util.spec_from_loader("setup", SourceFileLoader("setup", path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def finished(setup: ModuleType) -> None:
    (setup.VENV / "bin").mkdir(parents=True)
    (setup.VENV / "bin" / "deskhand").touch()
    setup.STAMPS.mkdir()
    setup.mark_done("run")


def test_a_finished_set_up_has_nothing_to_do(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(setup)
    monkeypatch.setattr(sys, "argv", ["setup"])

    assert setup.main() == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_what_has_changed_is_installed_again(setup: ModuleType, name: str) -> None:
    finished(setup)
    path = setup.ROOT / name
    path.write_text(path.read_text() + "\n# changed\n")

    assert not setup.is_done("run")


def test_tools_are_not_there_because_the_product_is(setup: ModuleType) -> None:
    finished(setup)

    assert setup.is_done("run")
    assert not setup.is_done("dev")


def test_an_interrupted_set_up_does_not_look_finished(setup: ModuleType) -> None:
    finished(setup)
    (setup.VENV / "bin" / "deskhand").unlink()

    assert not setup.is_done("run")


def test_a_failing_step_is_one_line_that_names_the_cause(setup: ModuleType) -> None:
    output = "Collecting x\nERROR: Could not find a version that satisfies x\nnotice\n"

    assert setup.reason(output) == "Could not find a version that satisfies x"
    assert setup.reason("a\nOSError: [Errno 28] No space left on device\nb\n").startswith(
        "the disk is full"
    )


def test_a_program_that_cannot_run_is_named(setup: ModuleType) -> None:
    step = setup.Step("packages")

    with pytest.raises(setup.Failed, match="packages: /nowhere/pip: No such file"):
        setup.run_step(step, ["/nowhere/pip"], log=None)


def test_every_locked_package_has_a_hash_and_none_is_a_cuda_build() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        blocks = (ROOT / name).read_text().split("\n")
        pinned = [i for i, line in enumerate(blocks) if "==" in line and not line.startswith(" ")]
        assert pinned
        for i in pinned:
            assert "--hash=sha256:" in blocks[i + 1], blocks[i]
            assert not blocks[i].startswith(("torch==", "triton==", "nvidia-", "cuda-"))
