"""The commands: each parses its arguments, calls the code that does the work, and prints the result.

Most modules are imported where they are used, so that `--help` and `--version` answer quickly.
"""

import time
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Group, Parameter

from reactor import __version__
from reactor.cli.ban_commands import ban, bans, revoke, unban
from reactor.cli.doctor import doctor
from reactor.cli.flags import ABOUT_SETTINGS, redis_flags, settings_with_redis, with_settings
from reactor.cli.size import size
from reactor.errors import ReactorError, Refused, SettingError
from reactor.settings import kinds
from reactor.settings.load import advice, load
from reactor.settings.security import AUTH_SECRET

if TYPE_CHECKING:
    from reactor.presence.api import Departure, Presence

app = App(
    name="reactor",
    version=__version__,
    help="Room presence over Redis and WebSockets: who is in which room, now.",
    help_epilogue="Start with `reactor serve`; `reactor serve --help` lists the settings.",
    default_parameter=Parameter(negative=()),
    group_arguments=Group.create_ordered("Arguments"),
    group_parameters=Group.create_ordered("Options"),
)

Switch = Annotated[bool, Parameter(show_default=False)]
Json = Annotated[bool, Parameter(show_default=False, help="Print JSON lines, as into a pipe.")]


@app.command(sort_key=1, help_epilogue=ABOUT_SETTINGS)
@with_settings()
async def serve(**flags: str | None) -> None:
    """Serve rooms over WebSockets, with a live page to try it.

    Without --redis-url it starts an embedded Redis-compatible server, whose data is deleted at exit.
    Ctrl-C or SIGTERM stops it gracefully.
    """
    import structlog

    from reactor.admin import serving_admin
    from reactor.cli.banner import announce
    from reactor.gateway.fds import raise_fd_limit
    from reactor.log import set_up_logs
    from reactor.server import process
    from reactor.server.workers import run_workers

    load_again = partial(load, flags)
    settings = load_again()
    set_up_logs(settings)
    raise_fd_limit()
    for line in advice(settings):
        structlog.get_logger().warning("setting", advice=line)
    if settings.workers > 1:
        await run_workers(
            settings,
            on_ready=lambda port: announce(settings, port),
            admin=serving_admin,
            load=load_again,
        )
    else:
        await process.run_node(
            settings,
            on_ready=lambda node: announce(settings, node.gateway.port),
            admin=serving_admin,
            load=load_again,
        )


@app.command(sort_key=2, help_epilogue="")
@redis_flags
async def rooms(
    *,
    prefix: Annotated[str, Parameter(metavar="TEXT", show_default=False)] = "",
    sort: Literal["members", "name", "none"] = "members",
    limit: Annotated[int | None, Parameter(metavar="N")] = None,
    json: Json = False,
    **flags: str | None,
) -> None:
    """List the rooms that have members.

    Parameters
    ----------
    prefix
        Only rooms whose id begins with this.
    sort
        By the number of members, the largest first, by name, or none: printed as they are read, so that any
        number of rooms is listed in little memory.
    limit
        The most rooms to list.
    """
    from reactor.cli import output
    from reactor.presence.api import Presence

    if limit is not None and limit < 1:
        raise SettingError("--limit takes a whole number from 1 on.")
    async with Presence.open(settings_with_redis(flags)) as presence:
        if sort == "none":
            await _print_rooms(presence, prefix, limit, json=output.use_json(json))
            return
        found = [room for room in await presence.rooms() if room.room_id.startswith(prefix)]
    if sort == "name":
        found.sort(key=lambda room: room.room_id)
    shown = found[:limit]
    if output.use_json(json):
        for room in shown:
            output.print_json(room)
        return
    if shown:
        rows = [(room.room_id, room.count) for room in shown]
        output.print_table(["ROOM", "MEMBERS"], rows, numbers=["MEMBERS"])
    first = f"the first {len(shown)} of " if len(shown) < len(found) else ""
    output.print_line(f"{first}{len(found)} rooms, {sum(room.count for room in found)} members")


async def _print_rooms(presence: "Presence", prefix: str, limit: int | None, *, json: bool) -> None:
    from reactor.cli import output
    from reactor.log import printable

    printed = 0
    async for room in presence.scan_rooms():
        if printed == limit:
            return
        if not room.room_id.startswith(prefix):
            continue
        printed += 1
        if json:
            output.print_json(room)
        else:
            output.print_line(f"{printable(room.room_id)}  {room.count}")


@app.command(sort_key=3, help_epilogue="")
@redis_flags
async def members(room: str, /, *, json: Json = False, **flags: str | None) -> None:
    """List the members of a room, in the order in which they joined.

    Parameters
    ----------
    room
        The room's id.
    """
    from reactor.cli import output
    from reactor.log import printable
    from reactor.presence.api import Presence

    async with Presence.open(settings_with_redis(flags)) as presence:
        found = await presence.members(room)
    if not found:
        output.note(f"{printable(room)} has no members; `reactor rooms` lists the rooms that have.")
    if output.use_json(json):
        for member in found:
            output.print_json(member)
        return
    if found:
        output.print_table(
            ["USER", "NAME", "JOINED", "LAST ACTIVE", "AWAY", "SOCKETS", "DATA"],
            [
                (
                    member.user_id,
                    member.username,
                    output.local_time(member.joined_at),
                    output.local_time(member.last_active_at),
                    "away" if member.away else "",
                    member.connections,
                    output.json_text(member.data),
                )
                for member in found
            ],
            numbers=["SOCKETS"],
        )
    output.print_line(f"{len(found)} members")


@app.command(sort_key=4, help_epilogue="")
@redis_flags
async def kick(
    room: str,
    user: str,
    /,
    *,
    message: Annotated[str | None, Parameter(metavar="TEXT")] = None,
    json: Json = False,
    **flags: str | None,
) -> None:
    """Remove a user from a room, on all connections of the user.

    Parameters
    ----------
    room
        The room's id.
    user
        The user's id.
    message
        The message that the user receives.
    """
    from reactor.cli import output
    from reactor.log import printable
    from reactor.presence.api import Presence

    async with Presence.open(settings_with_redis(flags)) as presence:
        kicked = await presence.kick(room, user, message)
    if not kicked:
        raise ReactorError(
            f"{printable(user)} is not in {printable(room)}; `reactor members` lists its members."
        )
    if output.use_json(json):
        output.print_json({"roomId": room, "userId": user, "kicked": True})
    else:
        output.print_line(f"{printable(user)} was removed from {printable(room)}.")


@app.command(sort_key=5, help_epilogue="")
@redis_flags
async def user(user: str, /, *, json: Json = False, **flags: str | None) -> None:
    """Show whether a user is online, since when or when last seen, and in which rooms.

    Parameters
    ----------
    user
        The user's id.
    """
    from reactor.cli import output
    from reactor.log import printable
    from reactor.presence.api import Presence

    async with Presence.open(settings_with_redis(flags)) as presence:
        person = await presence.user(user)
    if output.use_json(json):
        output.print_json(person)
        return
    line = f"{printable(person.user_id)} is {person.status}"
    if person.status == "offline":
        seen = "not on record" if person.last_seen is None else output.local_time(person.last_seen)
        output.print_line(f"{line}; last seen: {seen}")
        return
    since = "" if person.since is None else f" since {output.local_time(person.since)}"
    output.print_line(f"{line}{since}, on {person.connections} connections")
    for room in person.rooms:
        output.print_line(f"  {printable(room)}")


@app.command(sort_key=5, help_epilogue="")
@redis_flags
async def departures(
    *,
    room: Annotated[str | None, Parameter(metavar="ROOM")] = None,
    since: Annotated[str | None, Parameter(metavar="DURATION")] = None,
    follow: Switch = False,
    totals: Switch = False,
    json: Json = False,
    **flags: str | None,
) -> None:
    """List departures with their times and reasons, and count them by reason.

    Parameters
    ----------
    room
        Only departures from this room.
    since
        Only departures within this duration, such as 15m or 1h.
    follow
        Keep running, and print each departure as it happens.
    totals
        Print only the counts by reason; without --room and --since, of all time.
    """
    from reactor.presence.api import Presence

    start = None
    if since is not None:
        start = round((time.time() - kinds.duration(0.001).read("--since", since)) * 1000)
    async with Presence.open(settings_with_redis(flags)) as presence:
        if totals:
            await _print_totals(presence, room, start, json=json)
        else:
            await _print_departures(presence, room, start, follow=follow, json=json)


async def _print_departures(
    presence: "Presence", room: str | None, since: int | None, *, follow: bool, json: bool
) -> None:
    from collections import Counter

    from reactor.cli import output

    found = presence.departures(room, since=since, follow=follow)
    if output.use_json(json):
        async for departure in found:
            output.print_json(departure)
    elif follow:
        async for departure in found:
            output.print_line("  ".join(_departure_cells(departure)))
    else:
        listed = [departure async for departure in found]
        if listed:
            columns = ["LEFT", "ROOM", "USER", "NAME", "REASON", "JOINED"]
            output.print_table(columns, [_departure_cells(departure) for departure in listed])
        output.print_line(output.summary(Counter(departure.reason for departure in listed)))


async def _print_totals(presence: "Presence", room: str | None, since: int | None, *, json: bool) -> None:
    """Print the counts of all time, which Redis keeps, or count the departures that the arguments select."""
    from collections import Counter

    from reactor.cli import output

    if room is None and since is None:
        counts = await presence.totals()
    else:
        counts = Counter([departure.reason async for departure in presence.departures(room, since=since)])
    if output.use_json(json):
        for reason, count in sorted(counts.items()):
            output.print_json({"reason": reason, "count": count})
    else:
        output.print_line(output.summary(counts))


def _departure_cells(departure: "Departure") -> list[str]:
    from reactor.cli.output import local_time
    from reactor.log import printable

    return [
        local_time(departure.left_at),
        printable(departure.room_id),
        printable(departure.user_id),
        printable(departure.username),
        departure.reason,
        local_time(departure.joined_at),
    ]


@app.command(sort_key=6, help_epilogue="")
async def watch(
    url: str,
    room: str,
    /,
    *,
    user: Annotated[str | None, Parameter(name="--as", metavar="USER")] = None,
    token: Annotated[str | None, Parameter(env_var="REACTOR_TOKEN", metavar="TOKEN")] = None,
    json: Json = False,
) -> None:
    """Show the members of a room on a server, and each change as it happens.

    Parameters
    ----------
    url
        The server's WebSocket address, such as ws://127.0.0.1:8765/ws.
    room
        The room's id.
    user
        Join the room as this user, and receive each change at once; without it the room is listed every
        second.
    token
        For a server that requires one; `reactor token` makes it.
    """
    from reactor.cli import output
    from reactor.cli.watch_screen import LiveScreen
    from reactor.client.watch import watch as follow

    try:
        if output.use_json(json):
            await follow(
                url, room, output.print_json, user=user, token=token, on_status=output.StatusNotes().write
            )
            return
        with LiveScreen(room) as screen:
            await follow(url, room, screen.show, user=user, token=token, on_status=screen.show_status)
    except Refused as error:
        if token is None and error.code == "unauthorized":
            raise Refused(
                "the server requires a token: give it as --token or REACTOR_TOKEN; reactor token makes one",
                error.code,
            ) from None
        raise


@app.command(sort_key=7, help_epilogue="")
@with_settings(("auth_secret_file", "auth_audience", "auth_issuer", "config"), "How the server checks it")
def token(
    user: str,
    /,
    *,
    room: Annotated[list[str] | None, Parameter(metavar="ROOM")] = None,
    watch: Annotated[list[str] | None, Parameter(metavar="ROOM")] = None,
    people: Annotated[list[str] | None, Parameter(metavar="USER")] = None,
    where: Switch = False,
    no_send: Switch = False,
    name: Annotated[str | None, Parameter(metavar="TEXT")] = None,
    data: Annotated[str | None, Parameter(metavar="JSON")] = None,
    ttl: Annotated[str, Parameter(metavar="DURATION")] = "1h",
    secret: Annotated[str | None, Parameter(metavar="SECRET")] = None,
    **flags: str | None,
) -> None:
    """Make a token for a user, signed with the server's secret, and print it.

    Parameters
    ----------
    user
        The user's id.
    room
        A room that the token allows, or a pattern such as 'game-*'; can be given several times. Without it
        the server's auth_rooms apply.
    watch
        A room that the user may watch without joining it, or a pattern; several times. Without it those of
        --room.
    people
        A user whose presence the user may watch, or a pattern; several times. Without it no one.
    where
        The user also learns in which rooms these are.
    no_send
        The user may send no messages to other members.
    name
        The user's name, which the user then cannot change.
    data
        The member's data, which the user then cannot change.
    ttl
        How long the token is valid.
    secret
        The server's auth_secret; better in the environment, as REACTOR_AUTH_SECRET.
    """
    from reactor.cli.new_token import new_token, parse_data

    if secret is not None:
        AUTH_SECRET.read("--secret", secret)
    settings = load({**flags, "auth_secret": secret})
    seconds = kinds.duration(1.0).read("--ttl", ttl)
    rooms, watched, users = (None if given is None else tuple(given) for given in (room, watch, people))
    made = new_token(
        settings, user, seconds,
        rooms=rooms, watch=watched, people=users, where=where, send=not no_send,
        name=name, data=parse_data(data),
    )  # fmt: skip
    print(made)


app.command(ban, sort_key=7, help_epilogue="")
app.command(unban, sort_key=7, help_epilogue="")
app.command(bans, sort_key=7, help_epilogue="")
app.command(revoke, sort_key=7, help_epilogue="")
app.command(doctor, sort_key=8, help_epilogue=ABOUT_SETTINGS)
app.command(size, sort_key=9, help_epilogue="")


@app.command(sort_key=10, help_epilogue="")
def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print the completion script of a shell.

    For bash: `reactor completion bash > ~/.local/share/bash-completion/completions/reactor`.

    Parameters
    ----------
    shell
        bash, zsh or fish.
    """
    print(app.generate_completion(shell=shell))
