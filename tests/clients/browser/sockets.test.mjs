// WebSockets in a real browser: the JSON protocol, and mqtt.js, which speaks MQTT over one.

import assert from 'node:assert/strict'

import { Broker } from '../node/broker.mjs'
import { scenario, sites } from './fixture.mjs'
import { publish } from './http.mjs'
import { Proxy } from './proxy.mjs'

const start = () => Broker.start({ own: true, settings: { 'http.cors_origins': JSON.stringify([sites.allowed.origin]) } })
const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => String(from + i))

// A client of the JSON protocol in the page: `window.ws.ask(request)` answers the reply, `window.ws.pushed` notes the rest.
async function connect(page, url) {
  return page.evaluate((url) => new Promise((resolve, reject) => {
    const socket = new WebSocket(url, 'tidings.v1.json')
    const waiting = new Map()
    let next = 1
    const ws = {
      socket,
      pushed: [],
      closed: new Promise((closed) => { socket.onclose = ({ code, reason, wasClean }) => closed({ code, reason, wasClean }) }),
      ask: (request) => new Promise((answer) => {
        waiting.set(next, answer)
        socket.send(JSON.stringify({ ...request, id: next++ }))
      }),
    }
    window.ws = ws
    socket.onmessage = ({ data }) => {
      const said = JSON.parse(data)
      const answer = waiting.get(said.id)
      if (answer === undefined) return ws.pushed.push(said)
      waiting.delete(said.id)
      answer(said)
    }
    socket.onopen = () => resolve(socket.protocol)
    socket.onerror = () => reject(new Error('the WebSocket did not open'))
  }), url)
}

const ask = (page, request) => page.evaluate((request) => window.ws.ask(request), request)
async function pushed(page, count) {
  await page.waitForFunction((count) => window.ws.pushed.length >= count, count)
  return page.evaluate(() => window.ws.pushed)
}
const socketUrl = (url) => `${url.replace(/^http/, 'ws')}/v1/ws`

scenario('a JSON WebSocket publishes and subscribes', async ({ open, keep, topic }) => {
  const broker = keep(await start())
  const page = await open(broker.url)
  assert.equal(await connect(page, socketUrl(broker.url)), 'tidings.v1.json')
  assert.equal((await ask(page, { type: 'subscribe', filter: `${topic}/#` })).type, 'ok')
  await publish(broker, `${topic}/a`, 'over HTTP')
  const said = await ask(page, { type: 'publish', message: { topic: `${topic}/b`, payload: 'over the WebSocket', qos: 1 } })
  assert.deepEqual([said.type, said.matched], ['ok', 1])
  const got = await pushed(page, 2)
  assert.deepEqual(got.map(({ type, filter }) => [type, filter]), Array(2).fill(['message', `${topic}/#`]))
  assert.deepEqual(got.map(({ message }) => [message.topic, message.payload]), [[`${topic}/a`, 'over HTTP'], [`${topic}/b`, 'over the WebSocket']])

  assert.equal((await ask(page, { type: 'unsubscribe', filter: `${topic}/#` })).type, 'ok')
  assert.equal((await ask(page, { type: 'publish', message: { topic: `${topic}/b`, payload: 'unheard', qos: 1 } })).matched, 0)
  assert.equal((await ask(page, { type: 'ping' })).type, 'ok')
  assert.equal((await pushed(page, 2)).length, 2)
})

scenario('a JSON WebSocket that was cut reads on from its last message', async ({ open, keep, topic }) => {
  const broker = keep(await start())
  const proxy = keep(await Proxy.start(broker.host, Number(broker.http.split(':').pop())))
  const page = await open(proxy.url)
  await connect(page, socketUrl(proxy.url))
  await ask(page, { type: 'subscribe', filter: `${topic}/#` })
  for (const number of numbers(1, 10)) await publish(broker, `${topic}/n`, number)
  const before = await pushed(page, 10)
  proxy.cut()
  assert.equal((await page.evaluate(() => window.ws.closed)).wasClean, false)
  for (const number of numbers(11, 20)) await publish(broker, `${topic}/n`, number)
  proxy.mend()
  await connect(page, socketUrl(proxy.url))
  await ask(page, { type: 'subscribe', filter: `${topic}/#`, since: before.at(-1).message.id })
  for (const number of numbers(21, 30)) await publish(broker, `${topic}/n`, number)
  assert.deepEqual([...before, ...(await pushed(page, 20))].map(({ message }) => message.payload), numbers(1, 30))
})

scenario('a JSON WebSocket is told what is wrong and stays open', async ({ open, keep, topic }) => {
  const broker = keep(await start())
  const page = await open(broker.url)
  await connect(page, socketUrl(broker.url))
  for (const request of [
    { type: 'subscribe', filter: 'a/#/b' },
    { type: 'subscribe', filter: topic, since: 'yesterday' },
    { type: 'publish', message: { topic: 'a/+', payload: '' } },
  ]) {
    const said = await ask(page, request)
    assert.equal(said.type, 'error', JSON.stringify(request))
    assert.equal(typeof said.code, 'string')
    assert.ok(said.message.length > 10, said.message)
    assert.equal(said.temporary, false)
  }
  assert.equal((await ask(page, { type: 'ping' })).type, 'ok')
})

scenario('a JSON WebSocket that says no JSON is closed with a code for it', async ({ open, keep }) => {
  const broker = keep(await start())
  const page = await open(broker.url)
  await connect(page, socketUrl(broker.url))
  const closed = await page.evaluate(() => {
    window.ws.socket.send('{')
    return window.ws.closed
  })
  assert.equal(closed.code, 4400)
})

// mqtt.js in the page, which notes what arrives in `window.received`.
async function mqttConnect(page, url, options) {
  await page.evaluate(async ({ url, options }) => {
    window.received = []
    window.connects = 0
    const client = window.mqtt.connect(url, { reconnectPeriod: 200, ...options })
    window.client = client
    client.on('connect', () => { window.connects += 1 })
    client.on('message', (topic, payload, packet) => {
      window.received.push({ topic, payload: new TextDecoder('latin1').decode(payload), length: payload.length, qos: packet.qos, retain: packet.retain })
    })
    await new Promise((resolve, reject) => {
      client.once('connect', resolve)
      client.once('error', reject)
    })
  }, { url, options })
}
async function received(page, count) {
  await page.waitForFunction((count) => window.received.length >= count, count)
  return page.evaluate(() => window.received)
}
const mqttUrl = (url) => `${url.replace(/^http/, 'ws')}/mqtt`

for (const protocolVersion of [4, 5]) {
  scenario(`mqtt.js over WebSocket publishes and subscribes (MQTT ${protocolVersion === 4 ? '3.1.1' : '5'})`, async ({ open, keep, topic }) => {
    const broker = keep(await start())
    const page = await open(sites.allowed.origin)
    await mqttConnect(page, mqttUrl(broker.url), { protocolVersion })
    await page.evaluate((topic) => window.client.subscribeAsync(`${topic}/#`, { qos: 2 }), topic)
    // More than a frame or a read buffer holds.
    const size = 300_000
    await page.evaluate(async ({ topic, size }) => {
      for (const qos of [0, 1, 2]) await window.client.publishAsync(`${topic}/${qos}`, `qos ${qos}`, { qos })
      await window.client.publishAsync(`${topic}/large`, window.mqtt.Buffer ? window.mqtt.Buffer.alloc(size, 255) : 'x'.repeat(size), { qos: 1 })
    }, { topic, size })
    await publish(broker, `${topic}/http`, Buffer.from([0, 255, 10]))
    const got = await received(page, 5)
    assert.deepEqual(got.slice(0, 3).map(({ topic: at, payload, qos }) => [at, payload, qos]), [0, 1, 2].map((qos) => [`${topic}/${qos}`, `qos ${qos}`, qos]))
    assert.deepEqual(got.slice(3).map(({ topic: at, length }) => [at, length]), [[`${topic}/large`, size], [`${topic}/http`, 3]])
    assert.equal(got[4].payload, '\u0000ÿ\n')
    await page.evaluate(() => window.client.endAsync())
  })
}

scenario('a session of mqtt.js over WebSocket survives a cut and a kill of the broker', async ({ open, keep, topic }) => {
  const broker = keep(await start())
  const proxy = keep(await Proxy.start(broker.host, Number(broker.http.split(':').pop())))
  const page = await open(sites.allowed.origin)
  await mqttConnect(page, mqttUrl(proxy.url), { protocolVersion: 5, clean: false, clientId: topic.replace('/', '-'), properties: { sessionExpiryInterval: 300 }, resubscribe: false })
  await page.evaluate((topic) => window.client.subscribeAsync(`${topic}/#`, { qos: 2 }), topic)
  for (const number of numbers(1, 5)) await publish(broker, `${topic}/n`, number, { qos: 2 })
  await received(page, 5)
  proxy.cut()
  for (const number of numbers(6, 10)) await publish(broker, `${topic}/n`, number, { qos: 2 })
  await broker.kill()
  await broker.restart()
  for (const number of numbers(11, 15)) await publish(broker, `${topic}/n`, number, { qos: 2 })
  proxy.mend()
  assert.deepEqual((await received(page, 15)).map(({ payload }) => payload), numbers(1, 15))
  assert.ok(await page.evaluate(() => window.connects >= 2))
  await page.evaluate(() => window.client.endAsync())
})
