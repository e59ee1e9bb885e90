// From sums that only grow, asked for again and again, to how much came in a while. No page and no clock in here.

export const KEPT = 300_000;
export const REASONS = ["left", "disconnected", "inactivity_timeout", "kicked"];

/** What the overviews of the last five minutes say together. Times are milliseconds on any steady clock. */
export class History {
  #samples = [];

  /** Takes an overview. Each part is what came since the one before: a server that went takes nothing with it. */
  add(overview, at) {
    const nodes = new Map(overview.nodes.filter((one) => one.report).map((one) => [one.node, one.report]));
    const before = this.#samples.at(-1);
    this.#samples.push({
      at,
      nodes,
      departures: overview.departures,
      span: before ? at - before.at : 0,
      joins: new Map([...nodes].map(([node, report]) => [node, grown(report.joins, before?.nodes.get(node)?.joins)])),
      left: Object.fromEntries(REASONS.map((reason) => [reason, before ? grown(overview.departures[reason] ?? 0, before.departures[reason] ?? 0) : 0])),
      late: latenesses(nodes, before?.nodes),
    });
    this.#samples = this.#samples.filter((one) => at - one.at <= KEPT);
  }

  /** Everything a minute, by what the last minute saw; null before there are two looks. */
  perMinute(now, span = 60_000) {
    const recent = this.#samples.filter((one) => one.span > 0 && now - one.at < span);
    const seen = sum(recent.map((one) => one.span));
    if (!seen) return null;
    const rate = (number) => (number * 60_000) / seen;
    const byNode = new Map();
    for (const one of recent) for (const [node, joins] of one.joins) byNode.set(node, (byNode.get(node) ?? 0) + joins);
    return {
      joins: rate(sum([...byNode.values()])),
      joinsOf: (node) => rate(byNode.get(node) ?? 0),
      left: Object.fromEntries(REASONS.map((reason) => [reason, rate(sum(recent.map((one) => one.left[reason])))])),
    };
  }

  /** The least bound (ms) that this share of the ends by time within the span did not exceed; null for none, Infinity beyond all. */
  lateness(now, share, span = KEPT) {
    const bounds = new Map();
    for (const one of this.#samples) {
      if (now - one.at < span) for (const [bound, count] of one.late) bounds.set(bound, (bounds.get(bound) ?? 0) + count);
    }
    const sorted = [...bounds].sort(([a], [b]) => a - b);
    const all = sorted.at(-1)?.[1] ?? 0;
    return all ? sorted.find(([, count]) => count >= share * all)[0] : null;
  }

  /** What came in each of so many equal parts of the five minutes, the oldest first. */
  parts(now, number) {
    const parts = Array.from({ length: number }, () => ({ joins: 0, ...Object.fromEntries(REASONS.map((reason) => [reason, 0])) }));
    for (const one of this.#samples) {
      const part = parts[number - 1 - Math.floor(((now - one.at) / KEPT) * number)];
      if (!part) continue;
      part.joins += sum([...one.joins.values()]);
      for (const reason of REASONS) part[reason] += one.left[reason];
    }
    return parts;
  }
}

function latenesses(nodes, before) {
  const found = new Map();
  for (const [node, report] of nodes) {
    const old = new Map(before?.get(node)?.lateness ?? []);
    for (const [bound, count] of report.lateness) {
      const key = bound ?? Infinity;
      found.set(key, (found.get(key) ?? 0) + grown(count, before ? old.get(bound) : undefined));
    }
  }
  return found;
}

/** How much a sum has grown; nothing where it is seen for the first time, all of it where it began anew. */
function grown(now, before) {
  if (before === undefined) return 0;
  return now >= before ? now - before : now;
}

const sum = (numbers) => numbers.reduce((all, one) => all + one, 0);
