"""Plain HTTP: the files of the page, the JavaScript client, and the probes."""

import asyncio
import gzip

import pytest

from reactor.gateway.http import Site
from reactor.gateway.server import Gateway
from tests.support.gateway import Recorder, bystander, serving
from tests.support.waiting import PATIENCE

CSP = b"content-security-policy: default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'; "


async def get(served, path, method="GET", **headers):
    """Return status, lower-case headers and body of a response."""
    async with await served.raw(handshake=False) as client:
        extra = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        client.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{extra}\r\n".encode())
        async with asyncio.timeout(PATIENCE):
            response = await client.reader.read()
    head, _, body = response.partition(b"\r\n\r\n")
    return int(response.split()[1]), head.lower() + b"\r\n", body


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a page."""
    web = tmp_path / "webpackage" / "web"
    (web / "js").mkdir(parents=True)
    (tmp_path / "webpackage" / "__init__.py").touch()
    (web / "index.html").write_text("<!doctype html><title>page</title>")
    (web / "page.js").write_text("export {};")
    (web / "page.css").write_text("body{}")
    (web / "js" / "room.js").write_text("export class Room {}")
    (web / "unknown.xyz").write_bytes(b"\x00")
    monkeypatch.syspath_prepend(tmp_path)
    return "webpackage"


async def test_the_page_is_served_with_content_type_etag_and_policy(package, monkeypatch):
    monkeypatch.setattr("reactor.gateway.manager.Site", lambda ready: Site(ready, package))
    async with serving() as served:
        for path, media, content in [
            ("/", b"text/html; charset=utf-8", b"<!doctype html><title>page</title>"),
            ("/index.html", b"text/html; charset=utf-8", b"<!doctype html><title>page</title>"),
            ("/page.js", b"text/javascript; charset=utf-8", b"export {};"),
            ("/page.js?v=1", b"text/javascript; charset=utf-8", b"export {};"),
            ("/page.css", b"text/css; charset=utf-8", b"body{}"),
            ("/js/room.js", b"text/javascript; charset=utf-8", b"export class Room {}"),
            ("/unknown.xyz", b"application/octet-stream", b"\x00"),
        ]:
            status, head, body = await get(served, path)
            assert (status, body) == (200, content)
            assert b"content-type: " + media + b"\r\n" in head
            assert f"content-length: {len(content)}\r\n".encode() in head
            assert CSP in head
            assert b"x-content-type-options: nosniff" in head
            assert b"connection: close" in head

            tag = next(line for line in head.decode().split("\r\n") if line.startswith("etag: "))[6:]
            for tags in (tag, f"W/{tag}", f'"other", {tag}', "*"):
                status, head, body = await get(served, path, If_None_Match=tags)
                assert (status, body) == (304, b"")
                assert CSP in head
            assert (await get(served, path, If_None_Match='"other"'))[0] == 200

            status, head, body = await get(served, path, "HEAD")
            assert (status, body) == (200, b"")
            assert f"content-length: {len(content)}\r\n".encode() in head


@pytest.mark.parametrize(
    "path",
    [
        "/missing",
        "/../pyproject.toml",
        "/js",
        "/js/",
        "/%2e%2e/x",
        "//etc/passwd",
        "*",
        "http://x/healthz",
        "/__init__.py",
    ],
)
async def test_a_missing_file_is_a_404(package, monkeypatch, path):
    monkeypatch.setattr("reactor.gateway.manager.Site", lambda ready: Site(ready, package))
    async with serving() as served:
        status, head, body = await get(served, path)
        assert (status, body) == (404, b"not found")
        assert b"content-type: text/plain" in head


async def test_without_a_page_the_probes_work(tmp_path, monkeypatch):
    (tmp_path / "barepackage").mkdir()
    (tmp_path / "barepackage" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("reactor.gateway.manager.Site", lambda ready: Site(ready, "barepackage"))
    async with serving() as served, bystander(served):
        assert (await get(served, "/"))[0] == 404
        assert (await get(served, "/healthz"))[0] == 200


async def test_the_probes_report_liveness_and_readiness():
    handler = Recorder()
    async with serving(handler) as served:
        status, head, body = await get(served, "/healthz")
        assert (status, body) == (200, b"ok")
        assert b"cache-control: no-store" in head
        assert (await get(served, "/readyz"))[::2] == (200, b"ready")
        handler.is_ready = (False, "Redis does not answer")
        assert (await get(served, "/readyz"))[::2] == (503, b"Redis does not answer")
        assert (await get(served, "/healthz"))[0] == 200
        assert (await get(served, "/readyz", "HEAD"))[::2] == (503, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT"])
async def test_only_get_and_head_are_allowed(method):
    async with serving() as served:
        for path in ("/", "/healthz"):
            status, head, _ = await get(served, path, method)
            assert status == 405
            assert b"allow: get, head" in head


async def test_a_client_that_half_closes_after_its_request_gets_the_response():
    async with serving() as served, await served.raw(handshake=False) as client:
        client.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        client.writer.write_eof()
        assert (await client.reader.read()).endswith(b"ok")


async def test_a_client_that_stays_after_its_response_is_aborted():
    async with serving(close_timeout=0.2) as served, await served.raw(handshake=False) as client:
        client.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        await client.reader.read()
        async with asyncio.timeout(PATIENCE):
            manager = served.gateway._manager
            assert manager is not None
            await manager.empty.wait()


async def test_http_requests_do_not_reach_the_handler():
    async with serving() as served:
        await get(served, "/healthz")
        assert served.handler.opened_ == served.handler.closed_ == []
        assert isinstance(served.gateway, Gateway)


async def test_the_javascript_client_is_served_to_any_origin_with_its_types():
    async with serving() as served:
        status, head, body = await get(served, "/client.js")
        assert status == 200
        assert b"content-type: text/javascript; charset=utf-8\r\n" in head
        assert b"access-control-allow-origin: *\r\n" in head
        assert b"x-typescript-types: ./client.d.ts\r\n" in head
        assert b"\nexport { ReactorClient };\n" in body
        assert b"import " not in body
        tag = next(line for line in head.decode().split("\r\n") if line.startswith("etag: "))[6:]
        assert (await get(served, "/client.js", If_None_Match=tag))[0] == 304
        status, head, small = await get(served, "/client.js", Accept_Encoding="deflate, gzip;q=0.5")
        assert (status, gzip.decompress(small)) == (200, body)
        assert len(small) < 16 * 1024  # not minified
        assert f"content-length: {len(small)}\r\n".encode() in head
        assert b"content-encoding: gzip\r\n" in head
        assert b"vary: accept-encoding\r\n" in head
        assert f"etag: w/{tag}\r\n".encode() in head
        for encodings in ("br", "gzip;q=0", "gzip ; q=0.0", "gzipped", "br, gzip; q=0, x"):
            assert (await get(served, "/client.js", Accept_Encoding=encodings))[2] == body
        status, head, body = await get(served, "/client.d.ts")
        assert status == 200
        assert b"content-type: application/typescript; charset=utf-8\r\n" in head
        assert b"access-control-allow-origin: *\r\n" in head
        assert b"export class ReactorClient {" in body
        status, head, body = await get(served, "/people.js")
        assert status == 200
        assert b"access-control-allow-origin: *\r\n" in head
        assert b"x-typescript-types: ./people.d.ts\r\n" in head
        assert body.startswith(b"import { Emitter, ReactorError, ")
        assert b'from "./client.js";\n' in body
        assert b"\nexport function people(" in body
        status, head, body = await get(served, "/people.d.ts")
        assert (status, b'from "./client.js"' in body) == (200, True)
