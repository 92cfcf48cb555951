// What the page says to its server. The server's key, where it wants one, is kept in this module's memory alone.

let key = "";

export function useKey(text) {
  key = text.trim();
}

const BROKE = "the connection to the server broke before the answer was whole; what had come by then stays";

/** A refusal: `status` (0: not reached) and the server's words. */
export class Refused extends Error {
  constructor(status, message, code = "") {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function ask(path, body, signal) {
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  const init = { method: body === undefined ? "GET" : "POST", headers, signal };
  if (body !== undefined) init.body = JSON.stringify(body);
  let response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused(0, "the server cannot be reached");
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  const error = said.error ?? {};
  throw new Refused(response.status, error.message ?? `HTTP ${response.status}`, error.code);
}

export const get = async (path) => (await ask(path)).json();
export const post = async (path, body, signal) => (await ask(path, body, signal)).json();

/** Post, and call a function with each event of the stream that comes. */
export async function stream(path, body, onEvent, signal) {
  const response = await ask(path, body, signal);
  const reader = response.body.getReader();
  const events = new EventReader(onEvent);
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      throw signal?.aborted ? error : new Refused(0, BROKE);
    });
    if (done) break;
    events.feed(value);
  }
  events.finish();
}

/** Bytes in, however they are cut, the JSON of each event out. */
export class EventReader {
  constructor(onEvent) {
    this.onEvent = onEvent;
    this.decoder = new TextDecoder();
    this.rest = [];
    this.ended = false;
  }

  feed(bytes) {
    this.take(this.decoder.decode(bytes, { stream: true }));
  }

  finish() {
    this.take(this.decoder.decode());
    if (!this.ended) throw new Refused(0, BROKE);
  }

  take(text) {
    const end = text.lastIndexOf("\n");
    if (end < 0) {
      this.rest.push(text);
      return;
    }
    const whole = this.rest.join("") + text.slice(0, end);
    this.rest = [text.slice(end + 1)];
    for (const line of whole.split("\n")) {
      if (!line.startsWith("data: ")) continue;
      const data = line.slice(6);
      if (data === "[DONE]") this.ended = true;
      else this.onEvent(JSON.parse(data));
    }
  }
}
