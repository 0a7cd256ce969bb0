// The view of bridges to other brokers.

import { get, part, request } from "./api.js";
import { attempt, bytes, confirm, count, field, h, may, show, table, time } from "./ui.js";

/** A command is carried out before it is answered; a connection that it makes is there some time later. */
const LATER_MS = 1500;

const dropped = (of) => of.dropped_unmapped + of.dropped_too_large + of.dropped_refused + of.dropped_loops + of.dropped_by_operator;
const connected = (of) => of.connections.filter((one) => one.server).length;
const stateOf = (of) => (of.connections.length > 1 ? `${of.state} (${connected(of)} of ${of.connections.length})` : of.state);
const isAmiss = (of) => !["up", "stopped", "idle"].includes(of.state);

export function bridges(element, { role }) {
  const list = h("section");
  let later = null;
  element.append(h("h1", {}, "Bridges"), h("div", { class: "actions" }, h("button", { type: "button", onclick: load }, "Refresh")), list);

  async function tell(of, command, success, reason = {}) {
    if (!(await attempt(() => request("POST", `bridges/${part(of.name)}/${command}`, { query: reason }), success))) return;
    load();
    clearTimeout(later);
    later = setTimeout(load, LATER_MS);
  }
  async function stop(of) {
    const reason = await confirm("Stop", `Bridge ${of.name} is disconnected until it is started, or the broker is. Messages for it are queued meanwhile.`, "Stop",
      [field("Reason for the audit log", "reason")]);
    if (reason) await tell(of, "stop", `Bridge ${of.name} is stopped.`, reason);
  }
  async function reconnect(of) {
    const reason = await confirm("Reconnect", `Bridge ${of.name} makes a new connection at once; the session goes on.`, "Reconnect",
      [field("Reason for the audit log", "reason")]);
    if (reason) await tell(of, "reconnect", `Bridge ${of.name} reconnects.`, reason);
  }
  const actions = (of) => h("div", { class: "actions" }, of.state === "stopped"
    ? h("button", { type: "button", onclick: () => tell(of, "start", `Bridge ${of.name} is started.`) }, "Start")
    : [h("button", { type: "button", onclick: () => reconnect(of) }, "Reconnect"), h("button", { type: "button", class: "bad", onclick: () => stop(of) }, "Stop")]);

  function load() {
    return show(list, async () => {
      const answer = await get("bridges");
      return table("Other brokers of which this one is a client; counters since its start", [
        { head: "Name", cell: (of) => of.name },
        { head: "State", cell: (of) => (isAmiss(of) ? h("span", { class: "problem" }, stateOf(of)) : stateOf(of)) },
        { head: "Server", cell: (of) => of.server ?? of.servers.join(", ") },
        { head: "Since", cell: (of) => time(of.since_s) },
        { head: "Queued", number: true, cell: (of) => (of.queued ? `${count(of.queued)} (${bytes(of.queue_bytes)})` : count(of.queued)) },
        { head: "Oldest", number: true, cell: (of) => (of.queued ? `${count(of.oldest_s)} s` : "") },
        { head: "Round trip", number: true, cell: (of) => (of.round_trip_us ? `${(of.round_trip_us / 1000).toFixed(1)} ms` : "") },
        { head: "In flight", number: true, cell: (of) => count(of.inflight) },
        { head: "Sent", number: true, cell: (of) => count(of.sent) },
        { head: "Received", number: true, cell: (of) => count(of.received) },
        { head: "Dropped", number: true, cell: (of) => count(dropped(of)) },
        { head: "Last error", cell: (of) => of.why ?? (of.last_error ? `${of.last_error} (${time(of.last_error_s)})` : "") },
        { head: "Action", cell: (of) => (may(role, "operate") ? actions(of) : "") },
      ], answer.bridges, "No bridge is configured.");
    });
  }
  load();
  return () => clearTimeout(later);
}
