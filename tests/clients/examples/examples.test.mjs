// Everything under examples/, run as its README says.

import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
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

  constructor(path, arguments_, broker) {
    this.process = spawn(join(EXAMPLES, path), arguments_, { env: environment(broker), stdio: ['ignore', 'pipe', 'inherit'] })
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
