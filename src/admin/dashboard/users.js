// The view of the user database: users with passwords, and access rules.

import { get, part, request } from "./api.js";
import { attempt, confirm, count, field, h, may, show, table, values } from "./ui.js";

const PAGE = 100;

/** Text with names in a field, and the names. */
const toText = (names) => names.join(" ");
const toNames = (text) => text.split(/[\s,]+/).filter(Boolean);

/** What a change has done to clients. */
function outcome(what) {
  return ({ disconnected, subscriptions_ended: subscriptions, complete }) => {
    const ended = [disconnected && `${count(disconnected)} clients disconnected`, subscriptions && `${count(subscriptions)} subscriptions ended`];
    return [what, ended.filter(Boolean).join(", "), !complete && "Clients are still being checked."].filter(Boolean).join(" ");
  };
}

/** A list with a page at a time, and a button for the next one. `load` begins again. */
function paged(list, path, of, toTable) {
  const load = () => show(list, async () => {
    const [rows, found] = [h("div"), []];
    let cursor = null;
    const more = h("button", { type: "button", onclick: () => attempt(next, "") }, "More");
    async function next() {
      const answer = await get(path, { limit: PAGE, cursor });
      found.push(...answer[of]);
      cursor = answer.next;
      more.hidden = !cursor;
      rows.replaceChildren(toTable(found, answer.total));
    }
    await next();
    return [rows, more];
  });
  return load;
}

export function users(element, { role }) {
  const [people, rules] = [h("section"), h("section")];
  element.append(h("h1", {}, "Users"));
  if (!may(role, "admin")) element.append(h("p", { class: "quiet" }, "The role admin may change users and rules."));
  element.append(h("h2", {}, "Users with passwords"), may(role, "admin") && userForm(() => loadUsers()) || "", people,
    h("h2", {}, "Access rules"), may(role, "admin") && ruleForm(() => loadRules()) || "", rules);
  const loadUsers = paged(people, "users", "users", (found, total) => table(`Users: ${count(total)}; they outlive a restart`, [
    { head: "User", cell: (of) => of.name },
    { head: "Groups", cell: (of) => toText(of.groups) },
    { head: "SCRAM", cell: (of) => (of.scram ? "yes" : "no") },
    { head: "In force", cell: (of) => (of.hidden ? "no: the password file goes first" : "yes") },
    { head: "Action", cell: (of) => (may(role, "admin") ? userActions(of, () => loadUsers()) : "") },
  ], found, "No users."));
  const loadRules = paged(rules, "rules", "rules", (found, total) => table(`Rules: ${count(total)}, asked in this order, after those of the file`, [
    { head: "Number", number: true, cell: (of) => count(of.number) },
    { head: "For", cell: (of) => of.for },
    { head: "Rule", cell: (of) => of.rule },
    { head: "Action", cell: (of) => (may(role, "admin") ? ruleActions(of, () => loadRules()) : "") },
  ], found, "No rules."));
  loadUsers();
  loadRules();
}

function userForm(load) {
  const form = h("form", { onsubmit: add },
    field("User", "name", { required: true }), field("Password", "password", { type: "password", required: true, autocomplete: "new-password" }),
    field("Groups", "groups"), h("button", { type: "submit" }, "Add the user"));
  async function add(event) {
    event.preventDefault();
    // A password may begin or end with spaces.
    const { name, groups } = values(form);
    const body = { name, password: form.elements.password.value, groups: toNames(groups) };
    if (await attempt(() => request("POST", "users", { body }), outcome(`${name} has been added.`))) {
      form.reset();
      load();
    }
  }
  return form;
}

function userActions({ name, groups }, load) {
  async function change() {
    const password = field("New password (empty: it stays)", "password", { type: "password", autocomplete: "new-password" });
    const answer = await confirm("Change the user", `Clients of ${name} whose rights end are disconnected.`, "Save",
      [password, field("Groups", "groups", { value: toText(groups) })]);
    if (!answer) return;
    const secret = password.querySelector("input").value;
    const body = { groups: toNames(answer.groups), ...(secret ? { password: secret } : {}) };
    if (await attempt(() => request("PUT", `users/${part(name)}`, { body }), outcome(`${name} has been changed.`))) load();
  }
  async function remove() {
    if (!await confirm("Remove the user", `${name} is disconnected, and cannot log in again.`, "Remove")) return;
    if (await attempt(() => request("DELETE", `users/${part(name)}`), outcome(`${name} has been removed.`))) load();
  }
  return [h("button", { type: "button", onclick: change, "aria-label": `Change ${name}` }, "Change"), " ",
    h("button", { type: "button", class: "bad", onclick: remove, "aria-label": `Remove ${name}` }, "Remove")];
}

/** The fields of a rule. */
const ruleFields = (of = {}) => [
  field("For", "for", { required: true, placeholder: "user alice, group meters, everyone", value: of.for }),
  field("Rule", "rule", { required: true, placeholder: "allow publish meters/%u/#", value: of.rule }),
];

function ruleForm(load) {
  const form = h("form", { onsubmit: add }, ruleFields(), field("Before rule number (empty: last)", "before", { type: "number", min: "0" }),
    h("button", { type: "submit" }, "Add the rule"));
  async function add(event) {
    event.preventDefault();
    const { before, ...rule } = values(form);
    const body = { ...rule, ...(before ? { before: Number(before) } : {}) };
    if (await attempt(() => request("POST", "rules", { body }), outcome("The rule has been added."))) {
      form.reset();
      load();
    }
  }
  return form;
}

function ruleActions(of, load) {
  const path = `rules/${of.number}`;
  async function change() {
    const body = await confirm("Change the rule", `Rule ${of.number} keeps its place.`, "Save", ruleFields(of));
    if (body && await attempt(() => request("PUT", path, { body }), outcome("The rule has been changed."))) load();
  }
  async function remove() {
    if (!await confirm("Remove the rule", `for ${of.for}: ${of.rule}`, "Remove")) return;
    if (await attempt(() => request("DELETE", path), outcome("The rule has been removed."))) load();
  }
  return [h("button", { type: "button", onclick: change, "aria-label": `Change rule ${of.number}` }, "Change"), " ",
    h("button", { type: "button", class: "bad", onclick: remove, "aria-label": `Remove rule ${of.number}` }, "Remove")];
}
