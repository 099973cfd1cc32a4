// The warm process of a Node function: it imports the handler before the machine is captured, and answers one call in
// each copy of the machine. It is given and answers what runtime.py is given and answers.

import { spawn } from "node:child_process";
import crypto from "node:crypto";
import { once } from "node:events";
import fs from "node:fs";
import { createRequire, syncBuiltinESMExports } from "node:module";
import net from "node:net";
import path from "node:path";
import tls from "node:tls";
import { pathToFileURL } from "node:url";

const MOST_RESULT = 6 << 20;
const MOST_OUTPUT = 64 << 10;
const MOST_REQUEST = 32 << 20;
const MOST_VARIABLE = 100 << 10;
const given = JSON.parse(process.argv[2]);
const file = path.join(given.root, given.entrypoint);
const ours = path.dirname(process.argv[1]);

class Refusal extends Error {}

// What is printed: two files in memory.
fs.mkdirSync(given.output, { recursive: true, mode: 0o700 });
const outputs = {};
for (const name of ["stdout", "stderr"]) {
  const flags = fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_TRUNC | fs.constants.O_APPEND;
  const descriptor = (outputs[name] = fs.openSync(path.join(given.output, name), flags, 0o600));
  process[name].write = (data, encoding, done) => {
    fs.writeSync(descriptor, typeof data === "string" ? Buffer.from(data, typeof encoding === "string" ? encoding : "utf8") : data);
    const callback = typeof encoding === "function" ? encoding : done;
    if (callback) process.nextTick(callback);
    return true;
  };
}

function last(name, most = MOST_OUTPUT) {
  const size = fs.fstatSync(outputs[name]).size;
  const data = Buffer.alloc(Math.min(size, most));
  fs.readSync(outputs[name], data, 0, data.length, size - data.length);
  return data.toString("utf8");
}

// Node's generators live in the process: copies would repeat them. The kernel's generator knows of copies.
const urandom = fs.openSync("/dev/urandom", "r");

function fill(view) {
  const data = Buffer.from(view.buffer ?? view, view.byteOffset ?? 0, view.byteLength);
  for (let place = 0; place < data.length; ) place += fs.readSync(urandom, data, place, data.length - place);
  return view;
}

function randomBytes(size, done) {
  const data = fill(Buffer.alloc(size));
  if (!done) return data;
  process.nextTick(done, null, data);
}

function randomUUID() {
  const data = fill(Buffer.alloc(16));
  data[6] = (data[6] & 0x0f) | 0x40;
  data[8] = (data[8] & 0x3f) | 0x80;
  return data.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

function randomInt(low, high, done) {
  if (high === undefined || typeof high === "function") [low, high, done] = [0, low, high];
  const span = high - low;
  if (!(Number.isSafeInteger(low) && Number.isSafeInteger(high) && span > 0 && span < 2 ** 48)) throw new RangeError("out of range");
  const limit = 2 ** 48 - (2 ** 48 % span);
  let value;
  do value = fill(Buffer.alloc(6)).readUIntBE(0, 6); while (value >= limit);
  value = low + (value % span);
  if (!done) return value;
  process.nextTick(done, null, value);
}

Math.random = () => (fill(Buffer.alloc(8)).readBigUInt64BE() >> 11n).toString() / 2 ** 53;
Object.assign(crypto, { randomBytes, pseudoRandomBytes: randomBytes, randomUUID, randomInt });
crypto.randomFillSync = (view, offset = 0, size = undefined) => {
  const data = Buffer.from(view.buffer ?? view, view.byteOffset ?? 0, view.byteLength);
  fill(data.subarray(offset, size === undefined ? undefined : offset + size));
  return view;
};
crypto.randomFill = (view, ...rest) => {
  const done = rest.pop();
  process.nextTick(done, null, crypto.randomFillSync(view, ...rest));
};
for (const web of [globalThis.crypto, crypto.webcrypto]) {
  Object.defineProperty(web, "getRandomValues", { value: fill, configurable: true });
  Object.defineProperty(web, "randomUUID", { value: randomUUID, configurable: true });
}
syncBuiltinESMExports();

function traceOf(error) {
  const text = error instanceof Error ? error.stack ?? String(error) : String(error);
  return text.split("\n").filter((line) => !line.includes(ours) && !line.includes("node:internal")).join("\n").slice(-MOST_OUTPUT);
}

function told(error) {
  return (error instanceof Error ? `${error.name}: ${error.message}` : String(error)).slice(0, 1000);
}

// A program that exports nothing is a script: it is not run before there is a call.
const EXPORTS = /(^|[^.\w])(module\.exports|exports\s*[.[])|^\s*export\s/m;

async function load() {
  const source = fs.readFileSync(file, "utf8");
  if (!given.name && !EXPORTS.test(source)) return { kind: "script" };
  let exported;
  try {
    exported = createRequire(file)(file);
  } catch (error) {
    if (!["ERR_REQUIRE_ESM", "ERR_REQUIRE_ASYNC_MODULE"].includes(error?.code) && !(error instanceof SyntaxError && /^\s*(import|export)\s/m.test(source))) throw error;
    exported = await import(pathToFileURL(file));
  }
  const standard = exported.default ?? exported;
  if (given.name) {
    const target = exported[given.name] ?? standard[given.name];
    if (typeof target !== "function") throw new Refusal(`${given.entrypoint} exports no function ${given.name}`);
    return { kind: "handler", target };
  }
  const handler = exported.handler ?? standard.handler;
  if (typeof handler === "function") return { kind: "handler", target: handler };
  const fetch = exported.fetch ?? standard.fetch;
  if (typeof fetch === "function") return { kind: "fetch", target: fetch.bind(standard) };
  if (typeof standard === "function") return { kind: "handler", target: standard };
  throw new Refusal(`${given.entrypoint} exports no function handler or fetch`);
}

function asEvent(value) {
  if (value && typeof value === "object" && value.requestContext && "rawPath" in value) return value;
  return {
    rawPath: "/", rawQueryString: "", headers: { "content-type": "application/json", host: "localhost" },
    requestContext: { http: { method: "POST" } }, body: JSON.stringify(value), isBase64Encoded: false,
  };
}

const PIECE = 64 << 10;

// An answer that is sent while it is made: frames of the byte 1 and a head as JSON, then of the byte 0 and a piece.
class Streamed {
  over = false;

  constructor(connection) {
    this.connection = connection;
  }

  begin(status, headers, length) {
    const pairs = length === undefined || headers.some(([name]) => name === "content-length") ? headers : [...headers, ["content-length", String(length)]];
    return this.#send(1, Buffer.from(JSON.stringify({ statusCode: status, headers: pairs })));
  }

  async write(data) {
    if (!(data instanceof Uint8Array)) throw new Refusal("the body of a Response has a piece that is not bytes");
    for (let start = 0; start < data.length; start += PIECE) await this.#send(0, data.subarray(start, start + PIECE));
  }

  async #send(kind, data) {
    if (this.over) throw new Refusal("the call is over");
    const head = Buffer.alloc(5);
    head.writeUInt32BE(data.length + 1);
    head[4] = kind;
    if (!this.connection.write(Buffer.concat([head, data]))) await once(this.connection, "drain");
  }
}

// What is there at once is sent with its length: an answer that is whole needs no chunks.
async function pass(response, headers, isHead, stream) {
  const reader = response.body?.getReader();
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  const there = [];
  let size = 0;
  let next = reader?.read() ?? Promise.resolve({ done: true });
  let part;
  while ((part = await Promise.race([next, turn()])) && !part.done && size < PIECE) {
    there.push(part.value);
    size += part.value.length;
    next = reader.read();
  }
  const isWhole = part?.done && !isHead && ![204, 304].includes(response.status);
  await stream.begin(response.status, headers, isWhole ? size : undefined);
  for (const piece of there) await stream.write(piece);
  if (part?.done) return;
  while (!(part = await next).done) {
    await stream.write(part.value);
    next = reader.read();
  }
}

async function respond(target, value, stream) {
  const event = asEvent(value);
  const { method } = event.requestContext.http;
  const headers = new Headers(event.headers);
  if (event.cookies) headers.set("cookie", event.cookies.join("; "));
  const query = event.rawQueryString ? `?${event.rawQueryString}` : "";
  const body = ["GET", "HEAD"].includes(method) ? undefined : Buffer.from(event.body ?? "", event.isBase64Encoded ? "base64" : "utf8");
  const url = `https://${headers.get("host") ?? "localhost"}${event.rawPath}${query}`;
  const response = await target(new Request(url, { method, headers, body }));
  if (!(response instanceof Response)) throw new Refusal("fetch has not returned a Response");
  const pairs = [...response.headers].map(([name, text]) => [name, text]);
  if (stream) return pass(response, pairs, method === "HEAD", stream);
  return { statusCode: response.status, headers: pairs, body: Buffer.from(await response.arrayBuffer()).toString("base64"), isBase64Encoded: true };
}

function packed(result) {
  let text;
  try {
    text = JSON.stringify(result) ?? "null";
  } catch (error) {
    throw new Refusal(`the return value is not JSON: ${error.message.split("\n")[0]}`);
  }
  if (text.length > MOST_RESULT) throw new Refusal(`the return value is over ${MOST_RESULT} bytes`);
  return text;
}

function script(text, seconds) {
  return new Promise((resolve, reject) => {
    const input = path.join(given.output, "input");
    fs.writeFileSync(input, text, { mode: 0o600 });
    const argv = [given.entrypoint];
    const child = spawn(process.execPath, argv, { cwd: given.root, detached: true, stdio: [fs.openSync(input, "r"), outputs.stdout, outputs.stderr] });
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      process.kill(-child.pid, "SIGKILL");
    }, seconds * 1000);
    child.on("error", reject);
    child.on("exit", (code, signal) => {
      clearTimeout(timer);
      resolve(late ? null : code ?? -({ SIGKILL: 9, SIGTERM: 15, SIGSEGV: 11, SIGABRT: 6 }[signal] ?? 1));
    });
  });
}

// Node reads its additional authorities when it starts, and that was before the capture.
function trust(name) {
  let added;
  try {
    added = fs.readFileSync(name, "utf8");
  } catch {
    return;
  }
  const make = tls.createSecureContext;
  tls.createSecureContext = (options, ...rest) => {
    const made = make(options, ...rest);
    if (!options?.ca && !options?.secureContext) made.context.addCACert(added);
    return made;
  };
  syncBuiltinESMExports();
}

async function outcome(made, request, stream) {
  Object.assign(process.env, request.env);
  if (request.env.NODE_EXTRA_CA_CERTS) trust(request.env.NODE_EXTRA_CA_CERTS);
  const text = JSON.stringify(request.event ?? null);
  if (Buffer.byteLength(text) <= MOST_VARIABLE) process.env.PANDASTACK_INPUT = text;
  const seconds = request.timeout_seconds;
  if (made.kind === "script") {
    const code = await script(request.body ?? text, seconds);
    if (code === null) return { status: "timeout", error: "the time is over" };
    if (code) return { status: "error", exit_code: code, error: `exit code ${code}` };
    if (fs.fstatSync(outputs.stdout).size > MOST_RESULT) throw new Refusal(`the output is over ${MOST_RESULT} bytes`);
    return { status: "success", exit_code: 0, body: last("stdout", MOST_RESULT) };
  }
  const { context: c } = request;
  const end = performance.now() + seconds * 1000;
  const context = {
    functionId: c.function_id, functionName: c.function_name, functionVersion: String(c.version), runId: c.run_id,
    awsRequestId: c.run_id, memoryLimitInMB: c.memory_mb, schedule: c.schedule, attempt: c.attempt ?? 1,
    getRemainingTimeInMillis: () => Math.max(0, Math.floor(end - performance.now())),
  };
  const over = Symbol("over");
  let timer;
  const late = new Promise((resolve) => (timer = setTimeout(resolve, seconds * 1000, over)));
  let stop;
  const broken = new Promise((_, reject) => (stop = reject));
  process.on("uncaughtException", stop);
  process.on("unhandledRejection", stop);
  try {
    const work = (async () => (made.kind === "handler" ? made.target(request.event, context) : respond(made.target, request.event, stream)))();
    const result = await Promise.race([work, late, broken]);
    if (result === over) return { status: "timeout", error: "the time is over" };
    if (stream) return { status: "success", exit_code: 0 };
    return { status: "success", exit_code: 0, result: packed(result) };
  } finally {
    if (stream) stream.over = true;
    clearTimeout(timer);
    process.off("uncaughtException", stop);
    process.off("unhandledRejection", stop);
  }
}

function peak() {
  const line = /VmHWM:\s+(\d+)/.exec(fs.readFileSync("/proc/self/status", "utf8"));
  return line ? Math.round((line[1] / 1024) * 10) / 10 : null;
}

async function answer(made, request, stream) {
  for (const descriptor of Object.values(outputs)) fs.ftruncateSync(descriptor, 0);
  try {
    fs.writeFileSync("/proc/self/clear_refs", "5");
  } catch {}
  const began = performance.now();
  const before = process.cpuUsage();
  let result;
  try {
    result = await outcome(made, request, stream);
  } catch (error) {
    result = { status: "error", exit_code: 1, error: error instanceof Refusal ? error.message : told(error) };
    if (!(error instanceof Refusal)) result.traceback = traceOf(error);
  }
  const used = process.cpuUsage(before);
  return {
    ...result, stdout: last("stdout"), stderr: last("stderr"),
    duration_ms: Math.round((performance.now() - began) * 10) / 10,
    cpu_seconds: Math.round((used.user + used.system) / 1000) / 1000, peak_memory_mb: peak(),
  };
}

async function answered(made, request, stream) {
  return "check" in request ? { draws: draws(), values: values(request.check) } : answer(made, request, stream);
}

function serve(made) {
  return net.createServer((connection) => {
    let data = Buffer.alloc(0);
    connection.on("error", () => {});
    connection.on("data", async (piece) => {
      data = Buffer.concat([data, piece]);
      if (data.length < 4) return;
      const length = data.readUInt32BE(0);
      if (length > MOST_REQUEST) return connection.destroy();
      if (data.length < 4 + length) return;
      const request = JSON.parse(data.subarray(4, 4 + length));
      const stream = request.stream && made.kind === "fetch" ? new Streamed(connection) : undefined;
      const text = JSON.stringify(await answered(made, request, stream)).toWellFormed?.();
      const body = Buffer.from(text);
      const head = Buffer.alloc(4);
      head.writeUInt32BE(body.length);
      connection.end(Buffer.concat([head, body]));
    });
  });
}

// For a comparison of two copies: what this one draws, and what modules of the function export that looks unique.
const hash = (text) => crypto.createHash("sha256").update(text).digest("hex").slice(0, 32);

function draws() {
  return {
    "Math.random": String(Math.random()), "crypto.randomBytes": crypto.randomBytes(16).toString("hex"),
    "crypto.randomUUID": crypto.randomUUID(), "crypto.getRandomValues": Buffer.from(globalThis.crypto.getRandomValues(new Uint8Array(16))).toString("hex"),
  };
}

const UNIQUE = /^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?=.*[a-f])(?=.*\d)[0-9a-f]{16,128}|(?=.*[A-Z])(?=.*[a-z])(?=.*\d)[\w+/-]{20,128}={0,2})$/;

function values(root) {
  const found = {};
  const cache = createRequire(file).cache;
  for (const [name, module] of Object.entries(cache)) {
    if (!name.startsWith(root + path.sep) || name.includes("/node_modules/")) continue;
    try {
      const source = fs.readFileSync(name, "utf8");
      for (const [key, { value }] of Object.entries(Object.getOwnPropertyDescriptors(module.exports ?? {}))) {
        if (typeof value !== "string" || !UNIQUE.test(value) || source.includes(value)) continue;
        if (Object.keys(found).length < 50) found[`${path.relative(root, name)}: ${key}`.slice(0, 150)] = hash(value);
      }
    } catch {} // exports may be anything
  }
  return found;
}

// Connections over the network that are open now, as the kernel lists them.
function sockets() {
  const mine = new Set();
  for (const name of fs.readdirSync("/proc/self/fd")) {
    try {
      mine.add(/^socket:\[(\d+)\]$/.exec(fs.readlinkSync(`/proc/self/fd/${name}`))?.[1]);
    } catch {}
  }
  const found = [];
  for (const kind of ["tcp", "udp"]) {
    for (const line of fs.readFileSync(`/proc/net/${kind}`, "utf8").split("\n").slice(1)) {
      const [, , remote, , , , , , , inode] = line.trim().split(/\s+/);
      const [address, port] = (remote ?? "").split(":");
      if (!mine.has(inode) || !Number.parseInt(port, 16)) continue;
      const bytes = [...Buffer.from(address, "hex")].reverse();
      found.push(`${kind} to ${bytes.join(".")}:${Number.parseInt(port, 16)}`);
    }
  }
  return found.slice(0, 20);
}

function report(message) {
  fs.writeSync(3, JSON.stringify(message));
  fs.closeSync(3);
}

process.chdir(given.root);
process.argv.splice(1, 2, file);
let made;
try {
  made = await load();
} catch (error) {
  const why = error instanceof Refusal ? error.message : told(error);
  report({ error: why, traceback: error instanceof Refusal ? why : traceOf(error), stderr: last("stderr") });
  process.exit(1);
}
serve(made).listen(given.socket, () => {
  fs.chmodSync(given.socket, 0o600);
  const connections = sockets();
  report(connections.length ? { kind: made.kind, sockets: connections } : { kind: made.kind });
});
