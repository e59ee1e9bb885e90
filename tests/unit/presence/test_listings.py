"""Lists of rooms for those who ask: what those who wait receive when a list fails."""

from typing import Any, cast

import pytest

from reactor.presence.listings import Listings


class BrokenStore:
    """Fails by an error that it does not declare."""

    async def members(self, room_id: str) -> Any:
        raise ValueError(room_id)


async def test_those_who_wait_for_a_list_receive_its_error_whatever_it_is() -> None:
    listings = Listings(cast("Any", BrokenStore()))
    with pytest.raises(ValueError, match="lobby"):
        await listings.members("lobby")
