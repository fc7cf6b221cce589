"""The documentation is whole and true: what exists is described, what is described exists."""

from __future__ import annotations

import asyncio
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer
import yaml
from prometheus_client.metrics import MetricWrapperBase
from pydantic import SecretStr
from pydantic_settings import BaseSettings

from bots.channels import ChannelSettings
from bots.slack import SlackSettings
from bots.slack.manifest import manifest
from bots.telegram import TelegramSettings
from cli import main
from cli.processes import gateway
from cli.processes.parts import Connected, Setup
from cli.serving.metrics import Gauges
from core import telemetry, texts
from core.asking import DatabaseAsker
from core.db.connect import Database
from core.faq_entries import FIELDS
from core.following import Followers
from core.settings import Settings
from core.types import Inbox, InboxId, KnowledgeBaseId
from core.working import WorkingIndicator
from workers.publisher import Publisher

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
SECTIONS: tuple[type[BaseSettings], ...] = (Settings, SlackSettings, TelegramSettings)

CODE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]\n]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
ABSENT = frozenset({"docs/images/chat.png"})
"""Made by a command on a running installation; everything else that is linked must be there."""


def reference(name: str) -> str:
    return (REFERENCE / f"{name}.md").read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return CODE.sub("", page.read_text(encoding="utf-8"))


def code(language: str) -> Iterator[tuple[Path, str]]:
    """Yield the blocks of code in a language, with their pages."""
    for page in PAGES:
        for indent, name, body in CODE.findall(page.read_text(encoding="utf-8")):
            if name == language:
                yield page, re.sub(f"^{indent}", "", body, flags=re.MULTILINE)


def commands() -> Mapping[str, Any]:
    """Return the commands that run something, by their words, such as `faq import`."""
    found: dict[str, Any] = {}

    def walk(command: Any, words: tuple[str, ...]) -> None:
        if not hasattr(command, "commands"):
            found[" ".join(words)] = command
            return
        for name, inner in command.commands.items():
            walk(inner, (*words, name))

    walk(typer.main.get_command(main.build()), ())
    return found


def options(command: Any) -> set[str]:
    """Return the options of a command."""
    return {
        name
        for parameter in command.params
        if parameter.param_type_name == "option"
        for name in (*parameter.opts, *parameter.secondary_opts)
    }


def section(text: str, heading: str) -> str:
    """Return what stands below a heading, up to the next one."""
    found = re.search(rf"^#+ `?{heading}\b[^\n]*\n(.*?)(?=^#|\Z)", text, re.DOTALL | re.MULTILINE)
    return found[1] if found else ""


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    plain = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower())
    return plain.strip().replace(" ", "-")


async def routes() -> set[tuple[str, str]]:
    """Return all methods and paths of a gateway."""
    database = Database("postgresql://nowhere/deskhand")
    publisher = Publisher()
    setup = Setup(
        Settings.model_construct(api_token=SecretStr("token"), secret_key=SecretStr("key")),
        ChannelSettings(SlackSettings.model_construct(), TelegramSettings.model_construct()),
        database.url,
        "redis://127.0.0.1:1/0",
    )
    inboxes = {
        name: Inbox(InboxId(number), name, name, KnowledgeBaseId(1))
        for number, name in enumerate(("api", "web"))
    }
    followers = Followers()
    app = gateway.build(
        gateway.Gateway(
            setup,
            database,
            publisher,
            followers,
            DatabaseAsker(database, publisher),
            Connected({}, inboxes),
            WorkingIndicator(database, followers, {}),
            asyncio.Event(),
        )
    )
    return set(_served(app.routes))


def _served(served: list[Any]) -> Iterator[tuple[str, str]]:
    for route in served:
        if hasattr(route, "path") and getattr(route, "methods", None):
            path = re.sub(r":\w+\}", "}", route.path)
            yield from ((method, path) for method in route.methods - {"HEAD", "OPTIONS"})
        elif hasattr(route, "effective_candidates"):
            yield from _served(route.effective_candidates())


@pytest.mark.parametrize("kind", SECTIONS)
def test_every_setting_is_in_the_reference_with_its_default(kind: type[BaseSettings]):
    prefix = str(kind.model_config.get("env_prefix"))
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", reference("settings"), re.MULTILINE))
    generated = {"DESKHAND_API_TOKEN", "DESKHAND_SECRET_KEY"}

    for name, field in kind.model_fields.items():
        variable = prefix + name.upper()
        assert variable in rows, f"docs/reference/settings.md lacks {variable}"
        default = "generated" if variable in generated else _shown(field.default)
        assert rows[variable] == default, f"{variable} is {default} where it is not set"


def _shown(default: object) -> str:
    return "none" if default in (None, ()) else f"`{default}`"


def test_no_setting_is_described_that_does_not_exist():
    known = {
        f"{k.model_config.get('env_prefix')}{n.upper()}" for k in SECTIONS for n in k.model_fields
    }
    known |= {"DESKHAND_TEST_DATABASE_URL"}  # of the tests

    for page in PAGES:
        for name in re.findall(r"\b(?:DESKHAND|SLACK|TELEGRAM)_[A-Z][A-Z_]+\b", page.read_text()):
            assert name in known, f"{page.relative_to(ROOT)} speaks of {name}, which is no setting"


def test_every_command_and_option_is_in_the_reference():
    text = reference("commands")

    for words, command in commands().items():
        described = section(text, f"deskhand {words}")
        assert described, f"docs/reference/commands.md lacks `deskhand {words}`"
        rows = re.findall(r"^\| `(--[^`]+)` \|", described, re.MULTILINE)
        listed = {name for row in rows for name in row.split(", ")}
        assert listed == options(command), f"docs/reference/commands.md on `deskhand {words}`"


def test_no_command_is_described_that_does_not_exist():
    known = commands()

    for line in re.findall(r"^### `deskhand ([^`]+)`", reference("commands"), re.MULTILINE):
        assert any(f"{line} ".startswith(f"{words} ") for words in known), line


def test_commands_in_examples_exist_with_their_options():
    known = commands()
    seen = 0

    for page, block in code("sh"):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            for call in _calls(line):
                words = _words(call, known)
                assert words, f"{page.relative_to(ROOT)}: there is no command `deskhand {call}`"
                given = {word.partition("=")[0] for word in _split(call) if word.startswith("--")}
                unknown = given - options(known[words]) - {"--debug", "--help"}
                assert not unknown, f"{page.relative_to(ROOT)}: `deskhand {words}` has no {unknown}"
                seen += 1
    assert seen > 30


def _calls(line: str) -> Iterator[str]:
    """Yield what follows `deskhand` where a shell's line calls it."""
    for piece in re.split(r"&&|\|\||[|;]", line.partition(" # ")[0]):
        found = re.match(
            r"\s*(?:\w+=\S*\s+)*(?:docker compose (?:\S+ )*?(?:exec|run)(?: --rm)? \w+ )?"
            r"(?:\.venv/bin/)?deskhand\s+(.+)",
            piece,
        )
        if found and not found[1].startswith("--"):
            yield found[1].strip()


def _split(call: str) -> list[str]:
    try:
        return shlex.split(call)
    except ValueError:  # a quote that a split at | has cut
        return call.split()


def _words(call: str, known: Mapping[str, Any]) -> str | None:
    words = call.split()
    candidates = (" ".join(words[:count]) for count in (2, 1))
    return next((name for name in candidates if name in known), None)


async def test_every_route_is_in_the_reference():
    described = set(re.findall(r"`([A-Z]+) (/[^`?\s]*)", reference("http-api")))
    served = await routes()

    assert ("POST", "/v1/messages") in served
    assert sorted(served - described) == [], "docs/reference/http-api.md lacks these"
    assert sorted(described - served) == [], "docs/reference/http-api.md has these too many"


def test_every_metric_and_label_is_in_the_reference():
    text = reference("metrics")
    counted = [value for value in vars(telemetry).values() if isinstance(value, MetricWrapperBase)]
    families = [*(next(iter(metric.collect())) for metric in counted), *Gauges({}, {}).collect()]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", text, re.MULTILINE))

    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert name in rows, f"docs/reference/metrics.md lacks {name}"
    for metric in counted:
        family = next(iter(metric.collect()))
        name = f"{family.name}_total" if family.type == "counter" else family.name
        for label in metric._labelnames:
            assert f"`{label}`" in rows[name], f"docs/reference/metrics.md lacks {label} of {name}"
    assert "deskhand_database_up" in rows
    assert len(rows) == len(families) + 1, "a metric is described that does not exist"


def test_every_field_of_an_entry_is_in_the_reference():
    rows = re.findall(r"^\| `(\w+)` \|", reference("faq-files"), re.MULTILINE)

    assert set(FIELDS) <= set(rows)


def test_every_system_text_is_in_the_reference():
    described = section(reference("commands"), "deskhand texts set")

    assert [key for key in texts.KEYS if f"`{key}`" not in described] == []


def test_every_internal_link_leads_somewhere():
    seen = 0
    for page in PAGES:
        for target in LINK.findall(prose(page)):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / unquote(path)).resolve() if path else page
            where = f"{page.relative_to(ROOT)} links to {target}"
            if file.is_relative_to(ROOT) and str(file.relative_to(ROOT)) in ABSENT:
                continue
            assert file.exists(), f"{where}, which is not there"
            if anchor:
                headings = re.findall(r"^#+ (.+)$", prose(file), re.MULTILINE)
                assert anchor in {slug(heading) for heading in headings}, (
                    f"{where}: no such heading"
                )
            seen += 1
    assert seen > 50


def test_every_page_is_reached_from_the_index():
    linked: set[Path] = set()
    waiting = [DOCS / "README.md", ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in linked or page.suffix != ".md" or not page.exists():
            continue
        linked.add(page)
        for target in LINK.findall(prose(page)):
            if not re.match(r"[a-z]+:", target):
                waiting.append((page.parent / unquote(target.partition("#")[0])).resolve())

    assert sorted(str(page.relative_to(ROOT)) for page in {*DOCS.rglob("*.md")} - linked) == []


def test_files_of_this_project_that_pages_name_exist():
    """Paths in backquotes that begin with one of our folders."""
    folders = (
        "core|bots|desk|retrieval|answering|workers|training|cli|tests|scripts|docker|benchmarks"
    )
    for page in PAGES:
        for name in re.findall(rf"`((?:{folders})/[\w./-]+)`", prose(page)):
            assert (ROOT / name).exists(), f"{page.relative_to(ROOT)} speaks of {name}"


def test_tests_that_pages_name_exist():
    written = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    names = {
        name for page in PAGES for name in re.findall(r"`(test_\w{12,})`", page.read_text("utf-8"))
    }

    assert len(names) > 20
    assert sorted(name for name in names if f"def {name}(" not in written) == []


def test_make_targets_that_pages_name_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    for page in PAGES:
        for name in re.findall(r"(?:`|^\s*)make ([\w-]+)", page.read_text("utf-8"), re.MULTILINE):
            assert name in targets, f"{page.relative_to(ROOT)} speaks of make {name}"


def test_blocks_of_toml_and_yaml_can_be_read():
    for page, block in code("toml"):
        assert tomllib.loads(block), page
    for page, block in code("yaml"):
        assert yaml.safe_load(block), page


def test_both_readmes_link_to_the_same_pages():
    english, chinese = (
        {t for t in LINK.findall(prose(ROOT / name)) if not re.match(r"[a-z]+:", t)}
        for name in ("README.md", "README.zh-CN.md")
    )

    assert english - {"README.zh-CN.md"} == chinese - {"README.md"}


def test_the_slack_manifest_is_the_same_everywhere_and_what_the_command_prints():
    manifests = {
        page.name: block for page, block in code("yaml") if block.startswith("display_information")
    }

    assert set(manifests) == {"README.md", "README.zh-CN.md", "connect-slack.md"}
    assert len(set(manifests.values())) == 1
    assert yaml.safe_load(manifests["README.md"]) == manifest("https://HOST")
