// Log in, and show the view that the address names.

import { get, request } from "./api.js";
import { bridges } from "./bridges.js";
import { field, h, notify, values } from "./ui.js";
import { users } from "./users.js";
import * as views from "./views.js";

const main = document.getElementById("main");
const health = document.getElementById("health");
const VIEWS = { overview: views.overview, clients: views.clients, retained: views.retained, subscriptions: views.subscriptions,
  bans: views.bans, users, bridges, config: views.config, trace: views.trace };

let who = null;
let end = null;

function showHealth(sample) {
  const problems = sample === null ? ["no connection"] : [
    sample.stopping && "stopping",
    sample.cores.some((core) => !core.responsive) && "a core does not answer",
    sample.store_failing && "store failing",
    sample.store_full && "store full",
  ].filter(Boolean);
  const text = problems.length ? problems.join(", ") : "in order";
  // A screen reader repeats what is set, so that only changes are.
  if (health.textContent !== text) health.textContent = text;
  health.className = `pill ${problems.length ? "bad" : "good"}`;
}

/** Shows the view of the address. */
async function route() {
  end?.();
  end = null;
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  const view = VIEWS[name] ? name : "overview";
  for (const link of document.querySelectorAll("#views a")) {
    if (link.hash === `#/${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const element = h("div");
  main.replaceChildren(element);
  const context = { role: who.role, health: showHealth, query: new URLSearchParams(query) };
  const id = rest.length ? decodeURIComponent(rest.join("/")) : null;
  end = view === "clients" && id !== null ? views.client(element, context, id) : VIEWS[view](element, context);
  const heading = element.querySelector("h1");
  document.title = `${heading.textContent} – ringmq`;
  heading.tabIndex = -1;
  heading.focus();
  if (view !== "overview") await get("status").then((status) => showHealth({ ...status, cores: status.cores_missing.map(() => ({ responsive: false })) })).catch(() => showHealth(null));
}

function showLogin(text) {
  end?.();
  end = null;
  who = null;
  document.getElementById("views").hidden = true;
  document.getElementById("logout").hidden = true;
  document.getElementById("who").textContent = "";
  health.textContent = "not logged in";
  const problem = h("p", { class: "problem", role: "alert" }, text);
  const login = (toBody) => async (event) => {
    event.preventDefault();
    try {
      await request("POST", "login", { body: toBody(values(event.currentTarget)) });
      await begin();
    } catch (error) {
      problem.textContent = error.message;
    }
  };
  main.replaceChildren(h("div", { class: "login" }, h("h1", {}, "Log in"), problem,
    h("section", {}, h("h2", {}, "With a token"), h("p", { class: "quiet" }, "broker ctl token add makes one."),
      h("form", { onsubmit: login(({ token }) => ({ token })) },
        field("Token", "token", { type: "password", required: true, autocomplete: "current-password" }), h("button", { type: "submit" }, "Log in"))),
    h("section", {}, h("h2", {}, "With a password"),
      h("form", { onsubmit: login(({ name, password }) => ({ name, password })) },
        field("User", "name", { required: true, autocomplete: "username" }),
        field("Password", "password", { type: "password", required: true, autocomplete: "current-password" }),
        h("button", { type: "submit" }, "Log in")))));
  main.querySelector("input").focus();
}

async function begin() {
  try {
    who = await get("whoami");
  } catch (problem) {
    showLogin(problem.status === 401 ? "" : problem.message);
    return;
  }
  document.getElementById("who").textContent = `${who.name} (${who.role})`;
  document.getElementById("logout").hidden = false;
  document.getElementById("views").hidden = false;
  await route();
}

document.getElementById("logout").addEventListener("click", async () => {
  await request("POST", "logout").catch((problem) => notify(problem.message));
  showLogin("");
});
window.addEventListener("hashchange", () => who && route());
window.addEventListener("unhandledrejection", (event) => {
  if (event.reason?.status === 401) showLogin("The session has ended. Log in again.");
  else notify(event.reason?.message ?? String(event.reason));
});
begin();
