// What can be sent: copied as JSON holds it, or refused with the place of what is at fault.
import assert from "node:assert/strict";
import { runInNewContext } from "node:vm";
import { test } from "node:test";
import { checkedFields, checkedId, jsonCopy } from "../../reactor/js/encode.js";

const half = "\ud83d";
const cycle = { inner: [] };
cycle.inner.push(cycle);
const nested = (depth) => (depth ? [nested(depth - 1)] : 1);
class Point {
  x = 1;
  #hidden = 2;
  get hidden() {
    return this.#hidden;
  }
}

const REFUSED = [
  [undefined, "data: undefined cannot be sent: use null, or leave it out"],
  [{ mood: undefined }, "data.mood: undefined cannot be sent: use null, or leave it out"],
  [{ list: [1, 2, 3, () => {}] }, "data.list[3]: a function cannot be sent"],
  [[[Symbol("x")]], "data[0][0]: a symbol cannot be sent"],
  [{ n: 1n }, "data.n: a bigint cannot be sent"],
  [{ n: NaN }, "data.n: NaN cannot be sent: use null"],
  [-Infinity, "data: -Infinity cannot be sent: use null"],
  [{ name: half }, "data.name: half a surrogate pair cannot be sent: cut text between characters"],
  [{ "a b": { [half]: 1 } }, /^data\["a b"\]\["\\ud83d"\]: half a surrogate pair/],
  // eslint-disable-next-line no-sparse-arrays
  [[1, , 2], "data[1]: undefined cannot be sent: use null, or leave it out"],
  [cycle, /^data\.inner\[0\].*: nested deeper than 32 levels, or contains itself$/],
  [nested(33), /nested deeper than 32 levels/],
  [new Map([[1, 2]]), "data: a Map cannot be sent: use an object or an array"],
  [{ s: new Set() }, "data.s: a Set cannot be sent: use an object or an array"],
  [{ d: new Date(NaN) }, "data.d: an invalid date cannot be sent"],
  [{ r: /x/ }, "data.r: a RegExp cannot be sent: use an object or an array"],
  [{ e: new Error("x") }, "data.e: a Error cannot be sent: use an object or an array"],
  [Promise.resolve(1), "data: a Promise cannot be sent: use an object or an array"],
  [new Uint8Array(2), "data: a Uint8Array cannot be sent: use an object or an array"],
  [runInNewContext("new Map()"), "data: a Map cannot be sent: use an object or an array"],
  [{ get bad() { throw new Error("no"); } }, /^data: it cannot be read: Error: no$/],
  [{ bad: { toJSON() { throw new Error("no"); } } }, "data.bad: it cannot be read: Error: no"],
  [{ bad: { toJSON: () => undefined } }, /^data\.bad: undefined cannot be sent/],
  [new Proxy({}, { ownKeys() { throw new Error("revoked"); } }), /^data: it cannot be read/],
  [{ [Symbol("k")]: 1 }, "data: the key Symbol(k) cannot be sent: use text"],
  [{ n: 2 ** 64 }, "data.n: more than 64 bits cannot be sent: use text"],
  [[-(2 ** 64)], "data[0]: more than 64 bits cannot be sent: use text"],
  // JSON.stringify writes -(2 ** 63) as -9223372036854776000, which is less.
  [[-(2 ** 63)], "data[0]: more than 64 bits cannot be sent: use text"],
  [-1e19, "data: more than 64 bits cannot be sent: use text"],
  [{ bad: { toJSON() { throw Symbol("s"); } } }, "data.bad: it cannot be read: Symbol(s)"],
  [{ get bad() { throw Object.create(null); } }, "data: it cannot be read: an object"],
];

for (const [number, [value, message]] of REFUSED.entries()) {
  test(`refused: ${message} (${number})`, () => {
    assert.throws(() => jsonCopy(value, "data"), { name: "ReactorError", code: "bad_request", message });
  });
}

const ACCEPTED = [
  [null],
  [[true, "😀", 1.5, { a: { b: [] } }]],
  [nested(32)],
  [[2 ** 63, -(2 ** 63) + 1024, 1e21, -1e21, 1e300]],
  [new Date(0), "1970-01-01T00:00:00.000Z"],
  [{ at: new Date(0), url: new URL("http://x/") }, { at: "1970-01-01T00:00:00.000Z", url: "http://x/" }],
  [new Point(), { x: 1 }],
  [Object.create(null, { a: { value: 1, enumerable: true } }), { a: 1 }],
  [runInNewContext("({ a: [1] })"), { a: [1] }],
  [JSON.parse('{"__proto__": {"x": 1}, "constructor": 2}')],
];

for (const [number, [value, copy = value]] of ACCEPTED.entries()) {
  test(`accepted (${number})`, () => {
    const made = jsonCopy(value, "data");
    assert.equal(JSON.stringify(made), JSON.stringify(copy));
    assert.equal(JSON.stringify(made), JSON.stringify(value), "as JSON.stringify has it");
    if (made && typeof made === "object") assert.notEqual(made, value);
  });
}

test("ids are text or whole numbers", () => {
  assert.deepEqual([checkedId("roomId", 7, {}), checkedId("roomId", "7", {}), checkedId("roomId", -1, {})], ["7", "7", "-1"]);
  for (const id of [null, {}, [], 1.5, 1e21, NaN, true, Symbol("x"), Object.create(null), 1n]) {
    assert.throws(() => checkedId("roomId", id, {}), { code: "bad_request", message: /^roomId: text or a whole number/ });
  }
});

test("sizes are counted in bytes of UTF-8, and of the text of JSON", () => {
  const limits = { id: 8, data: 10 };
  assert.deepEqual(checkedFields({ username: "😀😀", data: "😀😀" }, limits), { username: "😀😀", data: "😀😀" });
  assert.throws(() => checkedFields({ username: "😀😀a" }, limits), { code: "too_big", message: /^username: 9 bytes/ });
  assert.throws(() => checkedFields({ data: "😀😀a" }, limits), { code: "too_big", message: /^data: 11 bytes/ });
  assert.throws(() => checkedFields({ data: '\n"%aaaa' }, limits), { code: "too_big", message: /^data: 11 bytes/ });
});
