// Drives the dashboard in headless Chromium. Run by tests/dashboard/run.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import puppeteer from "puppeteer-core";

const require = createRequire(import.meta.url);
const HERE = dirname(fileURLToPath(import.meta.url));
const { BROKER, CHROMIUM } = process.env;
const folder = mkdtempSync(join(tmpdir(), "ringmq-dashboard-"));
const children = [];

/** A port that is free at the moment. */
const freePort = () => new Promise((resolve, reject) => {
  const server = createServer();
  server.once("error", reject);
  server.listen(0, "127.0.0.1", () => {
    const { port } = server.address();
    server.close(() => resolve(port));
  });
});

async function eventually(what, check) {
  const deadline = Date.now() + 20_000;
  let last;
  while (Date.now() < deadline) {
    try {
      const value = await check();
      if (value) return value;
    } catch (error) {
      last = error;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`${what}: not within 20 s${last ? `; ${last.message}` : ""}`);
}

function start(program, ...args) {
  const child = spawn(program, args, { stdio: ["ignore", "ignore", "inherit"] });
  children.push(child);
  return child;
}

const HOSTILE = "<img src=x onerror=alert(1)>";

async function main() {
  const [mqtt, http] = [await freePort(), await freePort()];
  const tokens = join(folder, "tokens");
  const token = execFileSync(BROKER, ["ctl", "token", "add", "admin", "tester", "--file", tokens], { encoding: "utf8" })
    .split("\n").map((line) => line.trim()).filter(Boolean).pop();
  writeFileSync(join(folder, "acl.txt"), "for everyone\n  allow all #\n");
  writeFileSync(join(folder, "broker.toml"), `
listen = "127.0.0.1:${mqtt}"
cores = 2
[storage]
data = "${join(folder, "data")}"
[access]
anonymous = true
acl_file = "${join(folder, "acl.txt")}"
[access.database]
users_max = 10
rules_max = 10
[admin]
listen = ["unix:${join(folder, "admin.sock")}", "127.0.0.1:${http}"]
[admin.access]
tokens_file = "${tokens}"
[[bridges]]
name = "cloud"
servers = ["mqtt://127.0.0.1:${await freePort()}"]
reconnect = { first_ms = 100, most_s = 1 }
[[bridges.out]]
filter = "plant/#"
`);
  const broker = spawn(BROKER, ["--config", join(folder, "broker.toml")], { stdio: ["ignore", "ignore", "inherit"] });
  children.push(broker);
  const base = `http://127.0.0.1:${http}/`;
  await eventually("the broker is ready", async () => (await fetch(`${base}readyz`)).ok);
  const client = (...args) => start(args[0], "-h", "127.0.0.1", "-p", String(mqtt), "-V", "mqttv5", ...args.slice(1));
  client("mosquitto_sub", "-i", "meter-1", "-t", "plant/+/temperature", "-q", "1");
  client("mosquitto_sub", "-i", "meter-2", "-t", "plant/#");
  client("mosquitto_pub", "-i", "publisher", "-t", `plant/${HOSTILE}/name`, "-m", HOSTILE, "-r", "-q", "1");
  client("mosquitto_pub", "-i", "publisher-2", "-t", "plant/a/temperature", "-m", "21.5", "-r", "-q", "1");

  const browser = await puppeteer.launch({ executablePath: CHROMIUM, headless: "shell", args: ["--no-sandbox", "--disable-dev-shm-usage"] });
  try {
    const page = await browser.newPage();
    await page.setViewport({ width: 1280, height: 900 });
    const problems = [];
    // 400: the rule is wrong; 401: nobody is logged in; 404: the client that was disconnected had no session to show.
    page.on("console", (message) => message.type() === "error" && !/\b40[014]\b/.test(message.text()) && problems.push(message.text()));
    page.on("pageerror", (error) => problems.push(String(error)));
    page.on("request", (request) => new URL(request.url()).origin !== new URL(base).origin && problems.push(`request to ${request.url()}`));
    await page.evaluateOnNewDocument(() => {
      window.violations = [];
      document.addEventListener("securitypolicyviolation", (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
    });
    const step = steps(page, base);
    await step.login(token);
    await step.overview();
    await step.clients();
    await step.client(client);
    await step.topics();
    await step.subscriptions();
    await step.bans();
    await step.users();
    await step.bridges();
    await step.configuration();
    await step.trace(client);
    await step.dark();
    await step.keyboard();
    assert.deepEqual(await page.evaluate(() => window.violations), [], "the Content-Security-Policy is kept");
    assert.deepEqual(problems, [], "no error, and no request to another host");
    await step.logout();
  } finally {
    await browser.close();
  }
  console.log("dashboard: all steps passed; screenshots are in target/dashboard");
}

/** The steps of the test, each with a screenshot and a check for accessibility. */
function steps(page, base) {
  const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
  const text = () => page.$eval("main", (main) => main.innerText);
  const shows = (wanted) => eventually(`the page shows ${wanted}`, async () => (await text()).includes(wanted));
  const go = (hash) => page.evaluate((to) => { location.hash = to; }, hash);
  const press = (label, scope = "main") =>
    eventually(`a button ${label}`, () => page.evaluate((wanted, within) => {
      const found = [...document.querySelectorAll(`${within} button`)].find((button) => button.textContent === wanted && !button.disabled);
      found?.click();
      return Boolean(found);
    }, label, scope));
  const fill = (name, value, scope = "main") =>
    page.$eval(`${scope} [name="${name}"]`, (input, to) => { input.value = to; input.dispatchEvent(new Event("change", { bubbles: true })); }, value);
  async function look(name) {
    await page.screenshot({ path: join(HERE, `${name}.png`), fullPage: true });
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
    assert.deepEqual(serious.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`), [], `${name}: axe-core has no serious finding`);
  }
  return {
    async login(token) {
      await page.goto(base, { waitUntil: "load" });
      await shows("Log in");
      await fill("token", "wrong");
      await press("Log in");
      await eventually("the wrong token is refused", () => page.$eval("[role=alert]", (alert) => alert.textContent.length > 0));
      await look("login");
      await fill("token", token);
      await press("Log in");
      await shows("Overview");
    },
    async overview() {
      await eventually("a sample", () => page.$eval(".tiles", (tiles) => tiles.childElementCount > 5));
      await shows("responsive");
      await eventually("the broker is in order", () => page.$eval("#health", (health) => health.textContent === "in order"));
      await page.$eval(".charts details", (details) => { details.open = true; });
      await look("overview");
    },
    async clients() {
      await go("#/clients");
      await fill("by", "bytes_in");
      await shows("meter-1");
      await fill("id_prefix", "meter-2");
      await press("Show");
      await eventually("the filter holds", async () => !(await text()).includes("meter-1") && (await text()).includes("meter-2"));
      await look("clients");
    },
    async client(start) {
      await go("#/clients/meter-1");
      await shows("plant/+/temperature");
      await look("client");
      await press("Disconnect");
      await press("Disconnect", "dialog");
      await eventually("the client has been disconnected", () => page.$eval("#notice", (notice) => notice.textContent.includes("disconnected")));
      start("mosquitto_sub", "-i", "meter-1", "-t", "plant/+/temperature", "-q", "1");
    },
    async topics() {
      await go("#/retained");
      await shows("plant");
      await page.$$eval("main details", (all) => all.forEach((details) => { details.open = true; }));
      await eventually("the second level", async () => {
        await page.$$eval("main details", (all) => all.forEach((details) => { details.open = true; }));
        return (await text()).includes("temperature");
      });
      await page.$$eval("main .tree button", (all) => all.find((button) => button.textContent.startsWith("name"))?.click());
      await eventually("a payload is text and not markup", () => page.$eval("main pre", (pre) => pre.textContent.includes("<img")));
      assert.equal(await page.$$eval("main img", (all) => all.length), 0);
      await look("topics");
    },
    async subscriptions() {
      await go("#/subscriptions");
      await shows("plant/#");
      await fill("topic", "plant/a/temperature");
      await press("Show");
      await shows("subscriptions match");
      await look("subscriptions");
    },
    async bans() {
      await go("#/bans");
      await fill("value", "meter-9");
      await press("Ban");
      await fill("reason", "a test", "dialog");
      await press("Ban", "dialog");
      await shows("meter-9");
      await look("bans");
      await press("Lift");
      await shows("Nobody is banned.");
    },
    async users() {
      await go("#/users");
      await shows("No users.");
      await shows("No rules.");
      await fill("name", HOSTILE);
      await fill("password", " secret ");
      await fill("groups", "meters, pumps");
      await press("Add the user");
      await shows(HOSTILE);
      await shows("meters pumps");
      await fill("for", "group meters");
      await fill("rule", "allow publish meters/#");
      await press("Add the rule");
      await shows("allow publish meters/#");
      await look("users");
      const [user, rule] = ["section:nth-of-type(1)", "section:nth-of-type(2)"];
      await press("Change", user);
      await fill("groups", "pumps", "dialog");
      await press("Save", "dialog");
      await eventually("the group is gone", async () => !(await text()).includes("meters pumps"));
      await press("Change", rule);
      await fill("rule", "deny publish meters/#", "dialog");
      await press("Save", "dialog");
      await shows("deny publish meters/#");
      await fill("for", "nobody", "main");
      await fill("rule", "allow everything at all", "main");
      await press("Add the rule");
      await eventually("a wrong rule is refused", () => page.$eval("#notice", (notice) => notice.textContent.includes('"nobody"')));
      await press("Remove", user);
      await press("Remove", "dialog");
      await shows("No users.");
      await press("Remove", rule);
      await press("Remove", "dialog");
      await shows("No rules.");
    },
    async bridges() {
      await go("#/bridges");
      await shows("cloud");
      await eventually("the reason", async () => { await press("Refresh"); return (await text()).includes("down"); });
      await look("bridges");
      await press("Reconnect");
      await press("Reconnect", "dialog");
      await eventually("the command was carried out", () => page.$eval("#notice", (notice) => notice.textContent.includes("reconnects")));
      await press("Stop");
      await fill("reason", "a test", "dialog");
      await press("Stop", "dialog");
      await shows("stopped");
      await press("Start");
      await eventually("it is started", async () => { await press("Refresh"); return !(await text()).includes("stopped"); });
    },
    async configuration() {
      await go("#/config");
      await shows("limits.connections_max");
      await press("Check the files");
      await shows("Needs a restart");
      await look("configuration");
    },
    async trace(start) {
      await go("#/trace?client=tracer");
      await press("Start");
      await shows("Waiting for packets.");
      // The stream is open once the broker has logged the request.
      await new Promise((resolve) => { setTimeout(resolve, 1000); });
      start("mosquitto_pub", "-i", "tracer", "-t", "plant/b/temperature", "-m", HOSTILE);
      await shows("plant/b/temperature");
      await shows("DISCONNECT");
      await look("trace");
      await press("Stop");
      await shows("Stopped after 4 events.");
    },
    async dark() {
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "dark" }]);
      await go("#/overview");
      await eventually("a sample", () => page.$eval(".tiles", (tiles) => tiles.childElementCount > 5));
      await look("overview-dark");
    },
    async keyboard() {
      // From the heading that has the focus after navigation, Tab reaches every view's link.
      await page.$eval(".skip", (link) => link.focus());
      const reached = new Set();
      for (let i = 0; i < 15; i += 1) {
        await page.keyboard.press("Tab");
        reached.add(await page.evaluate(() => document.activeElement.textContent));
      }
      for (const view of ["Overview", "Clients", "Topics", "Subscriptions", "Bans", "Users", "Bridges", "Configuration", "Trace"]) assert.ok(reached.has(view), `Tab reaches ${view}`);
      await page.$eval('nav a[href="#/clients"]', (link) => link.focus());
      await page.keyboard.press("Enter");
      await shows("Client Identifier");
      assert.equal(await page.evaluate(() => document.activeElement.tagName), "H1", "the heading of the view has the focus");
    },
    async logout() {
      await page.click("#logout");
      await shows("Log in");
      assert.equal(await page.evaluate(async () => (await fetch("api/v1/clients")).status), 401);
    },
  };
}

try {
  await main();
} finally {
  const ended = children.map((child) => child.exitCode !== null || child.signalCode !== null || new Promise((resolve) => { child.once("exit", resolve); }));
  for (const child of children) child.kill("SIGTERM");
  await Promise.all(ended);
  rmSync(folder, { recursive: true, force: true });
}
