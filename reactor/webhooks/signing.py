"""Signatures as Standard Webhooks has them (https://www.standardwebhooks.com, section "Signature scheme")."""

import hmac
from base64 import b64encode
from hashlib import sha256


def signed_headers(keys: tuple[bytes, ...], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of a request; with several keys (an old and a new one) a signature by each.

    timestamp: seconds since 1970, of this attempt.
    """
    content = f"{message_id}.{timestamp}.".encode() + body
    signatures = (b64encode(hmac.digest(key, content, sha256)).decode() for key in keys)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
