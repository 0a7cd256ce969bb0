// The MQTT.js client of tests/interop: node mqttjs_client.js SCENARIO URL. Exits non-zero on failure.
// RINGMQ_CA names the file with the certificate of the trusted authority.
'use strict'

const assert = require('assert')
const fs = require('fs')
const { createRequire } = require('module')
const path = require('path')
const mqtt = createRequire(path.join(process.cwd(), 'target/interop/'))('mqtt')

const [scenario, url] = process.argv.slice(2)

function connect (options) {
  const ca = process.env.RINGMQ_CA && fs.readFileSync(process.env.RINGMQ_CA)
  return mqtt.connectAsync(url, { reconnectPeriod: 0, ca, ...options })
}

function messages (client, count) {
  return new Promise(resolve => {
    const got = []
    client.on('message', (topic, payload, packet) => {
      got.push({ topic, payload: payload.toString(), packet })
      if (got.length === count) resolve(got)
    })
  })
}

const scenarios = {
  async everyQos () {
    for (const protocolVersion of [3, 4, 5]) {
      const protocolId = protocolVersion === 3 ? 'MQIsdp' : 'MQTT'
      for (const qos of [0, 1, 2]) {
        const subscriber = await connect({ clientId: 's', protocolId, protocolVersion })
        const publisher = await connect({ clientId: 'p', protocolId, protocolVersion })
        await subscriber.subscribeAsync('a/#', { qos })
        const got = messages(subscriber, 3)
        for (const published of [0, 1, 2]) {
          await publisher.publishAsync('a/b', `${published}`, { qos: published })
        }
        const seen = (await got).map(m => [m.payload, m.packet.qos])
        seen.sort()
        assert.deepStrictEqual(seen, [0, 1, 2].map(p => [`${p}`, Math.min(p, qos)]))
        await subscriber.endAsync()
        await publisher.endAsync()
      }
    }
  },

  async manyInOrder () {
    const subscriber = await connect({ protocolVersion: 5 })
    const publisher = await connect({ protocolVersion: 4 })
    await subscriber.subscribeAsync('many', { qos: 1 })
    const count = 5000
    const got = messages(subscriber, count)
    const sent = []
    for (let n = 0; n < count; n++) sent.push(publisher.publishAsync('many', `${n}`, { qos: 1 }))
    await Promise.all(sent)
    const payloads = (await got).map(m => m.payload)
    assert.deepStrictEqual(payloads, Array.from({ length: count }, (_, n) => `${n}`))
  },

  async properties () {
    const subscriber = await connect({ protocolVersion: 5, properties: { topicAliasMaximum: 10 } })
    const publisher = await connect({ protocolVersion: 5 })
    await subscriber.subscribeAsync('ask', { qos: 1, properties: { subscriptionIdentifier: 7 } })
    const got = messages(subscriber, 2)
    const properties = { responseTopic: 'answer', correlationData: Buffer.from('x'), userProperties: { a: ['1', '2'] } }
    await publisher.publishAsync('ask', '?', { qos: 1, properties })
    await publisher.publishAsync('ask', '?', { qos: 1, properties })
    for (const { topic, packet } of await got) {
      assert.strictEqual(topic, 'ask')
      assert.strictEqual(packet.properties.responseTopic, 'answer')
      assert.strictEqual(packet.properties.correlationData.toString(), 'x')
      assert.deepStrictEqual(packet.properties.userProperties.a, ['1', '2'])
      assert.strictEqual(packet.properties.subscriptionIdentifier, 7)
    }
  },

  async large () {
    const client = await connect({ protocolVersion: 5 })
    await client.subscribeAsync('large', { qos: 1 })
    const payload = Buffer.alloc(3_000_000, 'ringmq')
    const got = new Promise(resolve => client.on('message', (topic, payload) => resolve(payload)))
    await client.publishAsync('large', payload, { qos: 1 })
    assert(payload.equals(await got))
  },

  // alice may do everything below alice/, and nothing else.
  async rules () {
    for (const protocolVersion of [4, 5]) {
      const alice = await connect({ protocolVersion, username: 'alice', password: 'alicealice' })
      await alice.subscribeAsync('alice/#', { qos: 1 })
      const got = messages(alice, 1)
      await alice.publishAsync('alice/1', 'hers', { qos: 1 })
      assert.strictEqual((await got)[0].payload, 'hers')
      const no = protocolVersion === 5 ? 0x87 : 0x80
      const denied = await alice.subscribeAsync('bob/#').then(granted => granted[0].qos, error => error.packet.granted[0])
      assert.strictEqual(denied, no)
      const published = alice.publishAsync('bob/1', 'not hers', { qos: 1 })
      const outcome = await published.then(() => 0, error => error.code)
      assert.strictEqual(outcome, protocolVersion === 5 ? 0x87 : 0)
      await alice.endAsync()
    }
  },

  async wrongPassword () {
    for (const [protocolVersion, code] of [[4, 4], [5, 0x86]]) {
      const refused = connect({ protocolVersion, username: 'alice', password: 'guess' })
      const outcome = await refused.then(() => 0, error => error.code)
      assert.strictEqual(outcome, code)
    }
  },

  // The broker is killed and started again meanwhile, when this says so.
  async reconnects () {
    const client = await connect({ reconnectPeriod: 100 })
    await client.subscribeAsync('again', { qos: 1 })
    const back = new Promise(resolve => client.once('connect', resolve))
    client.on('error', () => {})
    console.log('ready')
    await back
    const got = messages(client, 1)
    await new Promise(resolve => setTimeout(resolve, 300))
    await client.publishAsync('again', 'after', { qos: 1 })
    assert.strictEqual((await got)[0].payload, 'after')
  }
}

scenarios[scenario]().then(() => process.exit(0), error => {
  console.error(error)
  process.exit(1)
})
