// Everything under examples/, run as its README says.

import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, readFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

import { scenario } from '../browser/fixture.mjs'
import { publish } from '../browser/http.mjs'
import { Site } from '../browser/site.mjs'
import { Broker } from '../node/broker.mjs'
import { within } from '../node/client.mjs'

const run = promisify(execFile)
const EXAMPLES = fileURLToPath(new URL('../../../examples', import.meta.url))
const environment = (broker) => ({
  ...process.env,
  BROKER: broker.url,
  MQTT_HOST: broker.host,
  MQTT_PORT: String(broker.port),
  CURSOR: join(broker.directory, 'billing.cursor'),
})

const example = (path, arguments_, broker) => run(join(EXAMPLES, path), arguments_, { env: environment(broker), timeout: 30_000 })

// A program that goes on until it is killed; its lines can be waited for.
class Program {
  lines = []
  #wake = () => {}

  constructor(path, arguments_, broker, env = {}) {
    this.process = spawn(resolve(EXAMPLES, path), arguments_, { env: { ...environment(broker), ...env }, stdio: ['ignore', 'pipe', 'inherit'] })
    this.exited = once(this.process, 'exit')
    createInterface({ input: this.process.stdout }).on('line', (line) => {
      this.lines.push(line)
      this.#wake()
    })
  }

  async take(count) {
    while (this.lines.length < count) {
      await within(new Promise((resolve) => { this.#wake = resolve }), `line ${count}, after:\n${this.lines.join('\n')}`)
    }
    return this.lines
  }

  async stop() {
    this.process.kill('SIGKILL')
    await this.exited
  }
}

// A broker that knows the website of an example.
async function serve(keep, name) {
  const site = keep(await Site.start(join(EXAMPLES, name)))
  const broker = keep(await Broker.start({ own: true, settings: { 'http.cors_origins': JSON.stringify([site.origin]) } }))
  return { broker, url: `${site.origin}/?${new URLSearchParams({ broker: broker.url })}` }
}

scenario('curl', async ({ keep }) => {
  const broker = keep(await Broker.start({ own: true }))
  const { stdout } = await example('curl/run.sh', [], broker)
  const section = (title) => stdout.split('\n# ').find((it) => it.startsWith(title))
  const { messages } = JSON.parse(section('What came since').split('\n')[1])
  assert.deepEqual(messages.map(({ topic, payload, payload_base64 }) => [topic, payload ?? payload_base64]), [
    ['demo/greeting', 'hello'],
    ['demo/orders', 'one coffee'],
    ['demo/a', 'text'],
    ['demo/b', '/wD/'],
  ])
  const streamed = section('The same as a stream').split('\n').filter((it) => it.startsWith('data: ')).map((it) => JSON.parse(it.slice(6)))
  assert.deepEqual(streamed, messages)
  assert.match(section('A Retained Message'), /\non\n/)
})

scenario('chat', async ({ open, keep }) => {
  const { broker, url } = await serve(keep, 'chat')
  const [one, other] = [await open(url), await open(url)]
  for (const page of [one, other]) await page.locator('#state', { hasText: 'Connected' }).waitFor()
  const say = async (page, name, text) => {
    await page.getByLabel('Name').fill(name)
    await page.getByLabel('Text').fill(text)
    await page.getByRole('button').click()
  }
  const heard = async (page, text) => page.locator('li', { hasText: text }).waitFor()
  await say(one, 'Ada', 'hello <b>Bob</b>')
  await heard(other, 'hello <b>Bob</b>')
  await say(other, 'Bob', 'hello Ada')
  await heard(one, 'hello Ada')

  // What is said while the broker is away arrives when it is back.
  await broker.kill()
  for (const page of [one, other]) await page.locator('#state', { hasText: 'Reconnecting' }).waitFor()
  await say(one, 'Ada', 'are you there?')
  await broker.restart()
  await heard(other, 'are you there?')
  await say(other, 'Bob', 'yes')
  await heard(one, 'yes')
  for (const page of [one, other]) {
    assert.deepEqual(await page.locator('li').allInnerTexts(), ['Ada hello <b>Bob</b>', 'Bob hello Ada', 'Ada are you there?', 'Bob yes'])
  }
})

scenario('dashboard', async ({ open, keep }) => {
  const { broker, url } = await serve(keep, 'dashboard')
  await example('dashboard/sensors.sh', ['1'], broker)
  const page = await open(url)
  await page.locator('#state', { hasText: 'Live' }).waitFor()
  const row = (sensor, text) => page.locator('tr', { hasText: sensor }).filter({ hasText: text })
  for (const room of ['kitchen', 'bath', 'hall']) await row(room, /\d\d\.\d/).waitFor()
  await publish(broker, 'sensors/kitchen/temperature', '99.5', { retain: true })
  await row('kitchen', '99.5').waitFor()

  await broker.kill()
  await page.locator('#state', { hasText: 'Reconnecting' }).waitFor()
  await broker.restart()
  await publish(broker, 'sensors/kitchen/temperature', '11.5', { retain: true })
  await row('kitchen', '11.5').waitFor()
  assert.deepEqual((await row('kitchen', '11.5').locator('td').allInnerTexts()).slice(0, 3), ['kitchen', '11.5', '99.5'])
  assert.equal(await page.locator('tbody tr').count(), 3)
})

const numbers = (lines) => lines.map((line) => line.split(' ')[1])
const shop = async (broker, count) => numbers((await example('service/shop.py', [String(count)], broker)).stdout.trim().split('\n'))

scenario('service to service over HTTP', async ({ keep }) => {
  const files = { 'broker.toml': await readFile(join(EXAMPLES, 'service', 'broker.toml'), 'utf8') }
  const broker = keep(await Broker.start({ own: true, files }))
  const before = await shop(broker, 3)
  const first = keep(new Program('service/billing.py', [], broker))
  assert.deepEqual(numbers(await first.take(3)), before)
  const live = await shop(broker, 2)
  assert.deepEqual(numbers(await first.take(5)), [...before, ...live])

  // Its cursor is written after the line: the next start shows from where it goes on.
  await first.stop()
  await broker.kill()
  await broker.restart()
  const missed = await shop(broker, 3)
  const second = keep(new Program('service/billing.py', [], broker))
  const billed = numbers(await second.take(3))
  const expected = [...before, ...live, ...missed]
  // At least once: the last batch may come again, and nothing is left out.
  while (billed.length < expected.length && billed.at(-1) !== missed.at(-1)) billed.push(numbers(await second.take(billed.length + 1)).at(-1))
  assert.deepEqual(billed, expected.slice(-billed.length))
})

scenario('service to service over MQTT', async ({ keep }) => {
  const files = { 'broker.toml': await readFile(join(EXAMPLES, 'service', 'broker.toml'), 'utf8') }
  const broker = keep(await Broker.start({ own: true, files }))
  const before = await shop(broker, 3)
  await example('service/billing-mqtt.sh', ['join'], broker)
  const missed = await shop(broker, 3)
  await broker.kill()
  await broker.restart()
  const billing = keep(new Program('service/billing-mqtt.sh', [], broker))
  await billing.take(6)
  const live = await shop(broker, 2)
  assert.deepEqual((await billing.take(8)).map((line) => JSON.parse(line).number), [...before, ...missed, ...live])
})

// Nobody listens on it now.
async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return String(port)
}

const CLIENTS = fileURLToPath(new URL('..', import.meta.url))
const PYTHON = join(CLIENTS, '..', '.venv', 'bin', 'python')
const RECEIVERS = {
  Python: async () => [PYTHON, [join(EXAMPLES, 'webhook', 'receiver.py')]],
  // Its library is found beside it.
  Node: async () => {
    const copy = join(CLIENTS, 'node_modules', '.webhook-receiver.mjs')
    await copyFile(join(EXAMPLES, 'webhook', 'receiver.mjs'), copy)
    return [process.execPath, [copy]]
  },
  Rust: async () => [process.env.TIDINGS_WEBHOOK_RECEIVER ?? join(CLIENTS, '..', '..', 'target', 'debug', 'examples', 'webhook_receiver'), []],
}

for (const [language, receiver] of Object.entries(RECEIVERS)) {
  scenario(`a webhook, received in ${language}`, async ({ keep }) => {
    const settings = { 'webhooks.allow_http': 'true', 'webhooks.allow_networks': '["127.0.0.0/8"]' }
    const broker = keep(await Broker.start({ own: true, settings }))
    const port = await freePort()
    const { stdout } = await example('webhook/register.sh', [`http://127.0.0.1:${port}/hook`, 'orders/#'], broker)
    const [command, arguments_] = await receiver()
    const start = () => keep(new Program(command, [...arguments_, port], broker, { WEBHOOK_SECRET: stdout.trim() }))
    const first = start()
    await first.take(1)
    await publish(broker, 'orders/1', 'one coffee')
    await publish(broker, 'other', 'nobody asked for this')
    await publish(broker, 'orders/2', '"t\u00eaa" \u2615')
    const expected = [`listening on port ${port}`, 'orders/1 "one coffee"']
    const sorted = (await first.take(3)).toSorted()
    assert.deepEqual(sorted.slice(0, 2), expected)
    assert.equal(JSON.parse(sorted[2].slice('orders/2 '.length)), '"t\u00eaa" \u2615')

    // The broker falls, and its receiver is away for a while.
    await broker.kill()
    await broker.restart()
    await publish(broker, 'orders/3', 'after a crash')
    assert.equal((await first.take(4))[3], 'orders/3 "after a crash"')
    await first.stop()
    await publish(broker, 'orders/4', 'while nobody was there')
    const second = start()
    // The first may have gone before its last answer had arrived; then that one comes again.
    let lines = (await second.take(2)).slice(1)
    if (lines[0] === 'orders/3 "after a crash"') lines = (await second.take(3)).slice(2)
    assert.deepEqual(lines.slice(0, 1), ['orders/4 "while nobody was there"'])
  })
}
