// The HTTP edge with Node: the package eventsource, and mqtt over ws.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { EventSource } from 'eventsource'
import mqtt from 'mqtt'
import WebSocket from 'ws'

import { Broker } from './broker.mjs'
import { within } from './client.mjs'
import { publish, publishForSure } from '../browser/http.mjs'

const TIMEOUT_MS = 60_000

let broker
let serial = 0
before(async () => { broker = await Broker.start({ own: true }) })
after(() => broker.stop())

function scenario(title, body) {
  test(title, { timeout: TIMEOUT_MS }, async () => {
    const opened = []
    try {
      await body({ keep: (it) => { opened.push(it); return it }, topic: `node-http/${serial++}` })
    } catch (error) {
      console.error(`broker log:\n${broker.log.slice(-60).join('\n')}`)
      throw error
    } finally {
      for (const close of opened) await close()
    }
  })
}

// What arrives, one after the other.
class Arrivals {
  #got = []
  #wake = () => {}

  add(it) {
    this.#got.push(it)
    this.#wake()
  }

  async take(count) {
    while (this.#got.length < count) await within(new Promise((resolve) => { this.#wake = resolve }), `${count} arrivals, of ${this.#got.length}`)
    return this.#got
  }
}

async function listen(keep, query) {
  const source = new EventSource(`${broker.url}/v1/events?${new URLSearchParams(query)}`)
  keep(() => source.close())
  const arrivals = new Arrivals()
  for (const type of ['message', 'gap', 'goodbye']) source.addEventListener(type, (event) => arrivals.add(event))
  await within(new Promise((resolve) => source.addEventListener('open', resolve, { once: true })), 'open stream')
  return arrivals
}

const payloads = (events) => events.map(({ data }) => JSON.parse(data).payload)
const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => String(from + i))

scenario('eventsource receives', async ({ keep, topic }) => {
  const arrivals = await listen(keep, { topic: `${topic}/#` })
  await publish(broker, `${topic}/a`, 'one\r\ntwo')
  const [event] = await arrivals.take(1)
  assert.equal(JSON.parse(event.data).payload, 'one\r\ntwo')
  assert.equal(JSON.parse(event.data).id, event.lastEventId)
})

scenario('eventsource resumes when the broker is killed, and loses and doubles nothing', async ({ keep, topic }) => {
  const arrivals = await listen(keep, { topic: `${topic}/#` })
  const publisher = (async () => {
    for (const number of numbers(1, 60)) await publishForSure(broker, `${topic}/n`, number)
  })()
  await arrivals.take(20)
  await broker.kill()
  await broker.restart()
  await publisher
  assert.deepEqual(payloads(await arrivals.take(60)), numbers(1, 60))
})

scenario('eventsource is told a gap', async ({ keep, topic }) => {
  const arrivals = await listen(keep, { topic: `${topic}/#`, last_event_id: '1.5' })
  await publish(broker, `${topic}/n`, 'after')
  const [gap, after] = await arrivals.take(2)
  assert.deepEqual([gap.type, after.type, payloads([after])], ['gap', 'message', ['after']])
})

for (const protocolVersion of [3, 4, 5]) {
  scenario(`mqtt over ws publishes and subscribes (protocol level ${protocolVersion})`, async ({ keep, topic }) => {
    const options = { protocolVersion, ...(protocolVersion === 3 && { protocolId: 'MQIsdp' }), reconnectPeriod: 0 }
    const client = await mqtt.connectAsync(`${broker.url.replace(/^http/, 'ws')}/mqtt`, { ...options, clientId: `ws-${protocolVersion}` })
    keep(() => client.endAsync(true))
    const arrivals = new Arrivals()
    client.on('message', (at, payload, { qos }) => arrivals.add([at, payload.toString('latin1'), qos]))
    await client.subscribeAsync(`${topic}/#`, { qos: 2 })
    const large = Buffer.alloc(500_000, 255)
    for (const qos of [0, 1, 2]) await client.publishAsync(`${topic}/${qos}`, `${qos}`, { qos })
    await client.publishAsync(`${topic}/large`, large, { qos: 1 })
    await publish(broker, `${topic}/http`, Buffer.from([0, 255]))
    const tcp = await mqtt.connectAsync(`mqtt://${broker.host}:${broker.port}`, { ...options, clientId: `tcp-${protocolVersion}` })
    keep(() => tcp.endAsync(true))
    await tcp.publishAsync(`${topic}/tcp`, 'tcp', { qos: 2 })
    assert.deepEqual(await arrivals.take(6), [
      ...[0, 1, 2].map((qos) => [`${topic}/${qos}`, `${qos}`, qos]),
      [`${topic}/large`, large.toString('latin1'), 1],
      [`${topic}/http`, '\0ÿ', 1],
      [`${topic}/tcp`, 'tcp', 2],
    ])
  })
}

scenario('a text frame ends MQTT over WebSocket', async ({ keep }) => {
  // [MQTT-6.0.0-1]: Control Packets come in binary frames only.
  const socket = new WebSocket(`${broker.url.replace(/^http/, 'ws')}/mqtt`, 'mqtt')
  keep(() => socket.terminate())
  const closed = new Promise((resolve) => socket.on('close', resolve))
  await within(new Promise((resolve, reject) => socket.on('open', resolve).on('error', reject)), 'open WebSocket')
  assert.equal(socket.protocol, 'mqtt')
  socket.send('text')
  await within(closed, 'end of the WebSocket')
})

scenario('packets need not be aligned to frames', async ({ keep }) => {
  // [MQTT-6.0.0-2]; a CONNECT of MQTT 3.1.1 with the Client Identifier "frames", byte by byte, glued to a PINGREQ.
  const connect = Buffer.concat([Buffer.from([0x10, 18, 0, 4]), Buffer.from('MQTT'), Buffer.from([4, 2, 0, 60, 0, 6]), Buffer.from('frames')])
  const socket = new WebSocket(`${broker.url.replace(/^http/, 'ws')}/mqtt`, 'mqtt')
  keep(() => socket.terminate())
  await within(new Promise((resolve, reject) => socket.on('open', resolve).on('error', reject)), 'open WebSocket')
  const received = []
  const answered = new Promise((resolve) => socket.on('message', (data) => {
    received.push(...data)
    if (received.length >= 6) resolve()
  }))
  for (const byte of connect) socket.send(Buffer.from([byte]))
  socket.send(Buffer.from([0xc0, 0]))
  await within(answered, 'CONNACK and PINGRESP')
  assert.deepEqual(received, [0x20, 2, 0, 0, 0xd0, 0])
})
