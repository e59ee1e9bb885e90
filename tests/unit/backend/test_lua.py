"""The Lua linker: what a script gets of the library, and what it reports."""

import pytest

from reactor.backend.lua import Library, LuaLinkError, strip_comments, strip_spaces

KEYS = """\
-- Names of keys.

local SHARD = KEYS[1] -- the prefix
local ROOMS = SHARD .. ':rooms'
local function room_key(room) return SHARD .. ':room:' .. room end -- one line
"""
CLOCK = """\
local clock_reply, clock_ms

local function now()
  -- Read once.
  if not clock_ms then
    clock_reply = redis.call('TIME')
    clock_ms = clock_reply[1] * 1000
  end
  return clock_ms
end
"""
LIMITS = """\
local LIMITS = {
  rows = MAX_ROWS,
}
local function countdown(n) return n == 0 and 0 or countdown(n - 1) end
local function touch(room) redis.call('SET', room_key(room), now(), 'PX', LIMITS.rows) end
"""
FILES = {"lib/limits.lua": LIMITS, "lib/keys.lua": KEYS, "lib/clock.lua": CLOCK}


def library(**files: str) -> Library:
    given = {f"lib/{name}.lua": text for name, text in files.items()}
    return Library({**FILES, **given}, {"MAX_ROWS": 1000, "PUBLISH": "SPUBLISH", "FIELDS": ("a", "b")})


def linked(script: str) -> list[str]:
    return library().link("room/test.lua", script).splitlines()


def test_a_script_gets_nothing_that_it_does_not_use() -> None:
    assert linked("-- Answers.\nreturn redis.call('GET', KEYS[1])\n") == ["return redis.call('GET', KEYS[1])"]


def test_a_script_gets_what_it_uses_each_behind_what_that_uses() -> None:
    assert linked("touch(ARGV[1])\n") == [
        "local MAX_ROWS = 1000",
        "local LIMITS = {",
        "rows = MAX_ROWS,",
        "}",
        "local SHARD = KEYS[1]",
        "local function room_key(room) return SHARD .. ':room:' .. room end",
        "local clock_reply, clock_ms",
        *(line.lstrip() for line in strip_comments(CLOCK).splitlines()[1:]),
        "local function touch(room) redis.call('SET', room_key(room), now(), 'PX', LIMITS.rows) end",
        "touch(ARGV[1])",
    ]


@pytest.mark.parametrize(
    "script",
    [
        "local row = { now = 1 }\nreturn row.now",
        "return { now = { SHARD, { 1 } }, { now = 2 } }",
        "return 'now -- not a comment'",
        'return "now"',
        "return 1 -- now",
        "return string.format('%d', 1)",
    ],
)
def test_fields_strings_and_comments_are_no_uses(script: str) -> None:
    assert not any("now()" in line for line in linked(script))


def test_a_name_behind_a_concatenation_is_a_use() -> None:
    assert "local SHARD = KEYS[1]" in linked("return 'a'..SHARD")


def test_parameters_loops_and_local_functions_are_known() -> None:
    script = """\
local function pair(left, right) return { left, right } end
local first, second = unpack(ARGV)
for i = 1, 2 do first = first + i end
for _, one in ipairs(ARGV) do second = pair(one, first) end
return string.gsub('a', 'a', function(found) return found .. second end)
"""
    assert linked(script) == script.splitlines()


def test_a_constant_is_declared_with_its_value() -> None:
    assert linked("redis.call(PUBLISH, FIELDS[1], MAX_ROWS)")[:3] == [
        "local MAX_ROWS = 1000", "local PUBLISH = 'SPUBLISH'", "local FIELDS = { 'a', 'b' }",
    ]  # fmt: skip


def test_spaces_are_left_out_where_no_word_needs_them_and_never_in_a_string() -> None:
    code = """local a, b = { 1 - -2 }, 3 ~= 4 and ' = , ( \\' ) ' .. "a + b" or f(x) >= y\nreturn 1 .. 2\n"""
    assert strip_spaces(code) == (
        """local a,b={1 - -2},3~=4 and ' = , ( \\' ) ' .. "a + b" or f(x)>=y\nreturn 1 .. 2\n"""
    )


def test_an_unknown_name_is_reported_with_the_file() -> None:
    with pytest.raises(LuaLinkError, match=r"^room/test\.lua: nothing declares nowhere$"):
        linked("return nowhere(1)")
    with pytest.raises(LuaLinkError, match=r"^lib/more\.lua: nothing declares nowhere$"):
        library(more="local function more() return nowhere(1) end\n")


def test_units_that_use_each_other_are_reported_with_their_files() -> None:
    with pytest.raises(LuaLinkError, match=r"ping \(lib/a\.lua\) -> pong \(lib/b\.lua\) -> ping"):
        library(a="local function ping() return pong() end\n", b="local function pong() return ping() end\n")


def test_a_name_that_is_declared_twice_is_reported_with_both_files() -> None:
    with pytest.raises(LuaLinkError, match=r"^lib/more\.lua: now is declared in lib/clock\.lua too$"):
        library(more="local function now() return 1 end\n")


@pytest.mark.parametrize("script", ["local now = 1\nreturn now", "return (function(now) return now end)(1)"])
def test_a_local_that_hides_a_unit_is_reported(script: str) -> None:
    with pytest.raises(LuaLinkError, match=r"^room/test\.lua: now hides that of lib/clock\.lua$"):
        linked(script)


@pytest.mark.parametrize("text", ["redis.call('PING')\n", "local a = 1\nreturn a\n", "function f() end\n"])
def test_a_library_file_that_does_more_than_declare_is_reported(text: str) -> None:
    with pytest.raises(LuaLinkError, match=r"^lib/more\.lua: a library only declares locals"):
        library(more=text)
