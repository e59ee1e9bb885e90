"""Frames for the attack `structured_frames`: requests that do something, many of them wrong in one place.

Where `mutated_frames` changes bytes, this changes fields, values, encodings and the framing, so that most
of a message is valid and reaches what lies behind the decoder.
"""

import random
import struct
from collections.abc import Callable
from typing import Any

import msgspec
from websockets.frames import Opcode

from tests.support.gateway import client_frame

ROOMS = [f"fuzzed {number}" for number in range(8)]
USERS = [f"fuzz {number}" for number in range(8)]
VIEWS = ["members", "count", "none"]
ARENA = "arena"  # of the ordinary clients, in which an attacker watches and asks
TEXTS = [
    "", " ", "0", "-1", "null", "\u202egnirts", "a\u0300" * 128, "\ufeff", "\U000e0041", "\ufdfa" * 85,
    "\U0001f3f4\u200d\u2620\ufe0f" * 10, "*", "[", "{x}", "user:", "a:user:b", "%00", "__proto__", "\x00",
    "\x1b[2J", "\x85", "\u2028", "1e400", "NaN", "\\", '"', "x" * 256, "x" * 257, "é" * 128, "💣" * 64,
    "💣" * 65, "9" * 19, "18446744073709551616", "9" * 5000, "\ud7ff\ue000", "\uffff", "\x7f",
]  # fmt: skip
NUMBERS = [
    0, -1, 1, 2**31, 2**53 - 1, 2**53, 2**63 - 1, -(2**63), 2**63, 2**64 - 1, 1.5, -0.0, 1e308, 5e-324,
]  # fmt: skip
RAW_JSON = [
    b"1e400", b"-0", b"1e-400", b"12345678901234567890123456789", b"nul", b'"\\ud800"', b'"\\udc00\\ud800"',
    b"[" * 500 + b"]" * 500, b'{"a":' * 200 + b"1" + b"}" * 200, b'"\\u0000"', b'{"a":1,"a":2}', b"NaN",
]  # fmt: skip
RAW_MSGPACK = [
    b"\xd6\xff\x00\x00\x00\x01", b"\xd7\xff" + b"\xff" * 8, b"\xc7\x0c\xff" + b"\xff" * 12, b"\xc7\x00\x05",
    b"\xd4\x01\x00", b"\xc4\x03abc", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc1",
    b"\xdd\x00\x00\x3f\xff" + b"\xc0" * 0x3fff, b"\xa4\xff\xfe\xfd\xfc",
    b"\x91" * 2000 + b"\xc0", b"\x81\xa1a" * 500 + b"\xc0", b"\x81\x01\x02", b"\x81\xc0\x02", b"\x81\x90\x01",
    b"\x82\xa1a\x01\xa1a\x02", b"\xca\x7f\x80\x00\x00", b"\xcb\x7f\xf8" + bytes(6), b"\xcf" + b"\xff" * 8,
    b"\xd3\x80" + bytes(7), b"\xde\x00\x01\xa1a\x01", b"\xc9\x00\x00\x00\x04\x7fabcd",
]  # fmt: skip


class Frames:
    """Makes frames for one codec; `generator` decides everything."""

    def __init__(self, generator: random.Random, *, binary: bool) -> None:
        self._random = generator
        self._binary = binary
        self._opcode = Opcode.BINARY if binary else Opcode.TEXT
        self._raw = [msgspec.Raw(value) for value in (RAW_MSGPACK if binary else RAW_JSON)]
        encode: Callable[[Any], bytes] = msgspec.msgpack.encode if binary else msgspec.json.encode
        self._encode = encode

    def batch(self, count: int) -> bytes:
        """Return so many messages, each in one frame or in several."""
        return b"".join(self._frames(self._payload()) for _ in range(count))

    # Private methods

    def _frames(self, payload: bytes) -> bytes:
        chance = self._random.random()
        if chance < 0.9:
            return client_frame(self._opcode, payload)
        if chance < 0.98:
            return self._fragments(payload)
        if chance < 0.9985:
            return client_frame(self._random.choice((Opcode.PING, Opcode.PONG)), payload[:125])
        frame = bytearray(client_frame(self._opcode, payload))
        if chance < 0.9994:
            frame[0] ^= 1 << self._random.randrange(8)  # FIN, a reserved bit, or the opcode
        elif chance < 0.9998:
            frame[1] ^= 1 << self._random.randrange(8)  # the mask, or the length
        else:
            reason = struct.pack(">H", self._random.randrange(65536)) + payload[:123]
            frame = bytearray(client_frame(Opcode.CLOSE, reason))
        return bytes(frame)

    def _fragments(self, payload: bytes) -> bytes:
        """Return a message in up to 16 fragments, between which there are control frames."""
        cuts = sorted(self._random.randrange(len(payload) + 1) for _ in range(self._random.randrange(1, 15)))
        parts = [payload[start:end] for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
        frames = []
        for number, part in enumerate(parts):
            opcode = Opcode.CONT if number else self._opcode
            frames.append(client_frame(opcode, part, fin=number == len(parts) - 1))
            if self._random.random() < 0.2:
                frames.append(client_frame(self._random.choice((Opcode.PING, Opcode.PONG)), b"x" * number))
        return b"".join(frames)

    def _payload(self) -> bytes:
        message = self._message()
        for _ in range(self._random.choice((0, 0, 1, 1, 1, 2))):
            self._mutate(message)
        try:
            payload = self._encode(message)
        except (msgspec.MsgspecError, ValueError, TypeError, OverflowError):
            payload = b""
        if self._random.random() < 0.01:
            payload = payload[: self._random.randrange(len(payload) + 1)]
        elif self._random.random() < 0.01:
            payload += self._random.randbytes(self._random.randrange(4)) if self._binary else b" {}"
        return payload[: self._random.choice((66_000, *[65_536] * 50))]

    def _mutate(self, message: dict[Any, Any]) -> None:
        field = self._random.choice(list(message))
        chance = self._random.random()
        if chance < 0.6:
            message[field] = self._value(3)
        elif chance < 0.7:
            del message[field]
            message.setdefault("type", "room:members")
        elif chance < 0.8:
            message[self._random.choice(["data", "patch", "to", "roomIds", "resume", "x"])] = self._value(4)
        elif chance < 0.9:
            message[self._random.choice(TEXTS)] = self._value(1)
        else:
            other = self._message()
            message.update({name: other[name] for name in other if name != "type"})

    def _message(self) -> dict[Any, Any]:
        choose = self._random.choice
        room, user = choose(ROOMS), choose(USERS)
        message: dict[Any, Any] = choose([
            {"type": "join_room", "roomId": room, "userId": user, "view": choose(VIEWS)},
            {"type": "join_room", "roomId": room, "userId": user, "data": self._value(3), "username": user},
            {"type": "join_room", "roomId": room, "userId": user, "resume": self._resume()},
            {"type": "leave_room", "roomId": room},
            {"type": "room:heartbeat"},
            {"type": "room:heartbeat", "roomId": room},
            {"type": "room:update", "roomId": room, "data": self._value(3)},
            {"type": "room:update", "roomId": room, "patch": self._value(3)},
            {"type": "room:away", "roomId": choose([room, None])},
            {"type": "room:back", "roomId": choose([room, None])},
            {"type": "room:members", "roomId": choose([room, ARENA])},
            {"type": "room:members", "roomId": room, "limit": choose(NUMBERS), "cursor": self._cursor()},
            {"type": "room:count", "roomId": choose([room, ARENA])},
            {"type": "room:is_present", "roomId": choose([room, ARENA]), "userId": user},
            {"type": "room:send", "roomId": room, "data": self._value(3)},
            {"type": "room:send", "roomId": room, "data": 1, "to": [choose(USERS) for _ in range(5)]},
            {"type": "room:watch", "roomId": choose([room, ARENA])},
            {"type": "room:watch", "roomIds": [*ROOMS, ARENA], "view": "count"},
            {"type": "room:unwatch", "roomId": choose([room, ARENA])},
            {"type": "room:unwatch", "roomIds": ROOMS},
            {"type": "people:watch", "userIds": [*USERS, "ordinary 0"]},
            {"type": "people:unwatch"},
            {"type": "people:unwatch", "userIds": USERS[:3]},
            {"type": "closing"},
            {"type": "auth", "token": choose(TEXTS)},
        ])  # fmt: skip
        if self._random.random() < 0.3:
            message["id"] = choose([1, "i", "i" * 128, "i" * 129, -1, 2**53])
        return message

    def _resume(self) -> dict[str, Any]:
        choose = self._random.choice
        wild = [0, 1, 2, 50, 2**53 - 1, 2**53, -1, 1.0, None, "1"]
        resume: dict[str, Any] = {
            "epoch": choose(TEXTS[:20]),
            "version": choose(wild),
            "joinedAt": choose(wild),
        }
        if self._random.random() < 0.7:
            resume["members"] = choose(wild)
        return resume

    def _cursor(self) -> str:
        return str(self._random.choice([*TEXTS, self._random.randrange(2**64), "0"]))

    def _value(self, depth: int) -> Any:
        """Return any value, lists and objects at most `depth` deep, or far deeper than may be."""
        chance = self._random.random()
        if depth and chance < 0.25:
            return {
                self._random.choice(TEXTS): self._value(depth - 1) for _ in range(self._random.randrange(5))
            }
        if depth and chance < 0.4:
            return [self._value(depth - 1) for _ in range(self._random.randrange(5))]
        if chance < 0.42:
            nested: Any = 1
            for _ in range(self._random.choice((31, 32, 33, 60))):
                nested = {"a": nested} if chance < 0.41 else [nested]
            return nested
        if chance < 0.45:
            return self._random.choice(["x" * 4000, "x" * 4094, ["a"] * 9000, [[]] * 1300, "💣" * 1100, {}])
        if chance < 0.47:
            return self._random.choice(self._raw)
        return self._random.choice([*TEXTS, *NUMBERS, None, True, False, [], {}, *ROOMS, *USERS])
