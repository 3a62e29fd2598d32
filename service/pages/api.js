// Talks to the service. The key stays in this module's memory and goes to this service alone.
import { duration, megabytes } from "./elements.js";

const PATIENCE_MS = 60_000;
let key = "";

export const useKey = text => { key = text.trim(); };

// Shorter and plainer than the titles of statuses; the detail is the service's own.
const SHORT = {
  body_too_large: "File too large",
  deadline_exceeded: "Too late",
  image_too_large: "Image too large",
  invalid_image: "Not an image, or broken",
  overloaded: "The service is busy",
  rate_limited: "Too many requests with this key",
  unauthorized: "API key needed",
  unsupported_media_type: "Kind of file not accepted",
};

const PASSING = new Set([0, 401, 403, 408, 429]);

/** Why there is no answer, in words; `small` is for whoever looks into it, and what may pass is worth another try. */
export class Problem extends Error {
  constructor({ title, detail, status = 0, code = "", request_id: id = "" }, retryAfter = null) {
    super(detail);
    const small = code && `Status ${status} ${title}, code ${code}, request ${id}`;
    Object.assign(this, { title: SHORT[code] ?? title, detail, status, code, small, retryAfter });
    this.mayPass = PASSING.has(status) || status >= 500;
  }
}

const fromElsewhere = reply => new Problem({
  title: `Status ${reply.status} ${reply.statusText}`.trim(),
  detail: "This did not come from the service itself but from something between it and this page.",
  status: reply.status,
});

const unreachable = () => new Problem({
  title: "No connection",
  detail: "The service cannot be reached. Is it running, and are you online?",
});

const tooSlow = () => new Problem({
  title: "No answer",
  detail: `The service has not answered within ${duration(PATIENCE_MS / 1000)}.`,
});

const notAKey = () => new Problem({
  title: "Not a key",
  detail: "An API key has only letters, digits and signs of ASCII, without spaces.",
  status: 401,
});

/** Seconds of a Retry-After, which is a number or a date; null if there is none. */
const retryAfterOf = reply => {
  const text = reply.headers.get("Retry-After");
  if (text === null) return null;
  const seconds = /^\d+$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return Number.isNaN(seconds) ? null : Math.max(0, seconds);
};

const problemOf = async reply => {
  if (!reply.headers.get("Content-Type")?.startsWith("application/problem+json")) return fromElsewhere(reply);
  return new Problem(await reply.json(), retryAfterOf(reply));
};

const send = async (path, options) => {
  if (/[^\x21-\x7e]/.test(key)) throw notAKey();
  const headers = key ? { "X-API-Key": key } : {};
  const signal = AbortSignal.any([AbortSignal.timeout(PATIENCE_MS), ...(options.signal ? [options.signal] : [])]);
  return fetch(path, { ...options, headers, signal });
};

/** The JSON document at an address, or a Problem is thrown. */
export const ask = async (path, options = {}) => {
  try {
    const reply = await send(path, options);
    if (!reply.ok) throw await problemOf(reply);
    return await reply.json();
  } catch (error) {
    if (error.name === "TimeoutError") throw tooSlow();
    throw error instanceof TypeError ? unreachable() : error;
  }
};

const isThere = () => fetch("livez").then(reply => reply.ok, () => false);

const cutOff = file => new Problem({
  title: "Cut off",
  detail: `The service is there, but the connection broke during the upload of ${megabytes(file.size)}. `
    + "The file may be larger than it takes.",
});

const unreadable = () => new Problem({
  title: "Unreadable",
  detail: "Your browser cannot read this file. Is it a folder, or was it moved?",
});

/** Upload one image to `classify` or `explain`; the reply, or a Problem is thrown. `signal` ends it early. */
export const upload = async (path, file, query, signal) => {
  await file.slice(0, 1).arrayBuffer().catch(() => { throw unreadable(); });
  const body = new FormData();
  body.append("file", file);
  try {
    return await ask(`${path}?${new URLSearchParams(query)}`, { method: "POST", body, signal });
  } catch (problem) {
    if (problem.status === 413) problem.detail += ` This file has ${file.size}.`;
    throw problem.title === "No connection" && (await isThere()) ? cutOff(file) : problem;
  }
};
