"""Close codes: which of them bid a client to come back by itself."""

import pytest

from reactor.protocol.closing import CloseCode, may_return


def test_only_a_missing_token_and_a_force_leave_keep_a_client_from_returning():
    assert {code for code in CloseCode if not may_return(code)} == {
        CloseCode.UNAUTHORISED,
        CloseCode.FORCE_LEAVE,
    }


@pytest.mark.parametrize("code", [1005, 1006, 1013, 3000, 4000, 4999])
def test_a_client_returns_after_the_close_codes_of_other_programs(code: int):
    assert may_return(code)


def test_the_close_codes_on_the_wire_stay():
    assert sorted(CloseCode) == [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 4001, 4003, 4008, 4029]
