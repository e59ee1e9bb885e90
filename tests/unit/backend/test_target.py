"""Parsing Redis addresses, and the one line of the error for a wrong one."""

import pytest

from reactor.backend.target import Target, parse_url
from reactor.errors import SettingError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", {"hosts": (("h", 6379),)}),
        ("redis://h:1/3", {"hosts": (("h", 1),), "db": 3}),
        ("redis://h?db=4", {"hosts": (("h", 6379),), "db": 4}),
        ("redis://u:p%40%2Fss@h:1", {"hosts": (("h", 1),), "username": "u", "password": "p@/ss"}),
        ("redis://:p@[::1]:2/", {"hosts": (("::1", 2),), "password": "p"}),
        (
            "redis+sentinel://u:p@h/main?sentinel_username=s&sentinel_password=q",
            {
                "kind": "sentinel",
                "hosts": (("h", 26379),),
                "master_name": "main",
                "username": "u",
                "password": "p",
                "sentinel_username": "s",
                "sentinel_password": "q",
            },
        ),
        (
            "rediss+sentinel://h/main",
            {
                "kind": "sentinel",
                "hosts": (("h", 26379),),
                "master_name": "main",
                "tls": True,
                "sentinel_tls": True,
            },
        ),
        (
            "rediss+sentinel://h/main?sentinel_tls=no",
            {"kind": "sentinel", "hosts": (("h", 26379),), "master_name": "main", "tls": True},
        ),
        ("redis://h?username=u&password=p", {"hosts": (("h", 6379),), "username": "u", "password": "p"}),
        (
            "rediss://h:6380?ssl_ca_certs=/ca.pem",
            {"hosts": (("h", 6380),), "tls": True, "tls_options": (("ssl_ca_certs", "/ca.pem"),)},
        ),
        ("unix:///run/my%20redis.sock?db=2", {"path": "/run/my redis.sock", "db": 2}),
        ("unix://u:p@/run/redis.sock", {"path": "/run/redis.sock", "username": "u", "password": "p"}),
        (
            "redis+sentinel://a:1,b/main/5",
            {"kind": "sentinel", "hosts": (("a", 1), ("b", 26379)), "master_name": "main", "db": 5},
        ),
        ("rediss+cluster://a:1,b:2", {"kind": "cluster", "hosts": (("a", 1), ("b", 2)), "tls": True}),
    ],
)
def test_addresses(url, expected):
    assert parse_url(url) == Target(**{"kind": "single", "url": url, **expected})


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("http://h", "has to begin with redis://"),
        ("localhost:6379", "has to begin with redis://"),
        ("redis://", "lacks a host and port, as in redis://127.0.0.1:6379."),
        ("redis://:6379", "lacks a host and port"),
        ("redis://h:0", "lacks a host and port"),
        ("redis://h:x", 'has "h:x" where a host and a port from 1 to 65535 are expected.'),
        ("redis://h:70000", 'has "h:70000" where a host and a port from 1 to 65535 are expected.'),
        ("redis://[::1", "cannot be parsed: Invalid IPv6 URL."),
        ("redis://h/x", 'has "x" where the database number belongs, as in redis://host:6379/0.'),
        ("redis://h/1/2", 'has "1/2" where the database number belongs'),
        ("redis://h?db=-1", 'has "-1" where the database number'),
        (
            "redis://h?pasword=secret",
            "has an unknown option, pasword; the options are db, username, password",
        ),
        ("redis://h?sentinel_password=secret", "has an unknown option, sentinel_password"),
        ("redis://h?pasword=secret", "Did you mean password?"),
        ("redis://:secret#secret@h", "has reserved characters in its password; write # as %23"),
        ("redis://:secret/secret@h", "has reserved characters in its password"),
        ("redis://u:secret?secret@h", "has reserved characters in its password"),
        ("unix://run/redis.sock", "names no socket; use three slashes"),
        ("redis+sentinel://h:1", "lacks the name of the primary"),
        ("redis+cluster://h:1/2/3", 'has "2/3" where the database number belongs'),
        (
            "rediss://h?ssl_cert_reqs=some",
            'has "some" for ssl_cert_reqs, which takes none, optional, required',
        ),
        ("rediss://h?ssl_check_hostname=flase", 'has "flase" for ssl_check_hostname, which takes yes or no'),
    ],
)
def test_a_wrong_address_gives_one_line_without_the_password(url, line):
    with pytest.raises(SettingError) as caught:
        parse_url(url)
    assert str(caught.value).startswith("The Redis address ")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_target_is_shown_without_its_password():
    target = parse_url("redis://user:secret@h:1/2")
    assert str(target) == "redis://user:***@h:1/2"
    assert "secret" not in repr(target)
