// Room presence as it is usually built on Socket.IO and ioredis: the peer of scripts/bench_gateway.py.
//
// A presence key of 6 h per member, GET and SET at each heartbeat, expired events, a sweep every 60 s over the
// server's own sockets. A room's users are in a set, so that a list costs SMEMBERS and MGET and never SCAN.
// usage: node server.js REDIS_URL      prints {"port": ...} once it listens; ends with its standard input

import { createServer } from "node:http";
import { Redis } from "ioredis";
import { Server } from "socket.io";

const TTL = 6 * 3600;
const SWEEP_EVERY = 60_000;
const url = process.argv[2];
const redis = new Redis(url);
const events = new Redis(url);
const http = createServer();
const io = new Server(http, { transports: ["websocket"], perMessageDeflate: false });

const presenceKey = (room, user) => `room:${room}:user:${user}`;
const shadowKey = (room, user) => `shadow:${presenceKey(room, user)}`;
const usersKey = (room) => `users:${room}`;

async function list(room) {
  const users = await redis.smembers(usersKey(room));
  if (users.length === 0) return [];
  const rows = await redis.mget(users.map((user) => presenceKey(room, user)));
  return rows.filter(Boolean).map((row) => JSON.parse(row));
}

async function join(socket, { roomId, userId }) {
  const now = Date.now();
  const member = { socketId: socket.id, userId, roomId, username: userId, lastActiveAt: now, joinedAt: now };
  const text = JSON.stringify(member);
  await redis
    .pipeline()
    .set(presenceKey(roomId, userId), text, "EX", TTL)
    .set(shadowKey(roomId, userId), text, "EX", TTL + 3600)
    .sadd(usersKey(roomId), userId)
    .exec();
  socket.data = { roomId, userId };
  socket.join(roomId);
  socket.to(roomId).emit("user:joined", member);
  socket.emit("room:joined", { roomId, userId, members: await list(roomId) });
}

async function heartbeat(socket) {
  const { roomId, userId } = socket.data;
  const key = presenceKey(roomId, userId);
  const text = await redis.get(key);
  if (text === null) return leave(socket, "inactivity_timeout");
  const member = JSON.parse(text);
  member.lastActiveAt = Date.now();
  await redis.set(key, JSON.stringify(member), "EX", TTL);
  socket.emit("room:heartbeat:ack", { roomId, timestamp: member.lastActiveAt });
}

async function leave(socket, reason) {
  const { roomId, userId } = socket.data;
  if (!roomId) return;
  socket.data = {};
  await redis
    .pipeline()
    .del(presenceKey(roomId, userId), shadowKey(roomId, userId))
    .srem(usersKey(roomId), userId)
    .exec();
  io.to(roomId).emit("user:left", { roomId, userId, reason });
  socket.disconnect(true);
}

async function sweep() {
  for (const socket of io.sockets.sockets.values()) {
    const { roomId, userId } = socket.data;
    if (roomId && !(await redis.exists(presenceKey(roomId, userId)))) await leave(socket, "inactivity_timeout");
  }
}

io.on("connection", (socket) => {
  socket.data = {};
  socket.on("join_room", (asked) => join(socket, asked));
  socket.on("room:heartbeat", () => heartbeat(socket));
  socket.on("disconnect", () => leave(socket, "disconnected"));
});

await redis.config("SET", "notify-keyspace-events", "Ex");
await events.psubscribe("__keyevent@*__:expired");
events.on("pmessage", (_pattern, _channel, key) => {
  for (const socket of io.sockets.sockets.values()) {
    const { roomId, userId } = socket.data;
    if (roomId && presenceKey(roomId, userId) === key) leave(socket, "inactivity_timeout");
  }
});
setInterval(sweep, SWEEP_EVERY);
process.stdin.on("end", () => process.exit(0)).resume();
http.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => console.log(JSON.stringify({ port: http.address().port })));
