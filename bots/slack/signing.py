"""Whether a request comes from Slack; pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

OLDEST_SECONDS = 300
"""Older or further ahead, a request may be a replay.

Source: https://docs.slack.dev/authentication/verifying-requests-from-slack
"""


def refusal(secret: str | None, headers: Mapping[str, str], body: bytes, now: float) -> str | None:
    """Return why a request must be refused, None if Slack signed it just now.

    Bolt's own check answers 500 to a timestamp that is no number and to a signature that is not
    ASCII; and it logs both, with the body.

    Args:
        secret: The app's signing secret; without one everything is refused.
        headers: Of the request, by lower-case name.
        body: As it came over the wire.
        now: Seconds since 1970.
    """
    if not secret:
        return "no signing secret is set"
    timestamp = headers.get("x-slack-request-timestamp", "")
    signature = headers.get("x-slack-signature", "")
    if not timestamp or not signature:
        return "no signature"
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        return "a timestamp that is no number"
    if abs(now - int(timestamp)) > OLDEST_SECONDS:
        return "a signature that is too old"
    signed = b"v0:" + timestamp.encode() + b":" + body
    expected = "v0=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    # As bytes: compare_digest refuses text that is not ASCII.
    if not hmac.compare_digest(signature.encode("utf-8", "replace"), expected.encode()):
        return "a wrong signature"
    return None
