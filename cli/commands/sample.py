"""The sample knowledge base: a fictional shop, from which a fresh installation answers."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Callable, Iterator
from importlib.resources import files
from json import loads
from typing import TYPE_CHECKING

import typer

from cli import configuration, printing
from cli.printing import AsJson
from core.errors import ConfigurationError, InvalidInput

if TYPE_CHECKING:
    from core.db.intents import Example
    from core.faq_files import BadRow, Row

AUTHOR = "sample"
VECTORS = "vectors.safetensors"
"""Made anew by `python -m benchmarks.encode_sample` when a text of the sample changes."""
FOLDER = files("cli.commands") / "sample_shop"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    sample = typer.Typer(no_args_is_help=True, help="The sample knowledge base.")
    sample.command("load")(load_sample)
    app.add_typer(sample, name="sample")


def load_sample(context: typer.Context, json: AsJson = False) -> None:
    """Load the sample shop, if there are no entries yet."""
    settings = configuration.of(context)
    if settings.database_url is None:
        raise ConfigurationError("There is no database; set DESKHAND_DATABASE_URL.")
    url = settings.database_url.get_secret_value()
    loaded = asyncio.run(load(url, lambda text: print(text, file=sys.stderr)))
    if json:
        printing.as_json({"loaded": loaded})
    elif not loaded:
        typer.echo("There are entries already; the sample was not loaded.")


async def load(database_url: str, progress: Callable[[str], None]) -> bool:
    """Load the sample shop into the base `default`, if that has no entries.

    Args:
        database_url: A migrated database.
        progress: Told what is done.

    Returns:
        Whether it was loaded.

    Raises:
        Unavailable: The database is away.
    """
    from core import faq, intents, wording
    from core.db import embeddings
    from core.db.connect import Database

    async with Database(database_url, size=2) as database:
        _, total = await faq.listed(database, faq.Filter(status="all"), limit=1)
        if total:
            return False
        progress("Loading the sample shop")
        for locale, by_key in _texts().items():
            for key, text in by_key.items():
                await wording.set_text(database, locale, key, text)
        await intents.replace_examples(database, examples())
        report = await faq.import_rows(
            database, _entries, author=AUTHOR, name="faq.jsonl", strict=True
        )
        if not report.imported:
            raise InvalidInput(report.lines()[0])
        async with database.transaction() as conn:
            await embeddings.put_many(conn, *shipped_vectors())
        progress(f"Loaded {report.created} sample entries")
        return True


def shipped_vectors() -> tuple[str, dict[bytes, list[float]]]:
    """Return an encoder's name and the vectors that it made of the sample's texts, by their hash.

    They save a first start a minute of encoding; what is not among them is encoded as ever.
    """
    from safetensors import safe_open

    with safe_open(str(FOLDER / VECTORS), framework="numpy") as file:
        hashes, vectors = file.get_tensor("hashes"), file.get_tensor("vectors")
        encoder = file.metadata()["encoder"]
    return encoder, {
        bytes(digest): vector
        for digest, vector in zip(hashes, vectors.astype("float32").tolist(), strict=True)
    }


def _entries() -> Iterator[Row | BadRow]:
    from core.faq_files import FORMATS, Source

    source = Source("faq.jsonl", lambda: io.BytesIO((FOLDER / "faq.jsonl").read_bytes()))
    return FORMATS["jsonl"].read(source)


def examples() -> list[Example]:
    """Return the examples of what the shop's customers want."""
    from core import intents

    text = (FOLDER / "intents.csv").read_text(encoding="utf-8")
    return intents.read_examples(text.splitlines(keepends=True), "intents.csv")


def _texts() -> dict[str, dict[str, str]]:
    return loads((FOLDER / "texts.json").read_text(encoding="utf-8"))
