"""Close codes: which of them bid a client to come back by itself."""

import pytest

from reactor.protocol.closing import CloseCode, may_return

RETURN = {
    CloseCode.NORMAL: False,
    CloseCode.GOING_AWAY: True,
    CloseCode.PROTOCOL_ERROR: False,
    CloseCode.UNSUPPORTED: False,
    CloseCode.NOT_UTF8: False,
    CloseCode.POLICY: False,
    CloseCode.TOO_BIG: False,
    CloseCode.INTERNAL: True,
    CloseCode.RESTART: True,
    CloseCode.UNAUTHORISED: False,
    CloseCode.FORCE_LEAVE: False,
    CloseCode.TOO_SLOW: True,
    CloseCode.TOO_MANY: True,
}


@pytest.mark.parametrize("code", CloseCode, ids=lambda code: code.name)
def test_each_close_code_says_whether_to_reconnect(code: CloseCode):
    assert may_return(code) is RETURN[code]


@pytest.mark.parametrize(
    ("code", "returns"), [(1005, True), (1006, True), (1013, True), (3000, False), (4999, False)]
)
def test_close_codes_of_other_programs(code: int, returns: bool):
    assert may_return(code) is returns


def test_the_close_codes_on_the_wire_stay():
    assert sorted(CloseCode) == [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 4001, 4003, 4008, 4029]
