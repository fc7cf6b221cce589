"""docker/: what can be known of images and compose files without an engine to build them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from bots.slack import SlackSettings
from bots.telegram import TelegramSettings
from cli import main
from core.settings import Settings

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DOCKERFILE = DOCKER / "Dockerfile"
COMPOSE = DOCKER / "compose.yml"
CUDA = DOCKER / "compose.cuda.yml"
ENVIRONMENT = DOCKER / ".env.example"
IGNORE = ROOT / ".dockerignore"
LOCKS = {"cpu": DOCKER / "torch-cpu.lock", "cuda": DOCKER / "torch-cuda.lock"}

VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")
ASKED_FOR = "d0c5ec2e7"
"""Stands for a secret that a person must give."""


@cache
def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions with their arguments, comments and breaks gone."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines) if name]


def arguments(name: str) -> list[str]:
    return [rest for found, rest in instructions() if found == name]


def interpolated(text: str, given: Mapping[str, str] = {}) -> str:
    """Return a compose file as Compose reads it where only what must be set is set."""

    def value(found: re.Match[str]) -> str:
        if found["name"] in given:
            return given[found["name"]]
        return ASKED_FOR if found["kind"] == "?" else found["rest"] or ""

    return VARIABLE.sub(value, text)


@cache
def compose(path: Path = COMPOSE) -> Any:
    return yaml.safe_load(interpolated(path.read_text(encoding="utf-8")))


def services() -> Mapping[str, Any]:
    return compose()["services"]


def ours() -> dict[str, Any]:
    """Return the services that run Deskhand."""
    return {name: one for name, one in services().items() if one["image"].startswith("deskhand:")}


@cache
def commands() -> Mapping[str, Any]:
    return typer.main.get_command(main.build()).commands  # type: ignore[attr-defined]


def settings() -> set[str]:
    return {
        f"{kind.model_config.get('env_prefix')}{name.upper()}"
        for kind in (Settings, SlackSettings, TelegramSettings)
        for name in kind.model_fields
    }


def documented() -> dict[str, str]:
    """Return the variables of .env.example, those in comments too, with their values."""
    found = re.findall(r"^#?([A-Z][A-Z_]+)=(.*)$", ENVIRONMENT.read_text("utf-8"), re.MULTILINE)
    return dict(found)


def checked(*command: str) -> None:
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def copied() -> Iterator[str]:
    """Yield what the image takes from the checkout, for every build argument."""
    for rest in arguments("COPY"):
        *sources, _target = shlex.split(rest)
        if not sources[0].startswith("--from="):
            for source in sources:
                yield from (source.replace("${TORCH}", kind) for kind in LOCKS)


def reaches_the_builder(path: str) -> bool:
    """Tell whether .dockerignore lets a file or folder through; the last line that fits decides."""
    let_through = True
    for line in IGNORE.read_text(encoding="utf-8").splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        if not line or line.startswith("#"):
            continue
        inside = path == pattern or path.startswith(f"{pattern}/")
        anywhere = line.startswith("**/") and Path(path).match(pattern)
        if pattern == "*" or inside or anywhere:
            let_through = line.startswith("!")
    return let_through


def test_the_dockerfile_lints_clean():
    hadolint = Path(sys.executable).with_name("hadolint")

    checked(str(hadolint), "--failure-threshold", "style", str(DOCKERFILE))


def test_the_compose_files_fit_the_compose_specification(tmp_path: Path):
    for path in (COMPOSE, CUDA):
        filled = tmp_path / path.name
        filled.write_text(interpolated(path.read_text(encoding="utf-8")), encoding="utf-8")

        for one in (path, filled):
            checked(
                sys.executable, "-m", "check_jsonschema",
                "--builtin-schema", "vendor.compose-spec", str(one),
            )  # fmt: skip


def test_the_gpu_file_changes_services_that_there_are():
    assert set(compose(CUDA)["services"]) <= set(ours())


def test_every_command_of_a_service_exists():
    assert {"migrate", "sample", "gateway", "worker", "sender", "scheduler"} == set(ours())
    for name, service in ours().items():
        first, *others = service["command"]
        assert first in commands(), name
        known = getattr(commands()[first], "commands", {})
        assert all(other in known for other in others), name


def test_every_command_in_the_dockerfile_exists():
    calls = [call for rest in arguments("RUN") for call in re.findall(r"\bdeskhand (\w+)", rest)]
    calls += re.findall(r'"deskhand", "(\w+)"', " ".join(arguments("HEALTHCHECK")))

    assert {"models", "alive"} <= set(calls)
    assert [call for call in calls if call not in commands()] == []
    assert arguments("ENTRYPOINT") == ['["deskhand"]']


def test_every_variable_is_a_setting_that_exists():
    found = {
        name
        for path in (DOCKERFILE, COMPOSE, CUDA, ENVIRONMENT)
        for name in re.findall(
            r"\b(?:DESKHAND|SLACK|TELEGRAM)_[A-Z_]*[A-Z]\b", path.read_text("utf-8")
        )
    }

    assert {"DESKHAND_DATABASE_URL", "DESKHAND_DATA_DIR"} <= found
    assert found - settings() == set()


def test_the_values_that_compose_gives_are_ones_that_the_settings_take():
    for service in ours().values():
        given = {
            name.removeprefix("DESKHAND_").lower(): str(value)
            for name, value in service["environment"].items()
            if name.startswith("DESKHAND_")
        }
        assert Settings(**given).database_url  # type: ignore[arg-type]


def test_the_example_names_every_variable_and_no_other():
    text = COMPOSE.read_text("utf-8") + CUDA.read_text("utf-8")
    asked = {found["name"]: found for found in VARIABLE.finditer(text)}

    assert set(asked) - set(documented()) == set()
    assert set(documented()) - set(asked) - settings() == set()
    for name, found in asked.items():
        default = "" if found["kind"] == "?" else found["rest"]
        assert documented()[name] == default, f"{name} has another default in compose.yml"


def test_the_example_holds_no_secret():
    for name, value in documented().items():
        if re.search(r"PASSWORD|TOKEN|SECRET|KEY", name):
            assert value == "", name


@pytest.mark.parametrize("name", ["POSTGRES_PASSWORD", "RABBITMQ_PASSWORD", "DESKHAND_API_TOKEN",
                                  "DESKHAND_SECRET_KEY"])  # fmt: skip
def test_compose_refuses_to_start_without_a_secret(name: str):
    uses = [found for found in VARIABLE.finditer(COMPOSE.read_text("utf-8"))
            if found["name"] == name]  # fmt: skip

    assert uses
    assert {found["kind"] for found in uses} == {"?"}


def test_all_images_are_pinned():
    stages = [rest.partition(" AS ")[0] for rest in arguments("FROM")]
    images = [*stages, *(service["image"] for service in services().values())]

    assert len(set(stages)) == 1, "both stages must run on the same Python"
    for image in images:
        name, _, tag = image.rpartition(":")
        assert name, f"{image} has no tag"
        assert re.search(r"\d", tag), f"{image} names no release"


def test_our_image_carries_this_release():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert {one["image"] for one in ours().values()} == {f"deskhand:{project['version']}"}
    assert compose(CUDA)["services"]["worker"]["image"] == f"deskhand:{project['version']}-cuda"


def test_both_builds_of_torch_are_the_release_that_the_set_up_installs():
    release = re.search(r'^TORCH = "(torch==[\d.]+)"', (ROOT / "scripts/setup").read_text(), re.M)
    assert release
    for kind, path in LOCKS.items():
        text = path.read_text(encoding="utf-8")
        pinned = re.search(r"^(torch==\S+)", text, re.MULTILINE)
        assert pinned, path
        assert pinned[1].removesuffix("+cpu") == release[1], path
        packages = re.findall(r"^[a-z][\w.-]*==\S+ (.*(?:\n .*)*)", text, re.MULTILINE)
        assert all("--hash=sha256:" in hashes for hashes in packages), path
        assert ("nvidia-" in text) is (kind == "cuda")


def test_all_packages_are_installed_by_their_hashes():
    installs = [
        call for rest in arguments("RUN") for call in re.findall("pip install ([^&]*)", rest)
    ]

    assert len(installs) == 3
    for options in installs:
        ourselves = options.split()[-1] == "."
        assert "--no-deps" in options
        assert ("--require-hashes" in options) is not ourselves


def test_what_is_copied_exists_and_reaches_the_builder():
    sources = set(copied())

    assert {"core", "cli", "docker/torch-cpu.lock", "docker/torch-cuda.lock"} <= sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert reaches_the_builder(source), source


def test_every_package_of_ours_is_in_the_image():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]

    assert {name.removesuffix("*") for name in packages} <= set(copied())


def test_every_data_file_of_ours_is_installed():
    """An image has no checkout beside it: what no pattern names would be missing there."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    folders = [name.removesuffix("*") for name in setuptools["packages"]["find"]["include"]]
    patterns = [*setuptools["package-data"]["*"], "*.py"]
    tracked = subprocess.run(
        ["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()

    assert len(tracked) > 100
    assert [n for n in tracked if not any(Path(n).match(pattern) for pattern in patterns)] == []


@pytest.mark.parametrize(
    "path",
    [".git", ".git/config", ".venv/bin/python", ".deskhand/secrets", "docker/.env", "deskhand.toml",
     "tests/conftest.py", "docs/README.md", "core/__pycache__", "core/types.pyc"],
)  # fmt: skip
def test_nothing_private_or_needless_reaches_the_builder(path: str):
    assert not reaches_the_builder(path)


def test_secrets_of_the_compose_file_stay_out_of_git():
    answer = subprocess.run(
        ["git", "check-ignore", "--no-index", "docker/.env"], cwd=ROOT, capture_output=True
    )

    assert answer.returncode == 0, ".gitignore must name docker/.env"


def test_only_the_gateway_is_reached_from_outside_and_only_from_this_machine():
    published = {name: one["ports"] for name, one in services().items() if "ports" in one}

    assert published == {"gateway": ["127.0.0.1:8080:8080"]}
    for name in ("postgres", "rabbitmq"):
        assert services()[name]["networks"] == ["data"]
    assert compose()["networks"]["data"]["internal"] is True


def test_our_containers_have_no_rights_that_they_do_not_need():
    user = arguments("USER")[-1]

    assert user.split(":")[0] not in ("", "0", "root")
    for name, service in ours().items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["tmpfs"] == ["/tmp"], name


def test_every_service_is_limited_watched_and_started_again():
    for name, service in services().items():
        once = name in ("migrate", "sample")
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert service["restart"] == ("no" if once else "unless-stopped"), name
        if once:
            assert service["healthcheck"] == {"disable": True}, name
        elif name not in ours():
            assert service["healthcheck"]["test"], name  # ours have the image's


def test_the_database_is_migrated_before_anything_serves():
    for name in ("gateway", "worker", "sender", "scheduler", "sample"):
        waits = services()[name]["depends_on"]
        assert waits["migrate"]["condition"] == "service_completed_successfully", name
        assert waits["postgres"]["condition"] == "service_healthy", name
        assert waits["rabbitmq"]["condition"] == "service_healthy", name


def test_an_answering_worker_gets_no_secret_of_a_channel():
    environment = services()["worker"]["environment"]
    kept = {
        f"{kind.model_config.get('env_prefix')}{name.upper()}"
        for kind in (SlackSettings, TelegramSettings)
        for name, field in kind.model_fields.items()
        if "SecretStr" in str(field.annotation)
    }

    assert len(kept) >= 4
    assert {name for name in kept if environment.get(name) != ""} == set()


def test_as_many_workers_as_are_asked_for_run_with_threads_for_their_cores():
    text = interpolated(COMPOSE.read_text("utf-8"), {"WORKERS": "3", "WORKER_CPUS": "4"})
    worker = yaml.safe_load(text)["services"]["worker"]

    assert worker["deploy"]["replicas"] == 3
    assert worker["deploy"]["resources"]["limits"]["cpus"] == 4
    assert worker["environment"]["DESKHAND_THREADS"] == 4
