// Runs histories of a room, given as JSON, through the client's listing; prints the events of each step.
import { readFileSync } from "node:fs";
import { Listing } from "../../reactor/js/listing.js";

const moves = {
  joined: (listing, message) => listing.snapshot(message),
  listed: (listing, message) => listing.snapshot(message),
  count: (listing, message) => listing.snapshot(message),
  diff: (listing, message) => listing.diff(message),
  settle: (listing) => listing.settle(),
  lose: (listing) => (listing.lose(), []),
};

const histories = JSON.parse(readFileSync(process.argv[2], "utf8"));
const told = histories.map((steps) => {
  const listing = new Listing("lobby");
  listing.userId = "me";
  return steps.map(([move, message]) => {
    const events = moves[move](listing, message);
    const members = [...listing.told.keys()].sort();
    return { events, members, count: listing.size, served: listing.served, incomplete: listing.incomplete, unsettled: listing.unsettled };
  });
});
console.log(JSON.stringify(told));
