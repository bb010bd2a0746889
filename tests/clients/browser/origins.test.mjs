// Pages of other origins: those that the configuration names may do everything, others nothing.

import assert from 'node:assert/strict'

import { Broker } from '../node/broker.mjs'
import { listen, oneUser, opened, payloads, scenario, seen, sites } from './fixture.mjs'
import { publish } from './http.mjs'

const start = (files) => Broker.start({ own: true, files, settings: { 'http.cors_origins': JSON.stringify([sites.allowed.origin]) } })

// Whether a WebSocket opens.
const opens = (page, url, protocol) => page.evaluate(({ url, protocol }) => new Promise((resolve) => {
  const socket = new WebSocket(url, protocol)
  socket.onopen = () => {
    socket.close()
    resolve(true)
  }
  socket.onerror = () => resolve(false)
}), { url, protocol })

// The outcome of a request: its status, or that the browser keeps it from the page.
const outcome = (page, url, options = {}) => page.evaluate(async ({ url, options }) => {
  try {
    const response = await fetch(url, options)
    const status = response.status
    await response.body?.cancel()
    return status
  } catch (error) {
    return error.name
  }
}, { url, options })

scenario('an allowed origin listens, publishes and opens WebSockets, with credentials', async ({ open, keep, topic }) => {
  const broker = keep(await start())
  const page = await open(sites.allowed.origin)
  const url = `${broker.url}/v1/events?topic=${encodeURIComponent(`${topic}/#`)}`
  await listen(page, url, { withCredentials: true })
  await opened(page)
  // A preflight asks for each of these headers.
  const json = { method: 'POST', credentials: 'include', headers: { 'Content-Type': 'application/json', 'Idempotency-Key': `"${topic}"` } }
  assert.equal(await outcome(page, `${broker.url}/v1/publish`, { ...json, body: JSON.stringify({ topic: `${topic}/a`, payload: '1', qos: 1 }) }), 200)
  assert.equal(await outcome(page, `${broker.url}/v1/topics/${topic}/a?qos=1`, { method: 'POST', body: '2' }), 200)
  assert.equal(await outcome(page, `${broker.url}/v1/topics/${topic}/a`, { method: 'DELETE' }), 200)
  assert.deepEqual(payloads(await seen(page, 2)).slice(0, 2), ['1', '2'])
  assert.equal(await outcome(page, url, { headers: { 'Last-Event-ID': '1.1' } }), 200)
  const socket = broker.url.replace(/^http/, 'ws')
  assert.equal(await opens(page, `${socket}/v1/ws`, 'tidings.v1.json'), true)
  assert.equal(await opens(page, `${socket}/mqtt`, 'mqtt'), true)
  // A problem is readable too.
  assert.equal(await outcome(page, `${broker.url}/v1/events?topic=%23%23`), 400)
})

scenario('an EventSource of an allowed origin resumes over a kill of the broker', async ({ open, keep, topic }) => {
  const broker = keep(await start())
  const page = await open(sites.allowed.origin)
  await listen(page, `${broker.url}/v1/events?topic=${encodeURIComponent(`${topic}/#`)}`)
  await opened(page)
  await publish(broker, `${topic}/n`, '1')
  await seen(page, 1)
  await broker.kill()
  await broker.restart()
  await publish(broker, `${topic}/n`, '2')
  await opened(page, 2)
  assert.deepEqual(payloads(await seen(page, 2)), ['1', '2'])
})

scenario('another origin can neither listen, publish nor open a WebSocket', async ({ open, keep, topic }) => {
  const broker = keep(await start())
  const own = await open(broker.url)
  await listen(own, `/v1/events?topic=${encodeURIComponent(`${topic}/#`)}`)
  await opened(own)

  const page = await open(sites.other.origin)
  const url = `${broker.url}/v1/events?topic=${encodeURIComponent(`${topic}/#`)}`
  await listen(page, url)
  await page.waitForFunction(() => window.streams.a.errors.length > 0)
  assert.deepEqual(await page.evaluate(() => [window.streams.a.errors, window.streams.a.opened]), [[2], 0])
  assert.equal(await outcome(page, url), 'TypeError')
  // One that a browser sends without a preflight: the server itself has to refuse it.
  assert.equal(await outcome(page, `${broker.url}/v1/topics/${topic}/a`, { method: 'POST', body: 'forged' }), 'TypeError')
  assert.equal(await outcome(page, `${broker.url}/v1/topics/${topic}/a`, { method: 'POST', mode: 'no-cors', body: 'forged' }), 0)
  assert.equal(await outcome(page, `${broker.url}/v1/publish`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{}' }), 'TypeError')
  const socket = broker.url.replace(/^http/, 'ws')
  assert.equal(await opens(page, `${socket}/v1/ws`, 'tidings.v1.json'), false)
  assert.equal(await opens(page, `${socket}/mqtt`, 'mqtt'), false)

  await publish(broker, `${topic}/a`, 'genuine')
  assert.deepEqual(payloads(await seen(own, 1)), ['genuine'])
})

scenario('with a cookie an allowed origin listens and reads, and nobody else does', async ({ open, keep, topic }) => {
  const broker = keep(await start(await oneUser('alice', 'wonderland')))
  const authorization = `Basic ${Buffer.from('alice:wonderland').toString('base64')}`
  const socket = `${broker.url.replace(/^http/, 'ws')}/v1/ws`
  const url = `${broker.url}/v1/events?topic=${encodeURIComponent(`${topic}/#`)}`
  const message = `${broker.url}/v1/topics/${topic}/a`
  const page = await open(sites.allowed.origin)
  // Whether who opens a WebSocket is known by its handshake.
  const known = (page) => page.evaluate((url) => new Promise((resolve) => {
    const socket = new WebSocket(url, 'tidings.v1.json')
    socket.onopen = () => socket.send('{"type":"subscribe","id":1,"filter":"a"}')
    socket.onmessage = ({ data }) => resolve(JSON.parse(data).type)
    socket.onclose = () => resolve('closed')
  }), socket)

  assert.equal(await outcome(page, message, { credentials: 'include' }), 401)
  assert.equal(await known(page), 'error')
  const login = { method: 'POST', body: JSON.stringify({ user: 'alice', password: 'wonderland' }) }
  // Another site can neither log somebody in, nor see that it did not.
  const other = await page.context().newPage()
  await other.goto(sites.other.origin)
  assert.equal(await outcome(other, `${broker.url}/v1/login`, { ...login, credentials: 'include' }), 'TypeError')
  assert.deepEqual(await page.context().cookies(), [])
  assert.equal(await outcome(page, `${broker.url}/v1/login`, { ...login, credentials: 'include' }), 200)
  assert.equal((await page.context().cookies()).length, 1)

  await listen(page, url, { withCredentials: true })
  await opened(page)
  await publish(broker, `${topic}/a`, '1', { retain: true, headers: { Authorization: authorization } })
  assert.deepEqual(payloads(await seen(page, 1)), ['1'])
  assert.equal(await outcome(page, message, { credentials: 'include' }), 200)
  assert.equal(await known(page), 'ok')
  // The cookie comes along only if the page says so.
  assert.equal(await outcome(page, message), 401)
  // What changes something takes more than a cookie that a browser sends by itself.
  assert.equal(await outcome(page, message, { method: 'POST', body: '2', credentials: 'include' }), 403)
  assert.equal(await outcome(page, message, { method: 'POST', body: '2', headers: { Authorization: authorization } }), 200)

  // The browser has the cookie, and sends it for a page of another site of this host too.
  await listen(other, url, { withCredentials: true })
  await other.waitForFunction(() => window.streams.a.errors.length > 0)
  assert.deepEqual(await other.evaluate(() => [window.streams.a.errors, window.streams.a.opened]), [[2], 0])
  assert.equal(await outcome(other, message, { credentials: 'include' }), 'TypeError')
  assert.equal(await outcome(other, message, { method: 'POST', mode: 'no-cors', body: 'forged', credentials: 'include' }), 0)
  assert.equal(await known(other), 'closed')
  assert.deepEqual(payloads(await seen(page, 2)), ['1', '2'])
})
