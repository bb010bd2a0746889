// Server-Sent Events in a real browser: what an EventSource receives, and that it loses and doubles nothing.

import assert from 'node:assert/strict'
import mqtt from 'mqtt'

import { Broker } from '../node/broker.mjs'
import { envelopes, listen, opened, payloads, scenario, seen } from './fixture.mjs'
import { publish, publishForSure } from './http.mjs'
import { Proxy } from './proxy.mjs'

const ID = /^[0-9]+\.[0-9]+$/
const events = (topic, more = {}) => `/v1/events?${new URLSearchParams({ topic: `${topic}/#`, ...more })}`
const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => String(from + i))

scenario('an EventSource receives what comes over HTTP and MQTT', async ({ open, keep, topic }) => {
  const broker = keep(await Broker.start({ own: true }))
  const page = await open(broker.url)
  await listen(page, events(topic))
  await opened(page)

  const awkward = 'data: one\r\ntwo\rthree\n\n: four — “ünï🌍” </script>'
  await publish(broker, `${topic}/http`, awkward)
  const client = await mqtt.connectAsync(`mqtt://${broker.host}:${broker.port}`, { protocolVersion: 5 })
  const bytes = Buffer.from([0, 0xff, 0xfe, 0x0a, 0x0d])
  await client.publishAsync(`${topic}/mqtt`, bytes, { qos: 2, retain: true, properties: { contentType: 'x/y', userProperties: { k: 'v' } } })
  await publish(broker, `${topic}/end`, '', { qos: 0 })
  await client.endAsync()

  const events_ = await seen(page, 3)
  for (const event of events_) {
    assert.equal(event.type, 'message')
    assert.match(event.id, ID)
    assert.equal(JSON.parse(event.data).id, event.id)
    assert.ok(!Number.isNaN(Date.parse(JSON.parse(event.data).time)))
  }
  const [first, second, third] = envelopes(events_)
  assert.deepEqual([first.topic, first.payload, first.qos, first.retain], [`${topic}/http`, awkward, 1, false])
  assert.deepEqual([second.topic, second.payload_base64, second.qos], [`${topic}/mqtt`, bytes.toString('base64'), 2])
  assert.equal(second.payload, undefined)
  assert.equal(second.properties.content_type, 'x/y')
  assert.deepEqual(second.properties.user_properties, [['k', 'v']])
  assert.deepEqual([third.payload, third.qos], ['', 0])
})

scenario('format=raw has the payload itself, and base64 where it is no text', async ({ open, keep, topic }) => {
  const broker = keep(await Broker.start({ own: true }))
  const page = await open(broker.url)
  await listen(page, events(topic, { format: 'raw' }))
  await opened(page)
  await publish(broker, `${topic}/a`, 'one\ntwo')
  await publish(broker, `${topic}/b`, Buffer.from([0xff, 0]))
  const got = (await seen(page, 2)).map(({ type, data }) => [type, data])
  assert.deepEqual(got, [['message', 'one\ntwo'], ['base64', '/wA=']])
})

scenario('events have the name of their topic, if that is asked for', async ({ open, keep, topic }) => {
  const broker = keep(await Broker.start({ own: true }))
  const page = await open(broker.url)
  await listen(page, events(topic, { event: 'topic' }), { events: [`${topic}/a`] })
  await opened(page)
  await publish(broker, `${topic}/not-listened-to`, '0')
  await publish(broker, `${topic}/a`, '1')
  const [event] = await seen(page, 1)
  assert.equal(event.type, `${topic}/a`)
  assert.equal(JSON.parse(event.data).payload, '1')
})

scenario('Retained Messages come first', async ({ open, keep, topic }) => {
  const broker = keep(await Broker.start({ own: true }))
  await publish(broker, `${topic}/state`, 'on', { retain: true })
  const page = await open(broker.url)
  await listen(page, events(topic, { retained: 'true' }))
  await opened(page)
  await publish(broker, `${topic}/state`, 'off')
  const got = envelopes(await seen(page, 2))
  assert.deepEqual(got.map(({ payload, retain }) => [payload, retain]), [['on', true], ['off', false]])
})

scenario('Retained Messages do not come again when a stream is resumed', async ({ open, keep, topic }) => {
  const broker = keep(await Broker.start({ own: true }))
  const proxy = keep(await Proxy.start(broker.host, Number(broker.http.split(':').pop())))
  await publish(broker, `${topic}/state`, 'on', { retain: true })
  const page = await open(proxy.url)
  await listen(page, events(topic, { retained: 'true' }))
  await seen(page, 1)
  await publish(broker, `${topic}/n`, 'before')
  await seen(page, 2)
  proxy.cut()
  await publish(broker, `${topic}/n`, 'meanwhile')
  proxy.mend()
  await opened(page, 2)
  await publish(broker, `${topic}/n`, 'after')
  assert.deepEqual(payloads(await seen(page, 4)), ['on', 'before', 'meanwhile', 'after'])
})

scenario('nothing is lost or doubled when the network is cut', async ({ open, keep, topic }) => {
  const broker = keep(await Broker.start({ own: true }))
  const proxy = keep(await Proxy.start(broker.host, Number(broker.http.split(':').pop())))
  const page = await open(proxy.url)
  await listen(page, events(topic))
  await opened(page)
  const total = 90
  for (const number of numbers(1, total)) {
    await publish(broker, `${topic}/n`, number)
    // Who has no id yet cannot say where to go on.
    if (number === 1) await seen(page, 1)
    if (number % 30 === 10) {
      // The cut takes away what is under way, and lasts until more has been published.
      proxy.cut()
    } else if (number % 30 === 20) {
      const before = proxy.accepted
      proxy.mend()
      await proxy.beyond(before)
    }
  }
  const got = await seen(page, total)
  assert.deepEqual(payloads(got), numbers(1, total))
  assert.ok(await page.evaluate(() => window.streams.a.opened >= 4))
})

scenario('an EventSource whose connection ends before its first event resumes too', async ({ open, keep, topic }) => {
  const broker = keep(await Broker.start({ own: true }))
  const proxy = keep(await Proxy.start(broker.host, Number(broker.http.split(':').pop())))
  const page = await open(proxy.url)
  await listen(page, events(topic))
  await opened(page)
  // Its place, without an event.
  await proxy.said('\nid: ')
  proxy.end()
  for (const number of numbers(1, 10)) await publish(broker, `${topic}/n`, number)
  proxy.mend()
  assert.deepEqual(payloads(await seen(page, 10)), numbers(1, 10))
})

scenario('nothing is lost or doubled when the broker is killed', async ({ open, keep, topic }) => {
  const broker = keep(await Broker.start({ own: true }))
  const page = await open(broker.url)
  await listen(page, events(topic))
  await opened(page)
  let total = 0
  for (const round of [1, 2]) {
    const before = total
    total += 60
    const publisher = (async () => {
      for (const number of numbers(before + 1, total)) await publishForSure(broker, `${topic}/n`, number)
    })()
    // In the midst of it, for both sides.
    await seen(page, before + 15)
    await broker.kill()
    await broker.restart()
    await publisher
    assert.deepEqual(payloads(await seen(page, total)), numbers(1, total), `round ${round}`)
  }
  // The last kill may have come when everything was there already.
  await page.waitForFunction(() => window.streams.a.opened >= 3)
  assert.deepEqual((await seen(page, total)).filter(({ type }) => type !== 'message'), [])
})

scenario('a cursor of another log epoch is told as a gap, and the stream goes on', async ({ open, keep, topic }) => {
  const broker = keep(await Broker.start({ own: true }))
  const page = await open(broker.url)
  await listen(page, events(topic, { last_event_id: '1.5' }))
  await opened(page)
  await publish(broker, `${topic}/n`, 'after')
  const [gap, after] = await seen(page, 2)
  assert.equal(gap.type, 'gap')
  const { oldest, lost } = JSON.parse(gap.data)
  if (oldest !== undefined) assert.match(oldest, ID)
  assert.ok(lost === undefined || Number.isInteger(lost))
  assert.equal(after.type, 'message')
  assert.equal(JSON.parse(after.data).payload, 'after')
  assert.notEqual(after.id.split('.')[0], '1')
})

scenario('a stream that is refused ends, and is not tried again', async ({ open, keep }) => {
  const broker = keep(await Broker.start({ own: true }))
  const page = await open(broker.url)
  await listen(page, `/v1/events?topic=${encodeURIComponent('a/#/b')}`)
  await page.waitForFunction(() => window.streams.a.errors.length > 0)
  assert.deepEqual(await page.evaluate(() => window.streams.a.errors), [2])
  const { status, type, body } = await page.evaluate(async (url) => {
    const response = await fetch(url)
    return { status: response.status, type: response.headers.get('Content-Type'), body: await response.json() }
  }, `/v1/events?topic=${encodeURIComponent('a/#/b')}`)
  assert.equal(status, 400)
  assert.match(type, /^application\/problem\+json/)
  assert.ok(body.title && body.detail, JSON.stringify(body))
})

scenario('a broker that stops says so, and its streams come back', async ({ open, keep, topic }) => {
  const broker = keep(await Broker.start({ own: true }))
  const page = await open(broker.url)
  await listen(page, events(topic))
  await opened(page)
  await publish(broker, `${topic}/n`, 'before')
  await seen(page, 1)
  await broker.end()
  const [, goodbye] = await seen(page, 2)
  assert.deepEqual([goodbye.type, JSON.parse(goodbye.data).reason], ['goodbye', 'stopping'])
  await broker.restart()
  await publish(broker, `${topic}/n`, 'after')
  await opened(page, 2)
  assert.deepEqual(payloads((await seen(page, 3)).filter(({ type }) => type === 'message')), ['before', 'after'])
})
