"""A wrong webhook setting is refused with one line that names the fix."""

from typing import Any

import pytest

from reactor.errors import SettingError
from reactor.settings import Settings
from tests.system.webhooks.receiver import SECRET

URL = "https://example.org/hooks"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"webhook_urls": "ftp://example.org"}, "webhook_urls is"),
        ({"webhook_urls": "https://user:pass@example.org/"}, "without a user name or password"),
        ({"webhook_urls": "https://"}, "webhook_urls is"),
        ({"webhook_urls": "https://example.org/a b"}, "webhook_urls is"),
        ({"webhook_urls": "https://example.org:99999/"}, "webhook_urls is"),
        ({"webhook_urls": URL}, "whsec_$(openssl rand -base64 32)"),
        ({"webhook_urls": URL, "webhook_secrets": "hunter2"}, "24 to 64 random bytes"),
        ({"webhook_urls": URL, "webhook_secrets": "whsec_c2hvcnQ="}, "24 to 64 random bytes"),
        ({"webhook_urls": "http://example.org/", "webhook_secrets": SECRET}, "webhook_private"),
        ({"webhook_events": "member_came"}, "webhook_events is"),
    ],
)
def test_a_wrong_value_is_refused_with_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as error:
        Settings(**options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "pass" not in str(error.value).replace("password", "")
    assert "hunter2" not in str(error.value)


def test_several_urls_and_secrets_are_accepted_and_secrets_are_not_shown() -> None:
    settings = Settings(webhook_urls=f"{URL}, {URL}2", webhook_secrets=f"{SECRET},{SECRET}")  # type: ignore[arg-type]
    assert settings.webhook_urls == (URL, f"{URL}2")
    assert len(settings.webhook_secrets) == 2
    assert "MfKQ" not in repr(settings)
