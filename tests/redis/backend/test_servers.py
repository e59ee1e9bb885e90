"""The servers that the tests run on can be reset, killed, paused and restarted."""

import os
import select
import signal

import pytest
import redis

from tests.support.servers import Server


def test_a_server_is_reset_for_each_test(redis_server: Server, running_servers):
    control = redis_server.control
    control.set("key", "value")
    control.config_set("notify-keyspace-events", "KEA")
    control.config_set("maxmemory", "5mb")
    control.acl_setuser("someone", enabled=True)
    control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    digest = control.script_load("return 1")
    again = running_servers(redis_server.kind)
    assert again is redis_server
    assert control.dbsize() == 0
    assert control.script_exists(digest) == [False]
    assert set(control.config_get("notify-keyspace-events")["notify-keyspace-events"] or "") == {"E", "x"}
    assert control.config_get("maxmemory")["maxmemory"] == "0"
    assert control.acl_users() == ["default"]


def test_a_server_can_be_killed_and_started_again_on_the_same_address(redis_server: Server):
    client = redis.Redis.from_url(redis_server.url, retry=None)
    client.set("key", "value")
    before = redis_server.pid
    redis_server.kill()
    with pytest.raises(redis.ConnectionError):
        client.ping()
    redis_server.start()
    assert redis_server.pid != before
    assert client.get("key") is None
    client.close()


def test_a_paused_server_answers_nothing(redis_server: Server):
    client = redis.Redis.from_url(redis_server.socket_url, socket_timeout=0.1, retry=None)
    client.ping()
    redis_server.pause()
    try:
        with pytest.raises(redis.TimeoutError):
            client.ping()
    finally:
        redis_server.resume()
    assert client.ping()
    client.close()


def test_without_the_active_cycle_a_key_expires_only_when_touched(redis_server: Server):
    redis_server.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    with redis_server.control.pubsub() as events:
        events.subscribe("__keyevent@0__:expired")
        assert events.get_message(timeout=2)["type"] == "subscribe"
        redis_server.control.set("key", "value", px=20)
        assert events.get_message(timeout=0.3) is None
        assert redis_server.control.pttl("key") == -2
        assert events.get_message(timeout=2)["data"] == "key"


def test_a_server_does_not_outlive_its_watcher(bundled_server: Server):
    pid = os.pidfd_open(bundled_server.pid)
    assert bundled_server._watch is not None
    bundled_server._watch.send_signal(signal.SIGKILL)
    assert select.select([pid], [], [], 5)[0]
    os.close(pid)
    bundled_server._watch.wait(10)  # the server may end first; `start` needs to know that both have
