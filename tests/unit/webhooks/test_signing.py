"""Signatures follow Standard Webhooks, checked with the example of its specification."""

import hmac
from base64 import b64decode, b64encode

from reactor.settings import Settings
from reactor.webhooks.endpoint import signed_headers
from tests.system.webhooks.receiver import SECRET

(KEY,) = Settings(webhook_secrets=SECRET).webhook_secrets  # type: ignore[arg-type]
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"


def test_the_example_of_the_specification_is_reproduced() -> None:
    headers = signed_headers((KEY,), ID, 1614265330, b'{"test": 2432232314}')
    assert headers == {
        "webhook-id": ID,
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_with_two_secrets_each_verifies_the_request() -> None:
    other = bytes(range(32))
    signatures = signed_headers((KEY, other), ID, 7, b"{}")["webhook-signature"].split(" ")
    for key, signature in zip((KEY, other), signatures, strict=True):
        expected = b64encode(hmac.digest(key, f"{ID}.7.{{}}".encode(), "sha256")).decode()
        assert signature == f"v1,{expected}"


def test_the_key_is_the_decoded_secret_without_its_prefix() -> None:
    assert b64decode(SECRET.removeprefix("whsec_")) == KEY
