"""The commands: parse, call, print. What they do is done elsewhere.

Modules are imported where they are used, so that `--help` and `--version` answer at once.
"""

import time
from typing import Annotated

from cyclopts import App, Group, Parameter

from reactor import __version__
from reactor.cli.completion import add_completion
from reactor.cli.doctor import doctor
from reactor.cli.flags import ABOUT_SETTINGS, with_settings
from reactor.cli.reach import reach
from reactor.errors import ReactorError
from reactor.settings import kinds
from reactor.settings.load import advice, load
from reactor.settings.security import AUTH_SECRET

app = App(
    name="reactor",
    version=__version__,
    help="Who is in which room, now: presence over Redis and WebSockets.",
    help_epilogue="`reactor serve` is all that it takes to begin; `reactor serve --help` lists the settings.",
    default_parameter=Parameter(negative=()),
    group_arguments=Group.create_ordered("Arguments"),
    group_parameters=Group.create_ordered("Options"),
)

Switch = Annotated[bool, Parameter(show_default=False)]
Json = Annotated[bool, Parameter(show_default=False, help="Write JSON lines, as into a pipe.")]
_ask = with_settings(
    ("redis_url", "namespace", "config", "log_level"), "Which Redis", "that of a reactor serve here"
)


@app.command(sort_key=1, help_epilogue=ABOUT_SETTINGS)
@with_settings()
async def serve(**flags: str | None) -> None:
    """Serve rooms over WebSockets, with a live page to try it.

    Without --redis-url it starts a Redis-compatible server of its own, whose data is gone at the end.
    Ctrl-C or SIGTERM ends it in good order.
    """
    import structlog

    from reactor.admin import serving_admin
    from reactor.cli.banner import greet
    from reactor.gateway.fds import raise_fd_limit
    from reactor.log import set_up_logs
    from reactor.server import process
    from reactor.server.workers import run_workers

    settings = load(flags)
    set_up_logs(settings)
    raise_fd_limit()
    for line in advice(settings):
        structlog.get_logger().warning("setting", advice=line)
    if settings.workers > 1:
        await run_workers(settings, on_ready=lambda port: greet(settings, port), admin=serving_admin)
    else:
        await process.run_node(
            settings, on_ready=lambda node: greet(settings, node.gateway.port), admin=serving_admin
        )


@app.command(sort_key=2, help_epilogue="")
@_ask
async def rooms(*, json: Json = False, **flags: str | None) -> None:
    """List the rooms that have somebody in them."""
    from reactor.cli import show
    from reactor.presence.api import Presence

    async with Presence.open(reach(flags)) as presence:
        found = await presence.rooms()
    if show.as_json(json):
        for room in found:
            show.json_line(room)
        return
    if found:
        show.table(["ROOM", "MEMBERS"], [(room.room_id, room.count) for room in found], numbers=["MEMBERS"])
    show.line(f"{len(found)} rooms, {sum(room.count for room in found)} members")


@app.command(sort_key=3, help_epilogue="")
@_ask
async def members(room: str, /, *, json: Json = False, **flags: str | None) -> None:
    """List who is in a room, in the order in which they came.

    Parameters
    ----------
    room
        The room's id.
    """
    from reactor.cli import show
    from reactor.presence.api import Presence

    async with Presence.open(reach(flags)) as presence:
        found = await presence.members(room)
    if show.as_json(json):
        for member in found:
            show.json_line(member)
        return
    if found:
        show.table(
            ["USER", "NAME", "JOINED", "LAST ACTIVE", "AWAY", "SOCKETS", "DATA"],
            [
                (
                    member.user_id,
                    member.username,
                    show.moment(member.joined_at),
                    show.moment(member.last_active_at),
                    "away" if member.away else "",
                    member.connections,
                    show.compact(member.data),
                )
                for member in found
            ],
            numbers=["SOCKETS"],
        )
    show.line(f"{len(found)} members")


@app.command(sort_key=4, help_epilogue="")
@_ask
async def kick(
    room: str,
    user: str,
    /,
    *,
    message: Annotated[str | None, Parameter(metavar="TEXT")] = None,
    json: Json = False,
    **flags: str | None,
) -> None:
    """Put a user out of a room, on all of the user's connections.

    Parameters
    ----------
    room
        The room's id.
    user
        The user's id.
    message
        What the user is told.
    """
    from reactor.cli import show
    from reactor.log import printable
    from reactor.presence.api import Presence

    async with Presence.open(reach(flags)) as presence:
        kicked = await presence.kick(room, user, message)
    if not kicked:
        raise ReactorError(f"{printable(user)} is not in {printable(room)}; `reactor members` shows who is.")
    if show.as_json(json):
        show.json_line({"roomId": room, "userId": user, "kicked": True})
    else:
        show.line(f"{printable(user)} was put out of {printable(room)}.")


@app.command(sort_key=5, help_epilogue="")
@_ask
async def departures(
    *,
    room: Annotated[str | None, Parameter(metavar="ROOM")] = None,
    since: Annotated[str | None, Parameter(metavar="DURATION")] = None,
    follow: Switch = False,
    totals: Switch = False,
    json: Json = False,
    **flags: str | None,
) -> None:
    """List who left, when and why, and how many for each reason.

    Parameters
    ----------
    room
        Only this room.
    since
        Only the last while, such as 15m or 1h.
    follow
        Go on, and show each departure as it comes.
    totals
        Only how many for each reason; without --room and --since, of all time.
    """
    from reactor.cli.departed import list_departures, list_totals
    from reactor.presence.api import Presence

    start = None
    if since is not None:
        start = round((time.time() - kinds.duration(0.001).read("--since", since)) * 1000)
    async with Presence.open(reach(flags)) as presence:
        if totals:
            await list_totals(presence, room, start, json=json)
        else:
            await list_departures(presence, room, start, follow=follow, json=json)


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
    """Show who is in a room of a server and what happens there, as it happens.

    Parameters
    ----------
    url
        The server's socket, such as ws://127.0.0.1:8765/ws.
    room
        The room's id.
    user
        Be in the room as this user, and hear each change at once; without it the room is listed every second.
    token
        For a server that asks for one; `reactor token` makes it.
    """
    from reactor.cli import show
    from reactor.cli.watched import Screen
    from reactor.client.watch import watch as follow

    if show.as_json(json):
        await follow(url, room, show.json_line, user=user, token=token)
        return
    with Screen(room) as screen:
        await follow(url, room, screen.told, user=user, token=token)


@app.command(sort_key=7, help_epilogue="")
@with_settings(("auth_audience", "auth_issuer", "config"), "How the server checks it")
def token(
    user: str,
    /,
    *,
    room: Annotated[list[str] | None, Parameter(metavar="ROOM")] = None,
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
        A room that it allows, or a pattern such as 'game-*'; may be given several times. Without it the
        server's auth_rooms hold.
    name
        The user's name, which the user then cannot change.
    data
        The member's data, which the user then cannot change.
    ttl
        How long it is good.
    secret
        The server's auth_secret; better in the environment, as REACTOR_AUTH_SECRET.
    """
    from reactor.cli.tokens import as_data, mint

    if secret is not None:
        AUTH_SECRET.read("--secret", secret)
    settings = load({**flags, "auth_secret": secret})
    seconds = kinds.duration(1.0).read("--ttl", ttl)
    rooms = None if room is None else tuple(room)
    print(mint(settings, user, rooms, name, as_data(data), seconds))


app.command(doctor, sort_key=8, help_epilogue=ABOUT_SETTINGS)
add_completion(app)
