// The views of the page. Each is a function that fills the element it is given, and may return a function that
// ends the view, which is called before another view is shown.

import { get, part, request, Stream } from "./api.js";
import { attempt, bytes, Chart, compact, confirm, count, duration, facts, field, h, may, notify, show, table, time, values } from "./ui.js";

const PAGE = 100;

const clientLink = (id) => h("a", { href: `#/clients/${part(id)}` }, id === "" ? "(empty)" : id);
const yesNo = (value) => (value ? "yes" : "no");

// Overview

/** The samples of the last minutes; they outlive the view, so that charts are full when it is shown again. */
class Samples extends Array {
  static get [Symbol.species]() {
    return Array;
  }
  capacity = 300;
  add(sample) {
    this.push(sample);
    if (this.length > this.capacity) this.shift();
  }
}

const samples = new Samples();
const rate = (name) => (sample) => sample.rates[name];

const CHARTS = [
  ["Messages a second", [{ name: "in", value: rate("received") }, { name: "out", value: rate("sent") }], compact],
  ["Latency of a message", [{ name: "P50", value: (s) => s.latency?.p50_s }, { name: "P99", value: (s) => s.latency?.p99_s }], duration],
  ["Clients", [{ name: "connected", value: (s) => s.clients_connected }, { name: "connections", value: (s) => s.connections }], compact],
  ["Dropped a second", [{ name: "messages", value: rate("dropped") }], compact],
  ["Bytes a second", [{ name: "in", value: rate("bytes_received") }, { name: "out", value: rate("bytes_sent") }], bytes, 1024],
  ["Memory", [{ name: "messages, queues, outboxes", value: (s) => s.memory_bytes }], bytes, 1024],
];

export function overview(element, { health }) {
  const charts = CHARTS.map(([title, series, format, least]) => new Chart(title, series, format, samples, least));
  const tiles = h("dl", { class: "tiles" });
  const [drops, cores, listeners, store] = [h("section"), h("section"), h("section"), h("section")];
  element.append(h("h1", {}, "Overview"), tiles, h("div", { class: "charts" }, charts.map((chart) => chart.element)), drops, cores, listeners, store);
  const stream = new Stream("stream", {
    events: ["sample"],
    event: (sample) => {
      samples.add(sample);
      health(sample);
      charts.forEach((chart) => chart.update());
      tiles.replaceChildren(...toTiles(sample));
      drops.replaceChildren(h("h2", {}, "Drops by cause"), dropTable(sample));
      cores.replaceChildren(h("h2", {}, "Cores"), coreTable(sample));
    },
    state: (state) => state !== "open" && health(null),
  });
  show(listeners, async () => [h("h2", {}, "Listeners"), listenerTable((await get("listeners")).listeners)]);
  show(store, async () => [h("h2", {}, "Store"), storeFacts(await get("store"))]);
  charts.forEach((chart) => chart.update());
  return () => stream.stop();
}

function toTiles(sample) {
  const tile = (name, value, more, isBad) =>
    h("div", { class: "tile" }, h("dt", {}, name), h("dd", { class: isBad && "bad" }, value, more && h("small", {}, more)));
  const share = sample.memory_bytes_max ? sample.memory_bytes / sample.memory_bytes_max : 0;
  return [
    tile("Clients", count(sample.clients_connected), `${count(sample.clients_disconnected)} sessions without a connection`),
    tile("Messages in", `${compact(sample.rates.received)}/s`),
    tile("Messages out", `${compact(sample.rates.sent)}/s`),
    tile("Latency P99", sample.latency ? duration(sample.latency.p99_s) : "–", "from PUBLISH to its last delivery"),
    tile("Queued", count(sample.messages_queued)),
    tile("Dropped", count(sample.messages_dropped), `${compact(sample.rates.dropped)}/s`, sample.rates.dropped > 0),
    tile("Memory", bytes(sample.memory_bytes), `${Math.round(share * 100)} % of ${bytes(sample.memory_bytes_max)}`, share > 0.9),
    tile("Subscriptions", count(sample.subscriptions)),
    tile("Retained", count(sample.retained_messages)),
    tile("Store", sample.store_failing ? "failing" : sample.store_full ? "full" : bytes(sample.store_bytes), null, sample.store_failing || sample.store_full),
    tile("Uptime", duration(sample.uptime_s)),
  ];
}

const dropTable = (sample) =>
  table("Messages dropped since the start", [
    { head: "Cause", cell: ([cause]) => cause },
    { head: "Messages", number: true, cell: ([, messages]) => count(messages) },
  ], Object.entries(sample.drops).filter(([, messages]) => messages > 0), "No message has been dropped.");

const coreTable = (sample) =>
  table("Each core is one thread", [
    { head: "Core", cell: (core) => core.core },
    { head: "State", cell: (core) => (core.responsive ? "responsive" : h("span", { class: "problem" }, "no answer")) },
    { head: "Busy", number: true, cell: (core) => (core.busy === null || core.busy === undefined ? "–" : `${Math.round(core.busy * 100)} %`) },
    { head: "Connections", number: true, cell: (core) => count(core.connections) },
    { head: "Memory", number: true, cell: (core) => bytes(core.memory_bytes) },
  ], sample.cores);

const listenerTable = (listeners) =>
  table("Addresses that clients connect to", [
    { head: "Number", cell: (of) => of.listener },
    { head: "Address", cell: (of) => of.address },
    { head: "Transport", cell: (of) => of.transport },
  ], listeners);

const storeFacts = (of) =>
  of.folder
    ? facts([["Folder", of.folder], ["Synchronised", of.sync], ["Size", bytes(of.bytes)], ["Limit", of.bytes_max ? bytes(of.bytes_max) : "the disk"],
        ["Synchronisations", count(of.syncs)], ["State", of.failing ? "failing" : of.full ? "full" : "in order"]])
    : h("p", {}, "Nothing is stored: sessions and retained messages end with the broker.");

// Clients

const ORDERS = [["queued", "queued messages"], ["dropped", "dropped messages"], ["inflight", "messages in flight"],
  ["outbox", "bytes unread by the client"], ["bytes_in", "bytes in"], ["bytes_out", "bytes out"]];

export function clients(element) {
  const list = h("div", { id: "client-list" });
  const form = h("form", { role: "search", onsubmit: (event) => { event.preventDefault(); load(); } },
    field("Client Identifier begins with", "id_prefix"),
    field("User", "user"),
    field("Address or network", "address", { placeholder: "10.0.0.0/8" }),
    field("State", "state", { options: [["", "all"], ["connected", "connected"], ["disconnected", "disconnected"]] }),
    field("Worst first by", "by", { options: [["", "unsorted"], ...ORDERS], value: "queued", onchange: () => load() }),
    h("button", { type: "submit" }, "Show"));
  element.append(h("h1", {}, "Clients"), form, list);

  function load() {
    const { by, ...filter } = values(form);
    const isFiltered = Object.values(filter).some(Boolean);
    return isFiltered || !by ? show(list, () => listing(filter, by)) : show(list, () => top(by));
  }

  async function top(by) {
    const answer = await get("clients/top", { by, n: PAGE });
    const what = new Map(ORDERS).get(by);
    return [clientTable(`Clients with the most ${what}: ${count(answer.looked_at)} sessions examined in ${duration(answer.took_ms / 1000)}`,
      answer.clients.map((of) => of.client), `No client has ${what}.`), !answer.complete && h("p", { class: "problem" }, "The search took too long and is not complete.")].filter(Boolean);
  }

  async function listing(filter, by) {
    const rows = h("div");
    const found = [];
    const more = h("button", { type: "button", onclick: () => next() }, "More");
    let cursor = null;
    async function next() {
      const answer = await get("clients", { ...filter, limit: PAGE, cursor });
      found.push(...answer.clients);
      if (by) found.sort((a, b) => valueOf(b, by) - valueOf(a, by));
      cursor = answer.next;
      more.hidden = !cursor;
      rows.replaceChildren(clientTable(`${count(found.length)} clients${cursor ? " so far" : ""}`, found, "No client matches."));
    }
    await next();
    return [rows, more];
  }
  load();
}

const valueOf = (client, by) => client[{ outbox: "outbox_bytes" }[by] ?? by];

const clientTable = (caption, rows, empty) =>
  table(caption, [
    { head: "Client Identifier", cell: (of) => clientLink(of.client_id) },
    { head: "User", cell: (of) => of.user ?? "" },
    { head: "State", cell: (of) => of.state },
    { head: "Address", cell: (of) => of.address ?? "" },
    { head: "Version", cell: (of) => of.version ?? "" },
    { head: "Subscriptions", number: true, cell: (of) => count(of.subscriptions) },
    { head: "Queued", number: true, cell: (of) => count(of.queued) },
    { head: "In flight", number: true, cell: (of) => count(of.inflight) },
    { head: "Dropped", number: true, cell: (of) => count(of.dropped) },
    { head: "Unread", number: true, cell: (of) => bytes(of.outbox_bytes) },
    { head: "In", number: true, cell: (of) => bytes(of.bytes_in) },
    { head: "Out", number: true, cell: (of) => bytes(of.bytes_out) },
  ], rows, empty);

export function client(element, { role }, id) {
  const path = `clients/${part(id)}`;
  const detail = h("section");
  const [subscriptions, queue, inflight] = [h("section"), h("section"), h("section")];
  const refresh = () => show(detail, async () => [h("h2", {}, "Client"), clientFacts(await get(path))]);
  const actions = h("div", { class: "actions" },
    h("button", { type: "button", onclick: loadAll }, "Refresh"),
    may(role, "operate") && h("a", { href: `#/trace?client=${part(id)}` }, "Trace"),
    may(role, "operate") && h("button", { type: "button", class: "bad", onclick: kick }, "Disconnect"),
    may(role, "operate") && h("button", { type: "button", class: "bad", onclick: () => ban({ client: id }) }, "Ban"),
    may(role, "admin") && h("button", { type: "button", class: "bad", onclick: end }, "End session"));

  async function kick() {
    const reason = await confirm("Disconnect", `${id} is sent DISCONNECT (0x98, administrative action); its Will is published.`, "Disconnect",
      [field("Reason for the audit log", "reason")]);
    if (reason && (await attempt(() => request("DELETE", `${path}/connection`, { query: reason }), `${id} has been disconnected.`))) refresh();
  }
  async function end() {
    const isSure = await confirm("End session", `The session of ${id}, with its subscriptions and queued messages, is deleted.`, "End session");
    if (isSure && (await attempt(() => request("DELETE", `${path}/session`), `The session of ${id} has ended.`))) location.hash = "#/clients";
  }
  async function unsubscribe(filter) {
    const isSure = await confirm("End subscription", `${id} receives no more messages of ${filter}, and is not informed.`, "End subscription");
    if (isSure && (await attempt(() => request("DELETE", `${path}/subscriptions`, { query: { filter } }), "The subscription has ended."))) loadSubscriptions();
  }
  const loadSubscriptions = () => show(subscriptions, async () => {
    const answer = await get(`${path}/subscriptions`, { limit: PAGE });
    return [h("h2", {}, "Subscriptions"), table(`Subscriptions of ${id}`, [
      ...subscriptionColumns.slice(1),
      { head: "Action", cell: (of) => may(role, "operate") && h("button", { type: "button", onclick: () => unsubscribe(of.filter) }, "End") || "" },
    ], answer.subscriptions, "No subscription."), answer.next && h("p", { class: "quiet" }, `The first ${PAGE} are shown.`)].filter(Boolean);
  });
  function loadAll() {
    refresh();
    loadSubscriptions();
    show(queue, async () => {
      const answer = await get(`${path}/queue`, { limit: PAGE });
      return [h("h2", {}, "Queue"), messageTable(`${count(answer.queued)} messages, ${bytes(answer.queue_bytes)}`, answer.messages.map((of) => of.message))];
    });
    show(inflight, async () => {
      const answer = await get(`${path}/inflight`, { limit: PAGE });
      return [h("h2", {}, "In flight"), messageTable(`${count(answer.inflight)} messages`, answer.messages.map((of) => ({ ...of, ...of.message })),
        [{ head: "Packet Identifier", cell: (of) => of.packet_id }, { head: "Stage", cell: (of) => of.stage }])];
    });
  }
  element.append(h("h1", {}, id), h("p", {}, h("a", { href: "#/clients" }, "All clients")), actions, detail, subscriptions, queue, inflight);
  loadAll();
}

function clientFacts(of) {
  const connection = of.connection ?? {};
  return facts([
    ["State", of.state], ["User", of.user], ["Address", of.address], ["Listener", of.listener], ["Version", of.version], ["Core", of.core],
    ["TLS", of.connection && yesNo(connection.tls)],
    ["Keep Alive", of.connection && (connection.keep_alive_s ? duration(connection.keep_alive_s) : "off")],
    ["Last packet", of.connection && `${duration(connection.last_packet_ms / 1000)} ago`],
    ["Receive window", connection.window], ["Maximum Packet Size", connection.maximum_packet_size && bytes(connection.maximum_packet_size)],
    ["Reading paused by", connection.paused_by?.length ? connection.paused_by.join(", ") : null],
    ["Behind", of.connection && yesNo(connection.is_behind)], ["Stuck", of.connection && yesNo(connection.is_stuck)],
    ["Session Expiry Interval", of.session_expiry_interval_s === null ? "never" : duration(of.session_expiry_interval_s)],
    ["Session ends in", of.expires_in_s !== undefined ? duration(of.expires_in_s) : null],
    ["Stored", yesNo(of.is_stored)],
    ["Queued", `${count(of.queued)} messages, ${bytes(of.queue_bytes)}`],
    ["Oldest queued", of.queue_oldest && `${of.queue_oldest.topic} (${bytes(of.queue_oldest.payload_bytes)})`],
    ["In flight", Object.entries(of.inflight_by_stage).map(([stage, messages]) => `${stage} ${messages}`).join(", ")],
    ["Unread by the client", bytes(of.outbox_bytes)],
    ["Bytes in / out", `${bytes(of.bytes_in)} / ${bytes(of.bytes_out)}`],
    ["Dropped", Object.entries(of.dropped_by_cause).map(([cause, messages]) => `${cause} ${count(messages)}`).join(", ") || "0"],
    ["Will", of.will && `${of.will.topic} (QoS ${of.will.qos}${of.will.retain ? ", RETAIN" : ""}, ${bytes(of.will.payload_bytes)})`],
  ]);
}


const messageTable = (caption, messages, first = []) =>
  table(caption, [...first,
    { head: "Topic", cell: (of) => of.topic ?? "" },
    { head: "QoS", number: true, cell: (of) => of.qos ?? "" },
    { head: "RETAIN", cell: (of) => (of.topic === undefined ? "" : yesNo(of.retain)) },
    { head: "Payload", number: true, cell: (of) => (of.payload_bytes === undefined ? "" : bytes(of.payload_bytes)) },
    { head: "Expires in", number: true, cell: (of) => (of.expires_in_s === undefined ? "" : duration(of.expires_in_s)) },
  ], messages, "No message.");

const subscriptionColumns = [
  { head: "Client Identifier", cell: (of) => clientLink(of.client_id) },
  { head: "Topic Filter", cell: (of) => of.filter },
  { head: "QoS", number: true, cell: (of) => of.qos },
  { head: "No Local", cell: (of) => yesNo(of.no_local) },
  { head: "Retain As Published", cell: (of) => yesNo(of.retain_as_published) },
  { head: "Identifier", number: true, cell: (of) => of.identifier ?? "" },
];

// Topics: retained messages as a tree

export function retained(element, { role }) {
  const list = h("section");
  const message = h("section", { hidden: true, tabindex: "-1" });
  const form = h("form", { role: "search", onsubmit: (event) => { event.preventDefault(); load(); } },
    field("Topic Filter", "filter", { value: "#" }), h("button", { type: "submit" }, "Show"),
    may(role, "admin") && h("button", { type: "button", class: "bad", onclick: clear }, "Delete matching"));
  element.append(h("h1", {}, "Topics"), h("p", { class: "quiet" }, "Topics with a retained message."), form, list, message);

  function load() {
    const { filter } = values(form);
    const found = [];
    let cursor = null;
    const tree = h("div");
    const more = h("button", { type: "button", onclick: () => next().catch((problem) => notify(problem.message)) }, "More");
    async function next() {
      const answer = await get("retained", { filter, limit: 1000, cursor });
      found.push(...answer.messages);
      cursor = answer.next;
      more.hidden = !cursor;
      tree.replaceChildren(h("p", {}, `${count(found.length)} of ${count(answer.retained)} retained messages`), toTree(found, open));
    }
    return show(list, async () => { await next(); return [tree, more]; });
  }

  async function open(topic) {
    if (!may(role, "operate")) {
      notify("The role operate may read payloads.");
      return;
    }
    message.hidden = false;
    await show(message, async () => {
      const of = await get(`retained/${topic.split("/").map(part).join("/")}`);
      return [h("h2", {}, topic),
        facts([["QoS", of.message.qos], ["Payload", bytes(of.message.payload_bytes)], ["Content Type", of.content_type], ["Response Topic", of.response_topic],
          ["Expires in", of.message.expires_in_s !== undefined ? duration(of.message.expires_in_s) : null],
          ...of.user_properties.map(([name, value]) => [`User Property ${name}`, value])]),
        h("h3", {}, of.payload.text === undefined ? "Payload in base64" : "Payload"),
        h("pre", { tabindex: "0", role: "region", "aria-label": "Payload" }, of.payload.text ?? of.payload.base64),
        may(role, "admin") && h("div", { class: "actions" }, h("button", { type: "button", class: "bad", onclick: () => remove(topic) }, "Delete"))].filter(Boolean);
    });
    message.focus();
  }

  async function remove(topic) {
    const isSure = await confirm("Delete retained message", topic, "Delete");
    if (!isSure) return;
    if (await attempt(() => request("DELETE", `retained/${topic.split("/").map(part).join("/")}`), "The retained message has been deleted.")) {
      message.hidden = true;
      load();
    }
  }

  async function clear() {
    const { filter } = values(form);
    const answer = await confirm("Delete retained messages", `Retained messages that match ${filter} are deleted.`, "Delete",
      [field("At most", "max", { type: "number", value: "1000", min: "1" })]);
    if (answer && (await attempt(() => request("DELETE", "retained", { query: { filter, max: answer.max } }), (of) => `${count(of.removed)} retained messages have been deleted.`))) load();
  }
  load();
}

/** Messages by the levels of their topics. A branch is filled when it is opened. */
function toTree(messages, open) {
  const root = new Map();
  for (const message of messages) {
    let branch = root;
    const levels = message.topic.split("/");
    levels.forEach((level, index) => {
      if (!branch.has(level)) branch.set(level, { below: new Map(), message: null });
      if (index === levels.length - 1) branch.get(level).message = message;
      branch = branch.get(level).below;
    });
  }
  const leaf = (level, message) => h("button", { type: "button", onclick: () => open(message.topic) }, `${level === "" ? "(empty)" : level}, ${bytes(message.payload_bytes)}`);
  const items = (branch) => h("ul", { class: "tree" }, [...branch].map(([level, { below, message }]) => {
    if (!below.size) return h("li", {}, leaf(level, message));
    const content = h("div");
    const fill = (event) => event.currentTarget.open && !content.firstChild && content.append(...(message ? [leaf(level, message)] : []), items(below));
    return h("li", {}, h("details", { ontoggle: fill }, h("summary", {}, `${level === "" ? "(empty)" : level} (${count(below.size)})`), content));
  }));
  return messages.length ? items(root) : h("p", { class: "quiet" }, "No retained message matches.");
}

// Subscriptions

export function subscriptions(element) {
  const list = h("section");
  const form = h("form", { role: "search", onsubmit: (event) => { event.preventDefault(); load(); } },
    field("Topic Name: who receives a message published to", "topic", { placeholder: "all subscriptions" }), h("button", { type: "submit" }, "Show"));
  element.append(h("h1", {}, "Subscriptions"), form, list);

  const load = () => show(list, () => (values(form).topic ? recipients(values(form).topic) : listing()));

  async function recipients(topic) {
    const answer = await get("subscriptions", { topic, limit: 1000 });
    return [table(`${count(answer.matching)} subscriptions match ${topic}; one member of each shared subscription receives a message`,
      [...subscriptionColumns, { head: "Connected", cell: (of) => yesNo(of.is_connected) }], answer.subscriptions, "Nobody would receive the message.")];
  }

  async function listing() {
    const found = [];
    let cursor = null;
    const rows = h("div");
    const more = h("button", { type: "button", onclick: () => next().catch((problem) => notify(problem.message)) }, "More");
    async function next() {
      const answer = await get("subscriptions", { limit: PAGE, cursor });
      found.push(...answer.subscriptions);
      cursor = answer.next;
      more.hidden = !cursor;
      rows.replaceChildren(table(`${count(found.length)} subscriptions${cursor ? " so far" : ""}`, subscriptionColumns, found, "No subscription."));
    }
    await next();
    return [rows, more];
  }
  load();
}

// Bans

async function ban(what) {
  const [kind, value] = Object.entries(what)[0];
  const answer = await confirm("Ban", `${kind} ${value} is disconnected and refused with reason code 0x8A.`, "Ban",
    [field("Hours (empty: without end)", "hours", { type: "number", min: "0", step: "any" }), field("Reason", "reason")]);
  if (!answer) return false;
  const body = { ...what, reason: answer.reason, ...(answer.hours ? { seconds: Math.round(Number(answer.hours) * 3600) } : {}) };
  return attempt(() => request("POST", "bans", { body }), `${value} is banned.`);
}

export function bans(element, { role }) {
  const list = h("section");
  const form = h("form", { onsubmit: add },
    field("Kind", "kind", { options: [["client", "Client Identifier"], ["user", "User"], ["network", "Address or network"]] }),
    field("Value", "value", { required: true }), h("button", { type: "submit" }, "Ban"));
  element.append(h("h1", {}, "Bans"), may(role, "operate") ? form : h("p", { class: "quiet" }, "The role operate may change bans."), list);

  async function add(event) {
    event.preventDefault();
    const { kind, value } = values(form);
    if (await ban({ [kind]: value })) load();
  }
  async function lift(of) {
    if (await attempt(() => request("DELETE", "bans", { query: target(of) }), "The ban has been lifted.")) load();
  }
  const load = () => show(list, async () => {
    const answer = await get("bans");
    return table("Bans in force; they outlive a restart", [
      { head: "Kind", cell: (of) => Object.keys(target(of))[0] },
      { head: "Value", cell: (of) => Object.values(target(of))[0] },
      { head: "Until", cell: (of) => (of.until_s ? time(of.until_s) : "without end") },
      { head: "Reason", cell: (of) => of.reason ?? "" },
      { head: "Action", cell: (of) => may(role, "operate") && h("button", { type: "button", onclick: () => lift(of) }, "Lift") || "" },
    ], answer.bans, "Nobody is banned.");
  });
  load();
}

const target = ({ client, user, network }) => Object.fromEntries(Object.entries({ client, user, network }).filter(([, value]) => value));

// Configuration

export function config(element, { role }) {
  const [list, outcome, log] = [h("section"), h("div", { role: "status" }), h("section")];
  const actions = may(role, "operate") && h("div", { class: "actions" },
    h("button", { type: "button", onclick: () => reload(true) }, "Check the files"),
    h("button", { type: "button", onclick: () => reload(false) }, "Reload"));
  element.append(h("h1", {}, "Configuration"), ...[actions].filter(Boolean), outcome, log, list);

  async function reload(isDryRun) {
    await show(outcome, async () => {
      const answer = await request("POST", "reload", { query: isDryRun ? { dry_run: true } : {} });
      const line = ({ key, running, wanted }) => `${key}: ${JSON.stringify(running)} → ${JSON.stringify(wanted)}`;
      const part = (title, entries, format) => [h("h2", {}, title), entries.length ? h("ul", {}, entries.map((of) => h("li", {}, format(of)))) : h("p", { class: "quiet" }, "none")];
      return [h("section", {}, part(isDryRun ? "Would change" : "Changed", answer.applied, line), part("Needs a restart", answer.needs_restart, line),
        part("Errors", answer.errors, (of) => [of.file, of.line, of.key].filter(Boolean).join(":") + `: ${of.what}`))];
    });
    if (!isDryRun) load();
  }
  async function setLevel(event) {
    event.preventDefault();
    const { level, seconds } = values(event.currentTarget);
    await attempt(() => request("PUT", "log", { body: { level, ...(seconds ? { seconds: Number(seconds) } : {}) } }), `The log level is ${level}.`);
  }
  show(log, async () => {
    const { level } = await get("log");
    return [h("h2", {}, "Log"), may(role, "operate")
      ? h("form", { onsubmit: setLevel },
          field("Level", "level", { options: ["error", "warn", "info", "debug", "trace"].map((name) => [name, name]), value: level }),
          field("Seconds, then back", "seconds", { type: "number", min: "1", value: "600" }), h("button", { type: "submit" }, "Set"))
      : h("p", {}, `Level ${level}`)];
  });
  const load = () => show(list, async () => {
    const { settings } = await get("config");
    return [h("h2", {}, "Effective values"), table("Values with their origin", [
      { head: "Key", cell: (of) => of.key },
      { head: "Value", cell: (of) => (typeof of.value === "string" ? of.value : JSON.stringify(of.value)) },
      { head: "Origin", cell: ({ origin }) => ({ file: () => `${origin.file}:${origin.line}`, environment: () => origin.variable, flag: () => origin.flag })[origin.kind]?.() ?? "default" },
      { head: "Changes", cell: (of) => (of.live ? "on reload" : "with a restart") },
    ], settings)];
  });
  load();
}

// Trace

/** Rows of the latest events that are kept. */
const TRACED = 1000;

export function trace(element, { role, query }) {
  if (!may(role, "operate")) {
    element.append(h("h1", {}, "Trace"), h("p", {}, "The role operate may trace clients."));
    return null;
  }
  const rows = h("tbody");
  const state = h("p", { role: "status", class: "quiet" }, "Stopped.");
  const stopButton = h("button", { type: "button", disabled: true, onclick: () => stop(`Stopped after ${count(shown)} events.`) }, "Stop");
  const form = h("form", { class: "filters", onsubmit: start },
    field("Client Identifier", "client", { value: query.get("client") ?? "" }),
    field("Topic Filter", "topic", { value: query.get("topic") ?? "" }),
    field("Address or network", "address", { value: query.get("address") ?? "" }),
    field("Payload bytes", "payload", { type: "number", min: "0", max: "65536", value: "0" }),
    field("Seconds", "seconds", { type: "number", min: "1", max: "3600", value: "60" }),
    h("button", { type: "submit" }, "Start"), stopButton);
  const heads = ["Time", "Client", "Direction", "Packet", "Topic", "Details"];
  element.append(h("h1", {}, "Trace"), form, state,
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Packets" },
      h("table", {}, h("caption", {}, `Packets and dropped messages, the latest first; the last ${count(TRACED)} are kept`),
        h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))), rows)));
  let stream = null;
  let [shown, missed] = [0, 0];

  function start(event) {
    event.preventDefault();
    stop("Waiting for packets.");
    [shown, missed] = [0, 0];
    rows.replaceChildren();
    stopButton.disabled = false;
    stream = new Stream("trace", {
      query: values(form),
      events: ["packet", "drop", "missed", "end"],
      runsHidden: true,
      event: take,
      // A stream that is closed was refused, or cut: it does not begin again by itself.
      state: (name) => name !== "open" && stop(shown ? `Cut after ${count(shown)} events.` : "Refused: check the fields; at most four traces run at a time."),
    });
  }
  function take(of) {
    if (of.event === "end") return stop(`Ended after ${count(of.events)} events${gaps()}.`);
    if (of.event === "missed") missed += of.events;
    else {
      shown += 1;
      rows.prepend(traceRow(of));
      while (rows.childElementCount > TRACED) rows.lastElementChild.remove();
    }
    state.textContent = `${count(shown)} events${gaps()}`;
    return undefined;
  }
  const gaps = () => (missed ? `; ${count(missed)} were missed because too many came at once` : "");
  function stop(text) {
    stream?.stop();
    stream = null;
    stopButton.disabled = true;
    state.textContent = text;
  }
  return () => stop("");
}

/** What the other columns of an event show. */
const TRACE_COLUMNS = ["event", "at", "client_id", "direction", "packet", "topic"];

function traceRow(of) {
  const detail = ([name, value]) => `${name.replaceAll("_", " ")} ${typeof value === "object" ? JSON.stringify(value) : value}`;
  const details = Object.entries(of).filter(([name]) => !TRACE_COLUMNS.includes(name)).map(detail);
  const at = new Date(of.at * 1000);
  const clock = at.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 });
  const what = of.event === "drop" ? ["dropped", ""] : [of.direction, of.packet ?? "?"];
  return h("tr", {}, [clock, of.client_id ?? "", ...what, of.topic ?? "", details.join(", ")].map((text) => h("td", {}, text)));
}
