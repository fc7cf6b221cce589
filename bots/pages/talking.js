// Talking with the server: posts that may be repeated safely, and a stream that comes back.

const ATTEMPTS = 5;
const LONGEST_WAIT_SECONDS = 30;
const QUIET_NOTICE_MILLISECONDS = 2500;

/** What the server refused for good; `code` is its word for why. */
export class Refused extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** The server could not be reached, or could not take it now. */
export class Unreachable extends Error {}

/** Fetch JSON. */
export async function read(path) {
  return answerOf(await reach(path, {}));
}

/**
 * Post JSON until the server has it; the body's id makes a repetition harmless.
 * `onWait(reason)` is told before each wait.
 */
export async function post(path, body, onWait = () => {}) {
  let renewed = false;
  for (let attempt = 1; ; attempt++) {
    let response = null;
    try {
      response = await reach(path, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
      });
    } catch (error) {
      if (attempt >= ATTEMPTS || !navigator.onLine) throw error;
    }
    if (response?.status === 403 && !renewed) {
      renewed = true; // the cookie is gone: ask for a new one, once
      await reach("/chat/start", {});
      continue;
    }
    if (response && response.status !== 429 && response.status < 500) return answerOf(response);
    if (attempt >= ATTEMPTS) throw new Unreachable(String(response?.status ?? "no answer"));
    onWait(response?.status === 429 ? "slowDown" : "away");
    await sleep(waitFor(response, attempt));
  }
}

/** A random id, also where the page is not served securely. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The events of the conversation; reconnects for ever, from where it was. */
export class Stream {
  constructor({ onMessage, onSentence, onStatus, onConnected, onQuiet }) {
    this.handlers = { onMessage, onSentence, onStatus, onConnected, onQuiet };
    this.source = null;
    this.failures = 0;
    this.after = 0;
  }

  get isOpen() {
    return this.source !== null;
  }

  open(after) {
    this.close();
    this.after = after;
    const source = new EventSource(`/chat/events?after=${after}`);
    this.source = source;
    source.onopen = () => this.connected();
    source.onmessage = (event) => {
      const message = JSON.parse(event.data);
      this.after = Math.max(this.after, message.position);
      this.handlers.onMessage(message);
    };
    source.addEventListener("sentence", (event) => {
      this.handlers.onSentence(JSON.parse(event.data));
    });
    source.addEventListener("status", (event) => this.handlers.onStatus(JSON.parse(event.data)));
    source.onerror = () => this.lost(source);
  }

  close() {
    this.source?.close();
    this.source = null;
    clearTimeout(this.timer);
    clearTimeout(this.notice);
  }

  connected() {
    this.failures = 0;
    clearTimeout(this.notice);
    this.notice = undefined;
    this.handlers.onConnected();
  }

  lost(source) {
    if (source !== this.source) return;
    this.notice ??= setTimeout(() => this.handlers.onQuiet(), QUIET_NOTICE_MILLISECONDS);
    // A browser reconnects by itself unless the server answered with an error.
    if (source.readyState !== EventSource.CLOSED) return;
    this.failures += 1;
    const notice = this.notice;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.notice = undefined;
      this.open(this.after);
      this.notice = notice;
    }, 1000 * Math.min(2 ** this.failures, 15));
  }
}

async function reach(path, options) {
  try {
    return await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch (error) {
    throw new Unreachable(String(error));
  }
}

async function answerOf(response) {
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  if (response.status >= 500 || response.status === 429) {
    throw new Unreachable(String(response.status));
  }
  throw new Refused(answer.error?.code ?? String(response.status), answer.error?.message ?? "");
}

function waitFor(response, attempt) {
  const asked = Number(response?.headers.get("Retry-After"));
  return Math.min(asked > 0 ? asked : 2 ** (attempt - 1), LONGEST_WAIT_SECONDS);
}

function sleep(seconds) {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}
