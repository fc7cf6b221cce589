"""The manifest that staff paste into Slack."""

from __future__ import annotations

import json

import pytest

from bots.slack.manifest import manifest
from cli import main
from core.errors import InvalidInput


def test_the_manifest_sends_events_commands_and_buttons_to_the_gateway():
    made = manifest("https://bot.example.com/")

    settings = made["settings"]
    assert settings["event_subscriptions"]["request_url"] == "https://bot.example.com/slack/events"
    assert settings["interactivity"]["request_url"] == "https://bot.example.com/slack/interactions"
    (command,) = made["features"]["slash_commands"]
    assert command["url"] == "https://bot.example.com/slack/commands"
    assert settings["socket_mode_enabled"] is False


def test_without_an_address_the_manifest_is_for_socket_mode_and_names_no_address():
    made = manifest(None)

    assert made["settings"]["socket_mode_enabled"] is True
    assert "url" not in json.dumps(made)


def test_every_event_has_the_scope_that_slack_asks_for():
    made = manifest(None)

    scopes = set(made["oauth_config"]["scopes"]["bot"])
    needed = {
        "app_mention": "app_mentions:read",
        "reaction_added": "reactions:read",
        "assistant_thread_started": "assistant:write",
    } | {f"message.{kind}": f"{kind}:history" for kind in ("channels", "groups", "im", "mpim")}
    events = made["settings"]["event_subscriptions"]["bot_events"]
    without_scope = {"app_uninstalled", "tokens_revoked"}
    assert {needed[event] for event in events if event not in without_scope} <= scopes


@pytest.mark.parametrize("url", ["http://bot.example.com", "bot.example.com", "https://", "x"])
def test_an_address_that_slack_cannot_call_is_refused(url: str):
    with pytest.raises(InvalidInput, match="https://bot"):
        manifest(url)


def test_the_command_prints_the_manifest(capsys: pytest.CaptureFixture[str]):
    assert main.run(["slack", "manifest", "--url", "https://b.example", "--name", "Ada"]) == 0

    printed = json.loads(capsys.readouterr().out)
    assert printed["features"]["bot_user"]["display_name"] == "Ada"
