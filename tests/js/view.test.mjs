// The cases that every view of a room passes; the server's own view runs the same file.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { MAX_DEFERRED, RoomView, differenceBetween } from "../../reactor/js/view.js";

const cases = JSON.parse(readFileSync(new URL("../cases/room.json", import.meta.url), "utf8"));
const person = new Map(Object.entries(cases.people));
const people = (names) => names.map((name) => person.get(name));
const diffOf = (one) => ({ ...one, joined: people(one.joined), updated: people(one.updated) });
const sorted = (members) => [...members].sort((a, b) => (a.userId < b.userId ? -1 : 1));

function step(view, one) {
  if (one.reset) return view.reset(one.reset.epoch, one.reset.version, people(one.reset.members));
  if (one.resume) return view.resume(one.resume.epoch, one.resume.version, one.resume.diffs.map(diffOf));
  if (one.apply) return view.apply(diffOf(one.apply));
  if (one.lose) view.wait();
  return undefined;
}

for (const one of cases.views) {
  test(`view: ${one.name}`, () => {
    const view = new RoomView();
    for (const [number, each] of one.steps.entries()) {
      assert.equal(step(view, each), each.result, `step ${number}`);
      if (!each.then) continue;
      const { members, ...position } = each.then;
      const { epoch, version, count, waiting } = view;
      assert.deepEqual({ epoch, version, count, waiting }, position, `step ${number}`);
      assert.deepEqual(sorted(view.members.values()), sorted(people(members)), `step ${number}`);
      for (const [userId, member] of view.members) assert.equal(userId, member.userId);
    }
  });
}

for (const one of cases.differences) {
  test(`difference: ${one.name}`, () => {
    const before = new Map(people(one.old).map((member) => [member.userId, member]));
    const change = differenceBetween(before, people(one.new), "kicked");
    assert.deepEqual(change.joined, people(one.joined));
    assert.deepEqual(change.updated, people(one.updated));
    assert.deepEqual(change.left, one.left.map((userId) => ({ userId, reason: "kicked" })));
  });
}

test("the number of deferred diffs is bounded, and a dropped one is a gap", () => {
  const view = new RoomView();
  const ann = person.get("ann");
  for (let version = 1; version < MAX_DEFERRED + 3; version += 1) {
    const diff = { epoch: "e", from: version - 1, version, count: 1, joined: [], updated: [ann], left: [] };
    assert.equal(view.apply(diff), "deferred");
  }
  assert.equal(view.reset("e", 1, [ann]), "gap");
  assert.equal(view.reset("e", MAX_DEFERRED + 1, [ann]), "applied");
  assert.equal(view.version, MAX_DEFERRED + 2);
});

test("data with the key __proto__ is compared correctly", () => {
  const ann = person.get("ann");
  const before = new Map([["ann", { ...ann, data: JSON.parse('{"__proto__": {}}') }]]);
  assert.equal(differenceBetween(before, [{ ...ann, data: { x: {} } }], "").updated.length, 1);
  assert.equal(differenceBetween(before, [{ ...ann, data: JSON.parse('{"__proto__": {}}') }], "").updated.length, 0);
});
