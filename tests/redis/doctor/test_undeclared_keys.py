"""Whether a server lets scripts use keys that they do not declare."""

from reactor.backend.target import parse_url
from reactor.doctor.checks.undeclared_keys import undeclared_keys
from reactor.doctor.deployment import Deployment
from reactor.doctor.inspect import _try_undeclared_key
from reactor.settings import Settings
from tests.redis.doctor.examination import inspected_server
from tests.support.servers import Server


async def test_redis_and_valkey_do(redis_server: Server) -> None:
    async with inspected_server(redis_server.url) as server:
        await _try_undeclared_key(server, "{reactor:0lf}")
        assert server.undeclared_keys == ""


async def test_a_server_that_does_not_is_a_problem_with_its_fix(redis_server: Server) -> None:
    async with inspected_server(redis_server.url) as server:
        deployment = Deployment(parse_url(redis_server.url), Settings())
        deployment.servers = [server]
        assert list(undeclared_keys(deployment)) == []
        server.undeclared_keys = "script tried accessing undeclared key"
        (finding,) = undeclared_keys(deployment)
        assert finding.severity == "problem"
        assert "allow-undeclared-keys" in finding.fix
