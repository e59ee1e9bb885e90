"""Settings: their sources, and the one line of the error for an invalid value."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from reactor.errors import SettingError
from reactor.settings import RoomPolicy, RoomRule, Settings, kinds, setting_fields
from reactor.settings.load import advice, flag_name, load, variable_name
from reactor.settings.rooms import read_rules


def test_defaults_are_the_documented_ones():
    settings = Settings()
    assert (settings.host, settings.port, settings.namespace) == ("127.0.0.1", 8765, "reactor")
    assert (settings.ttl, settings.grace, settings.away_grace) == (21600.0, 15.0, None)
    assert (settings.sweep_interval, settings.lease, settings.pacemaker, settings.listener) == (
        60.0,
        5.0,
        True,
        True,
    )
    assert settings.policy("any") == RoomPolicy(
        21_600_000, 15_000, 300_000, 5_000, settings.inactivity_message
    )


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (90, 90),
        (1.5, 1.5),
        ("90", 90),
        ("15s", 15),
        ("10m", 600),
        ("6h", 21600),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("2 D", 172800),
    ],
)
def test_durations(given, seconds):
    assert Settings(ttl=given).ttl == seconds


@pytest.mark.parametrize(
    "given", ["abc", "", "-1", "10x", "nan", "inf", "1e3", True, None, [1], "٣", "366d", 0.01, "9" * 400]
)
def test_an_invalid_duration_gives_the_setting_and_valid_values(given):
    with pytest.raises(
        SettingError, match=r"^ttl is .* but takes seconds or a duration such as .*\.$"
    ) as caught:
        Settings(ttl=given)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("given", "count"), [(4096, 4096), ("4096", 4096), ("64KiB", 65536), ("1 mib", 1048576), ("300b", 300)]
)
def test_sizes(given, count):
    assert Settings(max_message=given).max_message == count


@pytest.mark.parametrize("given", ["64KB", "x", 10, "1GiB", 4096.5, False])
def test_invalid_sizes(given):
    with pytest.raises(SettingError, match=r"max_message is .* takes bytes or a size such as"):
        Settings(max_message=given)


@pytest.mark.parametrize("given", [True, "on", "TRUE", "yes", "1", 1])
def test_switches_on(given):
    assert Settings(compression=given).compression is True


@pytest.mark.parametrize("given", [False, "off", "False", "no", "0", 0])
def test_switches_off(given):
    assert Settings(pacemaker=given).pacemaker is False


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"pacemaker": "maybe"}, 'pacemaker is "maybe", but takes on or off.'),
        ({"port": 70000}, "port is 70000, but takes a whole number from 0 to 65535 (0 for any free one)."),
        ({"port": "80.5"}, 'port is "80.5", but takes a whole number'),
        ({"log_level": "warn"}, "but takes one of debug, info, warning, error. Did you mean warning?"),
        ({"namespace": "a{b}"}, "but takes 1 to 64 letters, digits or . _ -."),
        ({"workers": 0}, "workers is 0, but takes a whole number from 1 to 256."),
        (
            {"origins": "example.org"},
            "but takes web origins such as https://example.org, https://*.example.org (its",
        ),
        *(
            ({"origins": origin}, f'origins is "{origin}", but takes web origins such as')
            for origin in (
                "*.app.example",
                "*://app.example",
                "https://*",
                "https://app.*",
                "https://app.example/chat",
                "wss://app.example",
                "https://app.example:80a",
                "https://user@app.example",
                "https://",
                "http*://a.b",
                "https://a..b",
                "https://app.example, *.app.example",
                "https://app.example?x",
                "Null://",
                # What no browser sends.
                "http://127.1",
                "http://0x7f.0.0.1",
                "http://2130706433",
                "http://1.2.3.4.5",
                "http://256.1.1.1",
                "http://[1::2::3]",
                "http://app.example:0",
                "http://app.example:99999",
                "https://app.example.",
                # By the IDNA of Python this is strasse.example, which may belong to someone else.
                "https://straße.example",
                "https://a b",
                "https://[::1",
                "https://app.example:8*",
            )
        ),
        ({"inactivity_message": "two\nlines"}, "but takes a text of 1 to 500 characters on one line."),
        ({"host": "a b"}, 'host is "a b", but takes a host name or an address.'),
        ({"sweep_interval": "0.01"}, "or 0 for off"),
    ],
)
def test_an_invalid_value_gives_one_line(wrong, line):
    with pytest.raises(SettingError) as caught:
        Settings(**wrong)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_password_is_never_shown():
    with pytest.raises(SettingError) as caught:
        Settings(redis_url="http://user:secret@host?password=secret")
    assert "secret" not in str(caught.value)
    assert "user:***@host" in str(caught.value)
    assert "secret" not in repr(Settings(redis_url="redis://:secret@host"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:s@h", "redis://:***@h"),
        ("redis://u:p@ss@h/1", "redis://u:***@h/1"),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("unix:///run/x.sock?db=1&password=s", "unix:///run/x.sock?db=1&password=***"),
    ],
)
def test_redacted(url, shown):
    assert kinds.redacted(url) == shown


def test_flags_win_over_environment_over_file_over_default(tmp_path):
    file = tmp_path / "reactor.toml"
    file.write_text('ttl = "1h"\ngrace = 1\nport = 1111\npacemaker = false\n')
    environ = {"REACTOR_CONFIG": str(file), "REACTOR_TTL": "2h", "REACTOR_GRACE": "2"}
    settings = load({"ttl": "3h", "grace": None}, environ)
    assert (settings.ttl, settings.grace, settings.port, settings.lease) == (10800, 2, 1111, 5.0)
    assert settings.pacemaker is False


def test_an_empty_variable_counts_as_not_set():
    assert load({}, {"REACTOR_REDIS_URL": "", "REACTOR_TTL": ""}) == Settings()


def test_an_invalid_value_is_named_as_it_was_given(tmp_path):
    file = tmp_path / "r.toml"
    file.write_text("ttl = true")
    for flags, environ, start in [
        ({"away_grace": "x"}, {}, '--away-grace is "x"'),
        ({}, {"REACTOR_AWAY_GRACE": "x"}, 'REACTOR_AWAY_GRACE is "x"'),
        ({"config": str(file)}, {}, f"{file}: ttl is true"),
    ]:
        with pytest.raises(SettingError) as caught:
            load(flags, environ)
        assert str(caught.value).startswith(start)


def test_a_file_may_begin_with_a_byte_order_mark_and_have_lines_of_windows(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_bytes(b"\xef\xbb\xbfttl = '2m'\r\ngrace = '20s'\r\n")
    settings = load({"config": str(file)}, {})
    assert (settings.ttl, settings.grace) == (120, 20)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("ttl = ", "is not valid TOML: Invalid value (at end of document)."),
        ("tll = 5", ": tll is not a setting. Did you mean ttl?"),
        ("config = 'x'", ": config is not a setting."),
        ("rooms = 5", ': rooms takes tables such as [rooms."lobby-*"].'),
        (
            "[rooms]\nlobby = 5",
            ': rooms."lobby" takes a table such as [rooms."lobby"] with ttl, grace, away_grace',
        ),
        ("[rooms.lobby]\ntl = 5", ': rooms."lobby".tl is not a setting of a room; these are ttl, grace'),
        ("[rooms.lobby]\ngrace = 'x'", ': rooms."lobby".grace is "x", but takes seconds'),
        (
            "[rooms.lobby]\nmax_members = -1",
            ': rooms."lobby".max_members is -1, but takes a whole number from 0',
        ),
    ],
)
def test_invalid_files(tmp_path, text, line):
    file = tmp_path / "r.toml"
    file.write_text(text)
    with pytest.raises(SettingError) as caught:
        load({"config": str(file)}, {})
    assert str(caught.value).startswith(str(file))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path):
    with pytest.raises(SettingError, match="cannot be read: No such file"):
        load({"config": str(tmp_path / "none.toml")}, {})
    with pytest.raises(SettingError, match="cannot be read: Is a directory"):
        load({}, {"REACTOR_CONFIG": str(tmp_path)})
    (tmp_path / "latin").write_bytes(b'host = "\xe4"')
    with pytest.raises(SettingError, match="it is not UTF-8"):
        load({"config": str(tmp_path / "latin")}, {})


def test_the_built_in_rule_for_demonstrations_yields_to_every_other_rule():
    assert Settings().policy("demo-lobby").ttl == 30_000
    assert Settings().policy("a-demo-lobby").ttl == Settings().policy("demo").ttl == 21_600_000
    assert Settings(ttl=5).policy("demo-lobby").ttl == 5000
    ruled = Settings(rooms=read_rules({"demo-*": {"max_members": 3}, "demo-1": {"ttl": 60}}, ""))
    assert ruled.policy("demo-lobby").ttl == 21_600_000
    assert ruled.policy("demo-1").ttl == 60_000
    assert Settings().policy_under(RoomRule(match="demo-1", ttl=90), "demo-1").ttl == 90_000


def test_rules_for_rooms(tmp_path):
    file = tmp_path / "r.toml"
    file.write_text(
        """
        grace = 10
        [rooms."lobby-*"]
        ttl = "1m"
        message = "Away for a minute."
        close_grace = 2
        [rooms."lobby-?"]
        ttl = 5
        [rooms.lobby-7]
        grace = 0
        max_members = 3
        [rooms."*"]
        away_grace = "1h"
        """
    )
    settings = load({"config": str(file)}, {})
    usual = settings.inactivity_message
    assert settings.policy("lobby-1") == RoomPolicy(60_000, 10_000, 60_000, 2_000, "Away for a minute.")
    assert settings.policy("lobby-7") == RoomPolicy(21_600_000, 0, 300_000, 0, usual, 3)
    assert settings.policy("hall") == RoomPolicy(21_600_000, 10_000, 3_600_000, 5_000, usual)
    assert settings.policy("Lobby-1") == settings.policy("hall")
    assert settings.policy("x\ny") == settings.policy("hall")
    assert settings.policy("lobby-*").ttl == 60_000


def test_a_grace_is_limited_by_the_ttl():
    assert Settings(ttl=1).policy("r") == RoomPolicy(1000, 1000, 1000, 1000, Settings().inactivity_message)


def test_settings_can_be_copied_and_pickled():
    settings = Settings(ttl=2, rooms=(RoomRule(match="a*", ttl=1),))
    settings.policy("a1")
    assert replace(settings, grace=1).policy("a1").grace == 1000
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_warnings():
    environ = {"REACTOR_TLL": "5", "REACTOR_TTL": "5", "PATH": "x", "REACTOR_XYZ": ""}
    lines = advice(Settings(ttl=30, rooms=(RoomRule(match="a", grace=60),)), environ)
    assert lines == [
        "REACTOR_TLL is not a setting and has no effect. Did you mean REACTOR_TTL?",
        "REACTOR_XYZ is not a setting and has no effect.",
        (
            "ttl is 30s, less than two intervals of heartbeat_interval (25s): "
            "one late heartbeat removes a member."
        ),
        (
            "ttl is 30s: the timers of hidden pages run once a minute, so members may expire there. "
            "75s or more is safe."
        ),
        'grace in rooms."a" is longer than ttl (30s), which limits it.',
    ]
    off = Settings(pacemaker=False, listener=False, sweep_interval=0)
    assert advice(off, {}) == [
        "pacemaker, listener and sweep_interval are all off: expired members are not removed."
    ]
    assert advice(Settings(), {}) == []


def test_every_setting_has_a_variable_a_flag_and_a_documented_default():
    for item in setting_fields():
        kind = item.metadata["kind"]
        assert variable_name(item.name) == f"REACTOR_{item.name.upper()}"
        assert flag_name(item.name) == "--" + item.name.replace("_", "-")
        assert item.metadata["about"]
        if item.default not in (None, ()):
            assert kind.parse(kind.show(item.default)) == item.default
        else:
            assert item.metadata["none"]


def test_a_tilde_in_the_path_of_the_file_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/nowhere")
    assert Settings(config=Path("~/r.toml")).config == Path("/nowhere/r.toml")
