// Runs histories of a room, given as JSON, through the client's ReportedRoom; prints the events of each step.
import { readFileSync } from "node:fs";
import { ReportedRoom } from "../../reactor/js/reported-room.js";

const moves = {
  joined: (room, message) => room.snapshot(message),
  listed: (room, message) => room.snapshot(message),
  count: (room, message) => room.snapshot(message),
  diff: (room, message) => room.diff(message),
  settle: (room) => room.settle(),
  lose: (room) => (room.wait(), []),
};

const histories = JSON.parse(readFileSync(process.argv[2], "utf8"));
const results = histories.map((steps) => {
  const room = new ReportedRoom("lobby");
  room.userId = "me";
  return steps.map(([move, message]) => {
    const events = moves[move](room, message);
    const members = [...room.reported.keys()].sort();
    return { events, members, count: room.size, served: room.served, incomplete: room.needsSnapshot, unsettled: room.unsettled };
  });
});
console.log(JSON.stringify(results));
