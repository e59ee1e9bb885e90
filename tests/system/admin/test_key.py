"""Nobody without the key learns or does anything, and guessing is slow."""

import sys
import time

import anyio
import httpx
import pytest

from reactor.admin import keys
from reactor.admin.api import Api
from reactor.admin.keys import Keys
from reactor.admin.routes import endpoints
from reactor.cli.banner import greet
from reactor.errors import AddressInUse, SettingError
from reactor.settings import Settings
from reactor.settings.load import advice, load
from tests.support.nodes import served
from tests.support.servers import Server, free_port
from tests.system.admin.desk import BEARER, KEY, admin_client, desk, ok, refused


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "ANSWERED_AFTER", 0.01)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"X-API-Key": KEY.upper()},
        {"X-API-Key": "grün".encode("latin-1").decode("latin-1")},
    ],
)
async def test_every_path_of_the_api_wants_the_key(bundled_server: Server, headers: dict[str, str]) -> None:
    async with desk(bundled_server) as (node, _), admin_client(node, headers=None) as stranger:
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        for method, path in (
            ("GET", "/v1/rooms"),
            ("GET", "/v1/nothing"),
            ("DELETE", "/v1/rooms/lobby/members/ann"),
            ("PUT", "/v1/rooms/lobby/settings"),
        ):
            assert await refused(stranger, path, method, headers=httpx.Headers(raw)) == (401, "unauthorized")


async def test_no_path_goes_round_the_guard(bundled_server: Server) -> None:
    async with desk(bundled_server) as (node, _), admin_client(node, headers=None) as stranger:
        table = endpoints(Api(node))
        for one in table:
            path = one.path.replace("{room}", "lobby").replace("{user}", "ann")
            assert (await stranger.request(one.method, path)).status_code == 401, one.path
        for path in (
            "//v1/rooms",
            "/%761/rooms",
            "/v1%2Frooms",
            "/V1/rooms",
            "/./v1/rooms",
            "/metrics/../v1/rooms",
        ):
            answer = await stranger.send(
                stranger.build_request("GET", httpx.URL(stranger.base_url, raw_path=path.encode()))
            )
            assert answer.status_code in {401, 404}, path
            assert 'rooms":' not in answer.text


async def test_both_headers_carry_the_key(bundled_server: Server) -> None:
    async with desk(bundled_server) as (node, admin):
        await ok(admin, "/v1/rooms")
        await ok(admin, "/v1/rooms", headers={"Authorization": f"bearer  {KEY}"})
        async with admin_client(node, headers={"X-API-Key": KEY}) as other:
            await ok(other, "/v1/rooms")


async def test_what_says_nothing_of_anybody_is_open(bundled_server: Server) -> None:
    async with desk(bundled_server) as (node, _), admin_client(node, headers=None) as stranger:
        for path in ("/", "/metrics", "/healthz", "/readyz", "/openapi.json"):
            answer = await stranger.get(path)
            assert answer.status_code == 200, path
            assert "access-control-allow-origin" not in answer.headers
        policy = (await stranger.get("/")).headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        again = await stranger.get("/", headers={"If-None-Match": (await stranger.get("/")).headers["etag"]})
        assert again.status_code == 304


async def test_guessing_is_slowed_and_the_right_key_still_works(bundled_server: Server) -> None:
    async with (
        desk(bundled_server) as (node, admin),
        admin_client(node, headers={"X-API-Key": "x" * 40}) as guesser,
    ):
        answers = [await guesser.get("/v1/rooms") for _ in range(keys.WRONG_A_MINUTE + 2)]
        assert [answer.status_code for answer in answers] == [401] * keys.WRONG_A_MINUTE + [429] * 2
        assert 0 < int(answers[-1].headers["retry-after"]) <= 60
        await ok(admin, "/v1/rooms")


async def test_wrong_keys_wait_and_only_so_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "ANSWERED_AFTER", 0.2)
    guarded = Keys(KEY.encode())
    waits: list[int] = []
    begun = time.monotonic()

    async def guess(number: int) -> None:
        waits.append(await guarded.refuse(f"10.0.0.{number}"))

    async with anyio.create_task_group() as tasks:
        for number in range(keys.WAITING + 3):
            tasks.start_soon(guess, number)
    assert time.monotonic() - begun >= 0.2
    assert sorted(map(bool, waits)) == [False] * keys.WAITING + [True] * 3


async def test_addresses_are_not_kept_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "ANSWERED_AFTER", 0.0)
    monkeypatch.setattr(keys, "ADDRESSES", 5)
    guarded = Keys(KEY.encode())
    for number in range(20):
        await guarded.refuse(f"10.0.0.{number}")
    assert len(guarded._wrong) == 5


def test_the_settings_go_together() -> None:
    with pytest.raises(SettingError, match="admin_key is not") as said:
        Settings(admin_port=9000)
    assert "REACTOR_ADMIN_KEY" in str(said.value)
    short = "not-32-bytes"
    with pytest.raises(SettingError, match="REACTOR_ADMIN_KEY") as said:
        load({}, {"REACTOR_ADMIN_KEY": short, "REACTOR_ADMIN_PORT": "9000"})
    assert short not in str(said.value)
    with pytest.raises(SettingError):
        Settings(admin_key=b"has a space in it, and is long enough")
    with pytest.raises(SettingError, match="workers"):
        Settings(admin_port=65535, admin_key=KEY.encode(), workers=2)
    settings = Settings(admin_port="9000", admin_key=KEY)  # type: ignore[arg-type]
    assert settings.admin_port == 9000
    assert KEY not in repr(settings)
    assert settings.admin_host == "127.0.0.1"


def test_a_key_that_would_travel_in_the_clear_is_advised_against() -> None:
    (line,) = advice(Settings(admin_port=9000, admin_key=KEY.encode(), admin_host="0.0.0.0"), {})
    assert "unencrypted" in line
    assert advice(Settings(admin_port=9000, admin_key=KEY.encode()), {}) == []


def test_a_person_is_told_where_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    greet(Settings(admin_port=9000, admin_key=KEY.encode()), 8765)
    said = capsys.readouterr().out
    assert "http://127.0.0.1:9000/" in said
    assert KEY not in said


async def test_a_port_that_is_taken_is_one_clear_error(bundled_server: Server) -> None:
    port = free_port()
    async with desk(bundled_server, admin_port=port):
        with pytest.raises(AddressInUse, match="--admin-port"):
            async with served(bundled_server, admin_port=port, admin_key=KEY):
                pass


async def test_nothing_listens_unless_it_is_set(bundled_server: Server) -> None:
    async with desk(bundled_server) as (node, _):
        port = node.settings.admin_port
    async with served(bundled_server, admin_key=KEY), httpx.AsyncClient(headers=BEARER) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://127.0.0.1:{port}/")
