"""Settings from the environment and deskhand.toml, and what a person is told when one is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bots.telegram.settings import TelegramSettings
from cli import configuration
from core.errors import ConfigurationError
from core.settings import Settings

SECRET = "hunter2-not-to-be-shown"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("DESKHAND_", "SLACK_", "TELEGRAM_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def written(text: str, name: str = "deskhand.toml") -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def refused(path: Path | None = None) -> str:
    with pytest.raises(ConfigurationError) as told:
        configuration.load(path)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_without_any_setting_the_defaults_hold() -> None:
    settings = configuration.load()

    assert settings == Settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)


def test_the_file_in_the_working_folder_is_read() -> None:
    written('port = 9000\nreply_style = "verbatim"\nchat_origins = ["https://a.example"]\n')

    settings = configuration.load()

    assert (settings.port, settings.reply_style) == (9000, "verbatim")
    assert settings.chat_origins == ("https://a.example",)


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    written('port = 9000\nhost = "0.0.0.0"\n')
    monkeypatch.setenv("DESKHAND_PORT", "9001")

    settings = configuration.load()

    assert (settings.port, settings.host) == (9001, "0.0.0.0")


def test_a_variable_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESKHAND_DATABASE_URL", "")
    monkeypatch.setenv("DESKHAND_PORT", " ")

    settings = configuration.load()

    assert (settings.database_url, settings.port) == (None, 8080)


def test_a_list_in_the_environment_is_parted_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESKHAND_CHAT_ORIGINS", "https://a.example, https://b.example")

    assert configuration.load().chat_origins == ("https://a.example", "https://b.example")


@pytest.mark.parametrize("form", ['telegram_bot_token = "1:a"', '[telegram]\nbot_token = "1:a"'])
def test_a_channel_takes_its_own_keys_and_leaves_the_rest(form: str) -> None:
    written(f"port = 9000\n{form}\n")

    channel = configuration.section(TelegramSettings)

    assert channel.bot_token is not None
    assert channel.bot_token.get_secret_value() == "1:a"
    assert configuration.load().port == 9000


def test_a_channel_takes_its_token_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", "1:env")

    channel = configuration.section(TelegramSettings)

    assert channel.bot_token is not None
    assert channel.bot_token.get_secret_value() == "1:env"


def test_a_wrong_variable_is_named_with_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESKHAND_PORT", "eighty")

    assert refused().startswith("DESKHAND_PORT is 'eighty': ")


def test_all_that_is_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESKHAND_PORT", "0")
    monkeypatch.setenv("DESKHAND_DEBOUNCE", "-1")

    told = refused()

    assert "DESKHAND_PORT" in told
    assert "DESKHAND_DEBOUNCE" in told


def test_a_wrong_key_is_named_with_file_and_line() -> None:
    written('# first\nhost = "0.0.0.0"\nport = 70000\n')

    assert refused().startswith("deskhand.toml line 3: port is 70000: ")


def test_an_unknown_key_is_named_with_what_was_likely_meant() -> None:
    written('host = "0.0.0.0"\nreply_stile = "verbatim"\n')

    told = refused()

    assert (
        told == "deskhand.toml line 2: there is no setting reply_stile; did you mean reply_style?"
    )


def test_a_channels_unknown_key_is_named_too() -> None:
    written('[telegram]\nbot_tocken = "1:a"\n')

    with pytest.raises(ConfigurationError, match=r"line 2.*did you mean telegram_bot_token\?"):
        configuration.section(TelegramSettings)


def test_a_secrets_value_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESKHAND_DATABASE_URL", f"mysql://deskhand:{SECRET}@db/deskhand")

    told = refused()

    assert told == "DESKHAND_DATABASE_URL must begin with postgresql://"
    assert SECRET not in told


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"port = \n", "deskhand.toml is not valid TOML: .*line 1"),
        (b"host = '\xff'\n", "deskhand.toml is not UTF-8"),
    ],
)
def test_a_broken_file_is_one_clear_line(content: bytes, told: str) -> None:
    Path("deskhand.toml").write_bytes(content)

    with pytest.raises(ConfigurationError, match=told):
        configuration.load()


def test_a_file_that_was_named_must_exist() -> None:
    assert refused(Path("other.toml")) == "There is no configuration file other.toml."


def test_a_misspelt_variable_is_noticed() -> None:
    assert configuration.unknown_variables({"DESKHAND_PROT": "1", "DESKHAND_PORT": "1"}) == {
        "DESKHAND_PROT": "DESKHAND_PORT"
    }


def test_what_is_not_given_is_embedded_and_generated(tmp_path: Path) -> None:
    given = Settings(data_dir=Path("data"))

    completed = configuration.completed(given, create_secrets=True)

    assert completed.data_dir == tmp_path / "data"
    assert completed.database_url is not None
    assert completed.broker_url is not None
    assert completed.api_token is not None
    assert completed.secret_key is not None
    again = configuration.completed(given)
    assert again.api_token == completed.api_token


def test_a_client_makes_no_secrets(tmp_path: Path) -> None:
    completed = configuration.completed(Settings(data_dir=tmp_path / "data"))

    assert completed.api_token is None
    assert not (tmp_path / "data").exists()
