"""The doctor repeats what running nodes have noticed about proxies."""

from websockets.asyncio.client import connect

from reactor.doctor.report import examined
from reactor.gateway.proxy_notices import NOTICE_AFTER
from reactor.settings import Settings
from tests.support.nodes import served
from tests.support.servers import Server
from tests.support.waiting import until


async def test_a_proxy_that_is_not_trusted_is_a_problem_with_its_fix(bundled_server: Server) -> None:
    async with served(bundled_server, trusted_proxies="none") as node:
        for number in range(NOTICE_AFTER):
            headers = {"X-Forwarded-For": f"203.0.113.{number}"}
            async with connect(f"ws://127.0.0.1:{node.gateway.port}/ws", additional_headers=headers):
                pass
        assert len(node.gateway.notices) == 1
        name = node.name()
        await until(lambda: "trusted" in str(bundled_server.control.get(f"{{reactor:fleet}}:report:{name}")))
        async with examined(Settings(redis_url=bundled_server.socket_url)) as (report, _):
            (found,) = [finding for finding in report.findings if finding.what == "proxy"]
            assert (found.severity, found.found) == ("problem", "proxy not trusted")
            assert "set trusted_proxies to 127.0.0.1" in found.fix
