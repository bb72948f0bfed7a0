"use strict";
// The admin page. It asks what everyone may ask: the API, by gRPC-Web, with the few messages that it needs written out below; and /metrics.

const ROWS = 100, PAGE = 1000, LOOKED_AT_MAX = 200_000, FEED_ROWS = 200, POINTS = 120, EVERY_MS = 2000;
const REASONS = ["", "NORMAL", "SHUTDOWN", "KILLED", "EXPIRED", "CRASHED", "NOPROC", "NOCONNECTION", "LINKED"];
const CODES = { 0: "OK", 5: "NOT_FOUND", 7: "PERMISSION_DENIED", 14: "UNAVAILABLE", 16: "UNAUTHENTICATED" };
const EVENT_KIND_DOWN = 2, REASON_KILLED = 3, RECONNECT_MS = 2000;
const $ = (id) => document.getElementById(id);
const text = new TextDecoder(), bytes = new TextEncoder();

// ---- protobuf, as far as it is needed: numbers and what has a length

function varint(value) {
  const out = [];
  let left = BigInt(value);
  do {
    const more = left > 127n;
    out.push(Number(left & 127n) | (more ? 128 : 0));
    left >>= 7n;
  } while (left > 0n);
  return out;
}

const number = (field, value) => (value ? [...varint(field << 3), ...varint(value)] : []);
const sized = (field, value) => [...varint((field << 3) | 2), ...varint(value.length), ...value];
const string = (field, value) => sized(field, bytes.encode(value));

/** A message's fields, each a list of what came under its number: BigInts, and slices. */
function fields(message) {
  const found = {};
  let at = 0;
  const next = () => {
    let value = 0n, shift = 0n, byte;
    do {
      byte = message[at++];
      value |= BigInt(byte & 127) << shift;
      shift += 7n;
    } while (byte & 128);
    return value;
  };
  while (at < message.length) {
    const tag = Number(next()), kind = tag & 7;
    let value;
    if (kind === 0) value = next();
    else if (kind === 2) { const length = Number(next()); value = message.subarray(at, at + length); at += length; }
    else { const length = kind === 1 ? 8 : 4; value = message.subarray(at, at + length); at += length; }
    (found[tag >> 3] ??= []).push(value);
  }
  return found;
}

const first = (message, field) => message[field]?.[0];
const str = (message, field) => { const value = first(message, field); return value ? text.decode(value) : ""; };
const num = (message, field) => first(message, field) ?? 0n;
const time = (message, field) => {
  const value = first(message, field);
  if (!value) return null;
  const stamp = fields(value);
  return new Date(Number(num(stamp, 1)) * 1000 + Number(num(stamp, 2)) / 1e6);
};

// ---- gRPC-Web

class Failed extends Error {
  constructor(code, message) { super(`${message || "no words"} (${CODES[code] ?? code})`); this.code = code; }
}

/** Calls a method; `hear` has each message. It returns when the call is over, and throws where it failed. */
async function call(method, message, hear, signal) {
  const framed = new Uint8Array(5 + message.length);
  new DataView(framed.buffer).setUint32(1, message.length);
  framed.set(message, 5);
  const headers = { "content-type": "application/grpc-web+proto", "x-grpc-web": "1" };
  const token = sessionStorage.getItem("token");
  if (token) headers.authorization = `Bearer ${token}`;
  const response = await fetch(`pail.v1.BucketService/${method}`, { method: "POST", headers, body: framed, signal });
  if (!response.ok) throw new Failed(response.status, await response.text());
  check(response.headers.get("grpc-status"), response.headers.get("grpc-message"));
  const reader = response.body.getReader();
  let left = new Uint8Array(0);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const all = new Uint8Array(left.length + value.length);
    all.set(left);
    all.set(value, left.length);
    let at = 0;
    while (all.length - at >= 5) {
      const length = new DataView(all.buffer, at + 1, 4).getUint32(0);
      if (all.length - at - 5 < length) break;
      const frame = all.subarray(at + 5, at + 5 + length);
      if (all[at] & 128) {
        const trailers = Object.fromEntries(text.decode(frame).split("\r\n").map((line) => line.split(/:\s*/, 2)));
        check(trailers["grpc-status"], trailers["grpc-message"]);
      } else hear(fields(frame));
      at += 5 + length;
    }
    left = all.slice(at);
  }
}

function check(status, message) {
  if (status && status !== "0") throw new Failed(Number(status), decodeURIComponent(message ?? ""));
}

// ---- what is shown

function state(words, isWrong = false) {
  $("state").textContent = words;
  $("state").className = isWrong ? "wrong" : "";
}

function row(cells) {
  const tr = document.createElement("tr");
  for (const cell of cells) {
    const td = document.createElement("td");
    if (cell instanceof Node) td.append(cell); else td.textContent = cell ?? "";
    tr.append(td);
  }
  return tr;
}

const ago = (date) => (date ? date.toISOString().replace("T", " ").replace(/\.\d+Z/, "") : "");
const short = (value) => Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(value);
const seconds = (value) => (value === null ? "" : value === Infinity ? "more" : value >= 1 ? `${value} s` : value >= 1e-3 ? `${value * 1e3} ms` : `${Math.round(value * 1e6)} µs`);

// ---- buckets: a page by name is the server's; by anything else all pages are looked at, and the first rows kept

let pages = [""], looking = new AbortController();
const ORDERS = {
  bytes: (one, other) => Number(other.bytes - one.bytes),
  entries: (one, other) => Number(other.entries - one.entries),
  version: (one, other) => Number(other.version - one.version),
  age: (one, other) => (other.id > one.id ? 1 : -1),
};

const bucket = (message) => ({
  name: str(message, 1), id: num(message, 2), version: num(message, 4), entries: num(message, 5), bytes: num(message, 6),
  created: time(message, 7), expires: time(message, 8), links: num(message, 9),
});

async function list(token, size, signal) {
  const page = { buckets: [], next: "" };
  const request = [...string(1, $("prefix").value), ...number(2, size), ...string(3, token)];
  await call("List", request, (answer) => {
    page.buckets = (answer[1] ?? []).map((found) => bucket(fields(found)));
    page.next = str(answer, 2);
  }, signal);
  return page;
}

async function show() {
  looking.abort();
  looking = new AbortController();
  const { signal } = looking, order = $("order").value;
  try {
    if (order === "name") {
      const page = await list(pages.at(-1), ROWS, signal);
      fill(page.buckets);
      $("next").disabled = !page.next;
      $("next").dataset.token = page.next;
      $("count").textContent = `${page.buckets.length} from place ${(pages.length - 1) * ROWS + 1}`;
      return;
    }
    $("next").disabled = true;
    let kept = [], seen = 0, token = "";
    do {
      const page = await list(token, PAGE, signal);
      seen += page.buckets.length;
      kept = kept.concat(page.buckets).sort(ORDERS[order]).slice(0, ROWS);
      token = page.next;
      $("count").textContent = `the first ${kept.length} of ${seen}${token ? "…" : ""}`;
    } while (token && seen < LOOKED_AT_MAX);
    fill(kept);
    if (token) $("count").textContent = `the first ${kept.length} of the first ${seen} by name: a longer prefix looks at fewer`;
  } catch (error) {
    if (error.name !== "AbortError") { state(error.message, true); fill([]); }
  }
}

function fill(buckets) {
  $("buckets").tBodies[0].replaceChildren(...buckets.map((bucket) => {
    const stop = document.createElement("button");
    stop.textContent = "stop";
    stop.addEventListener("click", () => end(bucket));
    return row([bucket.name, bucket.id, bucket.entries, bucket.bytes, bucket.version, bucket.links, ago(bucket.created), ago(bucket.expires), stop]);
  }));
}

async function end({ name, id }) {
  const detail = prompt(`Stop ${name} (${id})? Those who watch are told why:`, "stopped by an operator");
  if (detail === null) return;
  try {
    await call("Stop", [...string(1, name), ...number(2, id), ...number(3, REASON_KILLED), ...string(4, detail)], () => {});
    state(`${name} is stopped`);
  } catch (error) {
    state(`${name}: ${error.message}`, true);
  }
  show();
}

// ---- the feed of deaths, which goes on where it was

let feeding = new AbortController();

async function feed() {
  feeding.abort();
  feeding = new AbortController();
  const { signal } = feeding;
  let after = null, registry = null;
  while (!signal.aborted) {
    const from = after === null ? number(8, 1) : [...number(10, after), ...string(11, registry)];
    try {
      await call("Watch", [...string(3, $("prefix").value), ...number(7, EVENT_KIND_DOWN), ...from], (response) => {
        if (num(response, 1)) after = num(response, 1);
        if (first(response, 2)) registry = str(fields(first(response, 2)), 1);
        $("feed").textContent = "live";
        const events = first(response, 3);
        if (events) told((fields(events)[1] ?? []).map((event) => first(fields(event), 2)).filter(Boolean).map(fields));
      }, signal);
    } catch (error) {
      if (signal.aborted) return;
      $("feed").textContent = error.message;
      if (error.code === 11) after = registry = null; // the history begins later, or it is another registry
    }
    await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS));
  }
}

function told(downs) {
  const body = $("downs").tBodies[0];
  for (const down of downs.slice(-FEED_ROWS)) {
    body.prepend(row([ago(time(down, 8)), str(down, 2), REASONS[Number(num(down, 4))] ?? "?", str(down, 5), str(down, 9)]));
  }
  while (body.rows.length > FEED_ROWS) body.deleteRow(-1);
}

// ---- what the metrics tell

let before = null;
const plots = { rates: [], latencies: [], errors: [] };

function parse(page) {
  const metrics = new Map();
  for (const line of page.split("\n")) {
    const found = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!found) continue;
    const labels = Object.fromEntries([...(found[2] ?? "").matchAll(/([a-z_]+)="([^"]*)"/g)].map((match) => [match[1], match[2]]));
    if (!metrics.has(found[1])) metrics.set(found[1], []);
    metrics.get(found[1]).push({ labels, value: Number(found[3]) });
  }
  return metrics;
}

const only = (metrics, name) => metrics.get(name)?.[0]?.value;

/** Sums of a metric by the value of a label. */
function by(metrics, name, label, wanted = () => true) {
  const sums = {};
  for (const { labels, value } of metrics.get(name) ?? []) if (wanted(labels)) sums[labels[label]] = (sums[labels[label]] ?? 0) + value;
  return sums;
}

function since(now, then, name, label, wanted) {
  const [after, earlier] = [now, then].map((metrics) => by(metrics, name, label, wanted));
  return Object.fromEntries(Object.keys(after).map((key) => [key, after[key] - (earlier[key] ?? 0)]));
}

/** The least bound that so many of these latencies are within. */
function quantile(part, now, then, wanted) {
  const counts = Object.entries(since(now, then, "grpc_server_handling_seconds_bucket", "le", wanted))
    .map(([bound, count]) => [bound === "+Inf" ? Infinity : Number(bound), count]).sort((one, other) => one[0] - other[0]);
  const all = counts.at(-1)?.[1] ?? 0;
  return all ? counts.find(([, count]) => count >= part * all)[0] : null;
}

function plot(id, value) {
  const points = plots[id];
  points.push(Number.isFinite(value) ? value : 0);
  if (points.length > POINTS) points.shift();
  const top = Math.max(...points) || 1;
  const line = points.map((point, at) => `${at ? "L" : "M"}${(at * 240) / (POINTS - 1)},${58 - (point / top) * 56}`).join("");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", line);
  $(id).replaceChildren(path);
}

const sum = (sums) => Object.values(sums).reduce((all, one) => all + one, 0);
const ofPail = (labels) => labels.grpc_service === "pail.v1.BucketService";

function look(now, passed) {
  const build = now.get("pail_build_info")?.[0];
  $("version").textContent = build ? build.labels.version : "";
  state(only(now, "pail_draining") ? "it drains" : "it serves", Boolean(only(now, "pail_draining")));
  const limits = [...now.keys()].filter((name) => name.endsWith("_max") && now.has(name.slice(0, -4))).map((name) => [name.slice(0, -4), name]);
  if (now.has("process_max_fds")) limits.push(["process_open_fds", "process_max_fds"]);
  $("limits").replaceChildren(...limits.map(([name, max]) => {
    const div = document.createElement("div"), meter = document.createElement("meter"), label = document.createElement("span"), value = document.createElement("span");
    Object.assign(meter, { min: 0, max: only(now, max), high: 0.8 * only(now, max), value: only(now, name) });
    label.textContent = name.replace(/^pail_|^process_/, "").replaceAll("_", " ");
    value.textContent = `${short(only(now, name))} of ${short(only(now, max))}`;
    div.append(label, meter, value);
    return div;
  }));
  const inFlight = by(now, "pail_calls_in_flight", "grpc_method", ofPail);
  const watches = [["watches", only(now, "pail_watchers")], ["the slowest is behind by", `${only(now, "pail_watch_lag_events")} events`], ["monitors", only(now, "pail_monitors")], ["Watch streams", inFlight.Watch], ["Link streams", inFlight.Link], ["Pipelines", inFlight.Pipeline]];
  $("watches").replaceChildren(...watches.map(([name, value]) => {
    const div = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value ?? "";
    div.append(dt, dd);
    return div;
  }));
  if (!before) return;
  const calls = since(now, before, "grpc_server_handled_total", "grpc_method", ofPail), errors = since(now, before, "pail_errors_total", "reason");
  const rate = sum(calls) / passed, late = quantile(0.99, now, before, ofPail), wrong = sum(errors) / passed;
  $("rate").textContent = short(rate);
  $("late").textContent = seconds(late);
  $("wrong").textContent = short(wrong);
  plot("rates", rate);
  plot("latencies", late ?? 0);
  plot("errors", wrong);
  const methods = Object.keys(calls).filter((method) => calls[method] || inFlight[method]);
  $("methods").tBodies[0].replaceChildren(...methods.map((method) => {
    const of = (labels) => ofPail(labels) && labels.grpc_method === method;
    return row([method, short(calls[method] / passed), seconds(quantile(0.5, now, before, of)), seconds(quantile(0.99, now, before, of)), inFlight[method]]);
  }));
}

/** How far the slowest watches are behind, against what is kept for them, and where their readers are. */
async function lags(now) {
  const response = await fetch("watches.json");
  if (!response.ok) return;
  const kept = only(now, "pail_history_events_max");
  $("lags").replaceChildren(...(await response.json()).map(({ behind, peer }) => {
    const div = document.createElement("div"), meter = document.createElement("meter"), where = document.createElement("span");
    Object.assign(meter, { min: 0, max: kept, high: kept / 2, value: behind });
    where.textContent = `${peer ?? "?"}: ${short(behind)}`;
    div.append(meter, where);
    return div;
  }));
}

async function measure() {
  let last = performance.now();
  for (let looks = 1; ; looks += 1) {
    // By name it costs the server a page.
    if (looks % 3 === 0 && $("order").value === "name" && !document.hidden) show();
    try {
      const response = await fetch("metrics");
      if (!response.ok) throw new Error(await response.text());
      const now = parse(await response.text()), at = performance.now();
      look(now, (at - last) / 1000);
      await lags(now);
      [before, last] = [now, at];
    } catch (error) {
      before = null;
      state(`it does not answer: ${error.message}`, true);
    }
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}

// ---- what one can do

$("filter").addEventListener("submit", (event) => { event.preventDefault(); pages = [""]; show(); feed(); });
$("order").addEventListener("change", () => { pages = [""]; show(); });
$("first").addEventListener("click", () => { pages = [""]; show(); });
$("next").addEventListener("click", () => { pages.push($("next").dataset.token); show(); });
$("who").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value.trim());
  $("token").value = "";
  pages = [""];
  show();
  feed();
});
show();
feed();
measure();
