"""JSON Merge Patch (RFC 7396) in a script: against a plain implementation, and to the byte."""

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reactor.presence.keys import Entry
from reactor.presence.replies import Updated
from reactor.protocol.data import built
from tests.support.servers import Server
from tests.support.stores import Direct, done
from tests.unit.protocol.strategies import texts

ANN = Entry("lobby", "ann")

names = (
    st.sampled_from(
        ["a", "b", "", "id", "null", "{", "}", '"', "\\", '\\"', "\x00", "é", "\u2028", ":", ",", " "]
    )
    | texts
)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False) | names
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(names, values, max_size=5)

RFC_7396 = [
    # Appendix A: the original, the patch, the result.
    ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
    ('{"a":"b"}', '{"a":null}', "{}"),
    ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
    ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
    ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
    ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
    ('["c","d"]', '{"a":"b"}', '{"a":"b"}'),
    ('"foo"', '{"bar":1}', '{"bar":1}'),
    ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
    ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'),
    ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
    # What cjson would change.
    (
        '{"e":[],"o":{},"n":18446744073709551615,"f":0.1}',
        '{"x":[]}',
        '{"e":[],"o":{},"n":18446744073709551615,"f":0.1,"x":[]}',
    ),
    ('{"z":1,"a":2,"m":3}', '{"a":null,"z":[{"q":null}]}', '{"z":[{"q":null}],"m":3}'),
    # Edited externally.
    (' { "a" : 1 , "b" : { "c" : [ 1, 2 ] } } ', '{"b":{"d":"}"}}', '{"a":1,"b":{"c":[ 1, 2 ],"d":"}"}}'),
]


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def stored(direct: Direct, data: bytes, patch: bytes) -> bytes:
    """What becomes of a member's data by a patch."""
    direct.client.flushall()
    done(direct.store.join(ANN, "n1.1", ttl=60_000, data=data))
    updated = done(direct.store.update(ANN, patch=patch, max_data=2**20))
    assert isinstance(updated, Updated)
    found: Any = direct.client.hget("{t:7wc}:room:lobby:user:ann", "data")
    return bytes(found)


@pytest.mark.parametrize(("data", "patch", "result"), RFC_7396)
def test_the_examples_of_the_rfc_and_what_keeps_its_bytes(
    redis_server: Server, data: str, patch: str, result: str
) -> None:
    assert stored(Direct(redis_server), data.encode(), patch.encode()) == result.encode()


def test_any_patch_of_any_data(bundled_server: Server) -> None:
    direct = Direct(bundled_server)

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=values, patch=objects)
    def check(data: Any, patch: Any) -> None:
        encode = msgspec.json.encode
        assert stored(direct, encode(data), encode(patch)) == encode(merged(data, patch))

    check()


def test_patches_of_several_devices_are_all_kept(redis_server: Server) -> None:
    direct = Direct(redis_server)
    done(direct.store.join(ANN, "n1.1", ttl=60_000))
    for number in range(50):
        done(direct.store.update(ANN, patch=b'{"f%d":{"n":%d}}' % (number % 7, number), max_data=4096))
    (member,) = done(direct.store.members("lobby")).members
    assert built(member.data) == {f"f{number % 7}": {"n": number} for number in range(43, 50)}


def cpu_of_patches(direct: Direct, value: Any, *, times: int = 20) -> float:
    """CPU seconds of Redis for patches of data with what it is already."""
    data = msgspec.json.encode(value)
    done(direct.store.join(ANN, "n1.1", ttl=60_000, data=data))
    done(direct.store.update(ANN, patch=data, max_data=2**20))  # loads the script
    before: Any = direct.client.info("cpu")
    for _ in range(times):
        done(direct.store.update(ANN, patch=data, max_data=2**20))
    after: Any = direct.client.info("cpu")
    direct.client.flushall()
    return float(after["used_cpu_user"] - before["used_cpu_user"])


def test_a_patch_of_deeply_nested_data_costs_about_as_much_as_one_of_many_fields(
    bundled_server: Server,
) -> None:
    direct = Direct(bundled_server)
    flat = {f"field {number}": number for number in range(200)}
    deep: Any = {f"{number}": [[], []] for number in range(300)}
    for _ in range(29):
        deep = {"a": deep}
    assert cpu_of_patches(direct, deep) < 15 * max(cpu_of_patches(direct, flat), 0.01)
