"""The commands about bans, `ban`, `unban` and `bans`, and about tokens, `revoke`."""

from typing import Annotated

from cyclopts import Parameter

from reactor.cli.flags import redis_flags, settings_with_redis
from reactor.errors import ReactorError

Json = Annotated[bool, Parameter(show_default=False, help="Print JSON lines, as into a pipe.")]
Room = Annotated[str | None, Parameter(metavar="ROOM")]


@redis_flags
async def ban(
    user: str,
    /,
    *,
    for_: Annotated[str, Parameter(name="--for", metavar="DURATION")],
    room: Room = None,
    message: Annotated[str | None, Parameter(metavar="TEXT")] = None,
    by: Annotated[str | None, Parameter(metavar="TEXT")] = None,
    json: Json = False,
    **flags: str | None,
) -> None:
    """Ban a user from a room, or from every room, until a time.

    Parameters
    ----------
    user
        The user's id.
    for_
        How long, such as 10m or 30d.
    room
        The room's id; without it the user is banned from every room.
    message
        The message that the user receives.
    by
        Who decided it; shown by `reactor bans`.
    """
    from reactor.cli import output
    from reactor.log import printable
    from reactor.presence.api import Presence

    async with Presence.open(settings_with_redis(flags)) as presence:
        made = await presence.ban(user, room, for_=for_, message=message, by=by)
    if output.use_json(json):
        output.print_json(made)
    else:
        where = printable(room) if room is not None else "every room"
        output.print_line(f"{printable(user)} is banned from {where} until {output.local_time(made.until)}.")


@redis_flags
async def unban(user: str, /, *, room: Room = None, json: Json = False, **flags: str | None) -> None:
    """Lift the ban of a user from a room, or the one from every room.

    Parameters
    ----------
    user
        The user's id.
    room
        The room of the ban; without it the ban from every room is lifted.
    """
    from reactor.cli import output
    from reactor.log import printable
    from reactor.presence.api import Presence

    async with Presence.open(settings_with_redis(flags)) as presence:
        lifted = await presence.unban(user, room)
    where = printable(room) if room is not None else "every room"
    if not lifted:
        raise ReactorError(f"{printable(user)} is not banned from {where}; `reactor bans` lists the bans.")
    if output.use_json(json):
        output.print_json({"userId": user, "roomId": room, "unbanned": True})
    else:
        output.print_line(f"{printable(user)} is no longer banned from {where}.")


@redis_flags
async def bans(*, json: Json = False, **flags: str | None) -> None:
    """List the bans that have not ended."""
    from reactor.cli import output
    from reactor.presence.api import Presence

    async with Presence.open(settings_with_redis(flags)) as presence:
        found = [one async for one in presence.bans()]
    if output.use_json(json):
        for one in found:
            output.print_json(one)
        return
    if found:
        rows = [
            (one.user_id, one.room_id or "", output.local_time(one.until), one.by, one.message)
            for one in found
        ]
        output.print_table(["USER", "ROOM", "UNTIL", "BY", "MESSAGE"], rows)
    output.print_line(f"{len(found)} bans")


@redis_flags
async def revoke(user: str, /, *, json: Json = False, **flags: str | None) -> None:
    """Revoke the tokens that a user has now, and close the sockets that they opened.

    Parameters
    ----------
    user
        The user's id.
    """
    from reactor.cli import output
    from reactor.log import printable
    from reactor.presence.api import Presence

    async with Presence.open(settings_with_redis(flags)) as presence:
        time = await presence.revoke(user)
    if output.use_json(json):
        output.print_json({"userId": user, "issuedBefore": time})
    else:
        until = output.local_time(time)
        output.print_line(f"The tokens of {printable(user)} that were issued until {until} are revoked.")
