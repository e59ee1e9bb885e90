"""The admin API requires the key, and guessing it is slowed down."""

import sys
import time

import anyio
import httpx
import pytest

from reactor.admin.handlers import AdminHandlers
from reactor.admin.key_verifier import MAX_DELAYED, MAX_WRONG_PER_MINUTE, KeyVerifier
from reactor.admin.routes import operations
from reactor.cli.banner import announce
from reactor.errors import AddressInUse, SettingError
from reactor.settings import Settings
from reactor.settings.load import advice, load
from tests.support.nodes import served
from tests.support.servers import Server, free_port
from tests.system.admin.serving import BEARER, KEY, admin_client, admin_served, ok, rejected


@pytest.fixture(autouse=True)
def short_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactor.admin.key_verifier.WRONG_KEY_DELAY", 0.01)


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
async def test_every_path_of_the_api_requires_the_key(
    bundled_server: Server, headers: dict[str, str]
) -> None:
    async with admin_served(bundled_server) as (node, _), admin_client(node, headers=None) as anonymous:
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        for method, path in (
            ("GET", "/v1/rooms"),
            ("GET", "/v1/nothing"),
            ("DELETE", "/v1/rooms/lobby/members/ann"),
            ("PUT", "/v1/rooms/lobby/settings"),
        ):
            assert await rejected(anonymous, path, method, headers=httpx.Headers(raw)) == (
                401,
                "unauthorized",
            )


async def test_no_spelling_of_a_path_bypasses_the_key(bundled_server: Server) -> None:
    async with admin_served(bundled_server) as (node, _), admin_client(node, headers=None) as anonymous:
        table = operations(AdminHandlers(node))
        for one in table:
            path = one.path.replace("{room}", "lobby").replace("{user}", "ann")
            assert (await anonymous.request(one.method, path)).status_code == 401, one.path
        for path in (
            "//v1/rooms",
            "/%761/rooms",
            "/v1%2Frooms",
            "/V1/rooms",
            "/./v1/rooms",
            "/metrics/../v1/rooms",
        ):
            answer = await anonymous.send(
                anonymous.build_request("GET", httpx.URL(anonymous.base_url, raw_path=path.encode()))
            )
            assert answer.status_code in {401, 404}, path
            assert 'rooms":' not in answer.text


async def test_the_key_is_accepted_in_both_headers(bundled_server: Server) -> None:
    async with admin_served(bundled_server) as (node, admin):
        await ok(admin, "/v1/rooms")
        await ok(admin, "/v1/rooms", headers={"Authorization": f"bearer  {KEY}"})
        async with admin_client(node, headers={"X-API-Key": KEY}) as other:
            await ok(other, "/v1/rooms")


async def test_page_metrics_probes_and_description_need_no_key(bundled_server: Server) -> None:
    async with admin_served(bundled_server) as (node, _), admin_client(node, headers=None) as anonymous:
        for path in ("/", "/metrics", "/healthz", "/readyz", "/openapi.json"):
            answer = await anonymous.get(path)
            assert answer.status_code == 200, path
            assert "access-control-allow-origin" not in answer.headers
        policy = (await anonymous.get("/")).headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        again = await anonymous.get(
            "/", headers={"If-None-Match": (await anonymous.get("/")).headers["etag"]}
        )
        assert again.status_code == 304


async def test_guessing_is_rate_limited_and_the_right_key_still_works(bundled_server: Server) -> None:
    async with (
        admin_served(bundled_server) as (node, admin),
        admin_client(node, headers={"X-API-Key": "x" * 40}) as guesser,
    ):
        answers = [await guesser.get("/v1/rooms") for _ in range(MAX_WRONG_PER_MINUTE + 2)]
        assert [answer.status_code for answer in answers] == [401] * MAX_WRONG_PER_MINUTE + [429] * 2
        assert 0 < int(answers[-1].headers["retry-after"]) <= 60
        await ok(admin, "/v1/rooms")


async def test_wrong_keys_are_answered_late_and_a_limited_number_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("reactor.admin.key_verifier.WRONG_KEY_DELAY", 0.2)
    verifier = KeyVerifier(KEY.encode())
    waits: list[int] = []
    start = time.monotonic()

    async def guess(number: int) -> None:
        waits.append(await verifier.record_wrong_key(f"10.0.0.{number}"))

    async with anyio.create_task_group() as tasks:
        for number in range(MAX_DELAYED + 3):
            tasks.start_soon(guess, number)
    assert time.monotonic() - start >= 0.2
    assert sorted(map(bool, waits)) == [False] * MAX_DELAYED + [True] * 3


async def test_the_number_of_counted_addresses_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactor.admin.key_verifier.WRONG_KEY_DELAY", 0.0)
    monkeypatch.setattr("reactor.admin.key_verifier.MAX_ADDRESSES", 5)
    verifier = KeyVerifier(KEY.encode())
    for number in range(20):
        await verifier.record_wrong_key(f"10.0.0.{number}")
    assert len(verifier._wrong) == 5


def test_the_admin_settings_are_checked_together() -> None:
    with pytest.raises(SettingError, match="admin_key is not") as error:
        Settings(admin_port=9000)
    assert "REACTOR_ADMIN_KEY" in str(error.value)
    short = "not-32-bytes"
    with pytest.raises(SettingError, match="REACTOR_ADMIN_KEY") as error:
        load({}, {"REACTOR_ADMIN_KEY": short, "REACTOR_ADMIN_PORT": "9000"})
    assert short not in str(error.value)
    with pytest.raises(SettingError):
        Settings(admin_key=b"has a space in it, and is long enough")
    with pytest.raises(SettingError, match="workers"):
        Settings(admin_port=65535, admin_key=KEY.encode(), workers=2)
    settings = Settings(admin_port="9000", admin_key=KEY)  # type: ignore[arg-type]
    assert settings.admin_port == 9000
    assert KEY not in repr(settings)
    assert settings.admin_host == "127.0.0.1"


def test_a_key_that_is_sent_unencrypted_is_advised_against() -> None:
    (line,) = advice(Settings(admin_port=9000, admin_key=KEY.encode(), admin_host="0.0.0.0"), {})
    assert "unencrypted" in line
    assert advice(Settings(admin_port=9000, admin_key=KEY.encode()), {}) == []


def test_the_banner_shows_the_admin_address(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    announce(Settings(admin_port=9000, admin_key=KEY.encode()), 8765)
    printed = capsys.readouterr().out
    assert "http://127.0.0.1:9000/" in printed
    assert KEY not in printed


async def test_an_admin_port_in_use_is_one_clear_error(bundled_server: Server) -> None:
    port = free_port()
    async with admin_served(bundled_server, admin_port=port):
        with pytest.raises(AddressInUse, match="--admin-port"):
            async with served(bundled_server, admin_port=port, admin_key=KEY):
                pass


async def test_without_the_setting_nothing_listens(bundled_server: Server) -> None:
    async with admin_served(bundled_server) as (node, _):
        port = node.settings.admin_port
    async with served(bundled_server, admin_key=KEY), httpx.AsyncClient(headers=BEARER) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://127.0.0.1:{port}/")
