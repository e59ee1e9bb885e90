// The overview's rates from counters.

import assert from "node:assert/strict";
import { test } from "node:test";
import { History } from "../../../reactor/admin/page/rates.js";

const report = (joins, lateness = []) => ({ joins, lateness });
const overview = (nodes, departures = {}) => ({
  nodes: Object.entries(nodes).map(([node, report]) => ({ node, report })),
  departures,
});

test("one overview gives no rates", () => {
  const history = new History();
  history.add(overview({ a: report(100) }, { left: 50 }), 0);
  assert.equal(history.perMinute(0), null);
  assert.equal(history.lateness(0, 0.5), null);
});

test("rates count the increases between overviews only", () => {
  const history = new History();
  history.add(overview({ a: report(100), b: report(7) }, { left: 50 }), 0);
  history.add(overview({ a: report(103), b: report(7) }, { left: 51, kicked: 1 }), 2000);
  const rates = history.perMinute(2000);
  assert.equal(rates.joins, 90);
  assert.equal(rates.joinsOf("a"), 90);
  assert.equal(rates.joinsOf("b"), 0);
  assert.deepEqual(rates.left, { left: 30, kicked: 30 });
});

test("a new server adds no past, a stopped one removes nothing, a restarted one counts from 0", () => {
  const history = new History();
  history.add(overview({ a: report(100) }), 0);
  history.add(overview({ a: report(110), b: report(1000) }), 30_000);
  history.add(overview({ b: report(1005) }), 60_000);
  history.add(overview({ b: report(3) }), 90_000);
  assert.equal(history.perMinute(90_000, 120_000).joins, ((10 + 5 + 3) * 60) / 90);
});

test("departure counters that were reset with Redis count from 0", () => {
  const history = new History();
  history.add(overview({}, { left: 500 }), 0);
  history.add(overview({}, { left: 2 }), 60_000);
  assert.equal(history.perMinute(60_000, 120_000).left.left, 2);
});

test("a reason that is counted for the first time comes behind those that were there", () => {
  const history = new History();
  history.add(overview({}, { left: 1, kicked: 0 }), 0);
  history.add(overview({}, { left: 1, kicked: 0, paused: 2 }), 30_000);
  history.add(overview({}, { left: 1, kicked: 0, paused: 3 }), 60_000);
  assert.deepEqual(history.reasons, ["left", "kicked", "paused"]);
  assert.equal(history.perMinute(60_000, 120_000).left.paused, 3);
  assert.equal(history.intervals(60_000, 1)[0].paused, 3);
});

test("a server without a report is ignored", () => {
  const history = new History();
  history.add({ nodes: [{ node: "a", report: null }], departures: {} }, 0);
  history.add({ nodes: [{ node: "a", report: null }], departures: {} }, 1000);
  assert.equal(history.perMinute(1000).joins, 0);
});

test("lateness is the bound that a share of the observed expiries did not exceed", () => {
  const history = new History();
  history.add(overview({ a: report(0, [[1, 900], [5, 950], [null, 950]]) }), 0);
  history.add(overview({ a: report(0, [[1, 909], [5, 960], [null, 960]]) }), 1000);
  assert.equal(history.lateness(1000, 0.5), 1);
  assert.equal(history.lateness(1000, 0.99), 5);
  history.add(overview({ a: report(0, [[1, 909], [5, 960], [null, 970]]) }), 2000);
  assert.equal(history.lateness(2000, 0.99), Infinity);
});

test("the window is divided into intervals, the newest last, and older overviews are dropped", () => {
  const history = new History();
  history.add(overview({ a: report(0) }), 0);
  history.add(overview({ a: report(4) }), 1000);
  history.add(overview({ a: report(9) }), 299_000);
  assert.deepEqual(history.intervals(299_999, 60).map((interval) => interval.joins).filter(Boolean), [4, 5]);
  assert.equal(history.intervals(299_999, 60).at(-1).joins, 5);
  history.add(overview({ a: report(9) }), 302_000);
  assert.equal(history.intervals(302_000, 60).reduce((total, interval) => total + interval.joins, 0), 5);
});
