// Requests to the REST API. Every answer is JSON; an error is a Problem with the text that the broker gave.

export class Problem extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

const BASE = "api/v1/";

/** Sends a request and returns the decoded answer, or null if there is no content. */
export async function request(method, path, { query, body } = {}) {
  const options = { method, headers: { accept: "application/json" }, credentials: "same-origin", cache: "no-store" };
  if (method !== "GET") {
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(body ?? {});
  }
  let response;
  try {
    response = await fetch(BASE + path + toQuery(query), options);
  } catch {
    throw new Problem(0, "The broker cannot be reached.");
  }
  if (response.status === 204) return null;
  const text = await response.text();
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    throw new Problem(response.status, "The broker sent an answer that is not JSON.");
  }
  if (!response.ok) {
    throw new Problem(response.status, answer?.detail || answer?.title || `The broker answered ${response.status}.`);
  }
  return answer;
}

export const get = (path, query) => request("GET", path, { query });

/** Part of a path, with every reserved character encoded. */
export const part = (text) => encodeURIComponent(text);

function toQuery(query = {}) {
  const set = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return set.length ? "?" + new URLSearchParams(set) : "";
}

/**
 * Events of a route, until `stop` is called. A page that is hidden closes the stream and opens it again when it is
 * shown, so that it costs the broker nothing in between; one that `runsHidden` stays open.
 */
export class Stream {
  constructor(path, { query, events, event, state, runsHidden = false }) {
    this.url = BASE + path + toQuery(query);
    this.names = events;
    this.handlers = { event, state };
    this.onVisibility = () => (document.hidden ? this.close() : this.open());
    if (!runsHidden) document.addEventListener("visibilitychange", this.onVisibility);
    if (runsHidden || !document.hidden) this.open();
  }

  open() {
    if (this.source) return;
    this.source = new EventSource(this.url);
    const take = (message) => this.handlers.event(JSON.parse(message.data));
    for (const name of this.names) this.source.addEventListener(name, take);
    this.source.onopen = () => this.handlers.state?.("open");
    this.source.onerror = () => this.handlers.state?.(this.source?.readyState === EventSource.CLOSED ? "closed" : "lost");
  }

  close() {
    this.source?.close();
    this.source = null;
  }

  stop() {
    document.removeEventListener("visibilitychange", this.onVisibility);
    this.close();
  }
}
