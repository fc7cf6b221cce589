"""Personal data taken out, and what the product needs left in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cli import masking as libraries
from core import masking
from core.masking import mask, mask_prose


@pytest.fixture
def _libraries() -> Iterator[None]:
    before = masking._finders  # pyright: ignore[reportPrivateUsage]
    libraries.install()
    yield
    masking.use(*before)


@pytest.mark.usefixtures("_libraries")
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to ann@shop.example please", "[e-mail]"),
        ("call +49 30 12345678", "[phone]"),
        ("mein Handy: 0171/1234567", "[phone]"),
        ("appelez le 06 12 34 56 78", "[phone]"),
        ("tel. (212) 555-0187 x12", "[phone]"),
        ("电话 +86 138 0013 8000", "[phone]"),
        ("IBAN DE89 3704 0044 0532 0130 00", "[iban]"),
        ("iban gb29nwbk60161331926819", "[iban]"),
        ("my card is 4111 1111 1111 1111", "[card]"),
        ("my SSN: 078-05-1120", "[id]"),
        ("from 192.168.3.44", "[ip]"),
        ("my name is Ann Lee", "[name]"),
        ("Ich heiße Jörg Müller", "[name]"),
        ("我叫王小明，你好", "[name]"),
        ("send it to 12 North Elm Street, apt 4", "[address]"),
        ("Ich wohne in der Hauptstraße 12, 10115 Berlin", "[address]"),
        ("j'habite 12 rue de la Paix", "[address]"),
    ],
)
def test_personal_data_is_taken_out_in_many_languages(text: str, kind: str):
    masked = mask_prose(text)

    assert kind in masked
    assert mask_prose(masked) == masked


@pytest.mark.usefixtures("_libraries")
@pytest.mark.parametrize(
    "text",
    [
        "ordered on 2026-05-12 at 10:30, order BF-123456",
        "delivered on 12.05.2026, not on 12/05/26",
        "order 1234567 for €1,234.56",
        "Does the Heron 20 litres fit a 15 inch laptop?",
        "The Otter costs €24 with 500 ml, €29 with 750 ml",
        "turn 0b2c9c7e-4f1c-4a39-8a0e-1234567890ab",
        "I'm looking for the Ember pot",
    ],
)
def test_dates_order_numbers_prices_and_products_stay(text: str):
    assert mask_prose(text) == text


def test_a_logs_text_is_masked_by_patterns_alone():
    masking_calls: list[str] = []

    def finder(text: str) -> list[masking.Found]:
        masking_calls.append(text)
        return []

    before = masking._finders  # pyright: ignore[reportPrivateUsage]
    masking.use(finder)
    try:
        assert mask("call +49 30 12345678") == "call [phone]"
        assert masking_calls == []
        mask_prose("hello")
        assert masking_calls == ["hello"]
    finally:
        masking.use(*before)
