// Subscribes, publishes a temperature, and prints what arrives: node temperature.mjs [HOST [PORT]].
//
// npm install mqtt

import { connectAsync } from "mqtt";

const [host = "127.0.0.1", port = "1883"] = process.argv.slice(2);
const client = await connectAsync(`mqtt://${host}:${port}`, { protocolVersion: 5 });

client.on("message", async (topic, payload) => {
  console.log(topic, payload.toString());
  await client.endAsync();
});
await client.subscribeAsync("house/+/temperature", { qos: 1 });
await client.publishAsync("house/kitchen/temperature", "21.5", { qos: 1 });
