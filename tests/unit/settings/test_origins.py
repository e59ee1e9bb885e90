"""Patterns of origins: what they match, and that matching takes time in proportion to what a client sends."""

import re
import time

import pytest

from reactor.settings.origins import ORIGINS, AllowedOrigins


def allows(written: str, origin: str) -> bool:
    return AllowedOrigins(ORIGINS.parse(written)).allow(origin)


@pytest.mark.parametrize(
    ("written", "origin", "expected"),
    [
        ("https://app-*.example.org", "https://app-1.example.org", True),
        ("https://app-*.example.org", "https://app-.example.org", True),
        ("https://app-*.example.org", "https://app.example.org", False),
        ("https://app-*.example.org", "https://app-1.x.example.org", False),
        ("https://a*b*c.example.org", "https://abc.example.org", True),
        ("https://a*b*c.example.org", "https://a-b-b-c.example.org", True),
        ("https://a*b*c.example.org", "https://ac.example.org", False),
        ("https://ab*ba.example.org", "https://aba.example.org", False),
        ("https://ab*ba.example.org", "https://abba.example.org", True),
        ("https://app.*.example.org", "https://app.one.example.org", True),
        ("https://app.*.example.org", "https://app.one.two.example.org", False),
        ("https://*.example.org:8443", "https://a.example.org:8443", True),
        ("https://*.example.org:8443", "https://a.example.org", False),
        ("http://localhost:*", "http://localhost", True),
        ("http://localhost:*", "http://localhost:8000", True),
        ("http://localhost:*", "http://localhost:8000.evil", False),
        ("http://[::1]:*", "http://[::1]:8000", True),
        ("http://[::1]:*", "http://[::2]:8000", False),
        ("https://*.example.org", "http://a.example.org", False),
        ("https://*.example.org", "https://a.example.org@evil.org", False),
        ("https://*.example.org", "https://a\nb.example.org", False),
    ],
)
def test_a_pattern_matches_what_it_stands_for(written: str, origin: str, expected: bool):
    assert allows(written, origin) is expected


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("http://[0:0:0:0:0:0:0:1]:3000", "http://[::1]:3000"),
        ("http://[2001:DB8:0:0:1:0:0:1]", "http://[2001:db8::1:0:0:1]"),
        ("http://[::ffff:127.0.0.1]", "http://[::ffff:7f00:1]"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://app.example:0080", "http://app.example"),
        ("https://app.example:08443", "https://app.example:8443"),
        ("https://BÜCHER.example", "https://xn--bcher-kva.example"),
        ("https://*.bücher.example", "https://one.xn--bcher-kva.example"),
    ],
)
def test_an_origin_is_compared_as_browsers_send_it(written: str, sent: str):
    assert allows(written, sent)


def test_several_wildcards_in_a_label_take_no_longer_than_one():
    # As a regular expression, twelve wildcards and a text that nearly matches take hours.
    written = f"https://{'a*' * 12}b.example.org"
    origin = f"https://{'a' * 4000}.example.org"
    allowed = AllowedOrigins(ORIGINS.parse(written))
    started = time.perf_counter()
    assert not allowed.allow(origin)
    assert time.perf_counter() - started < 1


def test_it_agrees_with_the_regular_expression_that_each_pattern_stands_for():
    labels = ["", "a", "b", "ab", "ba", "aab", "abab", "a-b"]
    for pattern in ("*", "a*", "*a", "a*b", "*a*", "a*a*b", "**"):
        expression = "[a-z0-9_-]+" if pattern == "*" else pattern.replace("*", "[a-z0-9_-]*")
        for label in labels:
            expected = bool(label) and re.fullmatch(expression, label) is not None
            assert allows(f"https://x.{pattern}.org", f"https://x.{label}.org") is expected, (pattern, label)
