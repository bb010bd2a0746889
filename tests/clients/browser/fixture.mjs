// What the test files share: a browser and a website for a file, a browser context for each test, names used once.

import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'

import { BINARY } from '../node/broker.mjs'
import { launch } from './chromium.mjs'
import { Site } from './site.mjs'

// A hang is a failure, not a long wait.
const TIMEOUT_MS = 90_000
const WAIT_MS = 30_000

const run = randomBytes(2).toString('hex')
let serial = 0
let browser

export const sites = { allowed: undefined, other: undefined }

before(async () => {
  sites.allowed = await Site.start()
  sites.other = await Site.start()
  browser = await launch()
})
after(async () => {
  await browser?.close()
  await sites.allowed?.stop()
  await sites.other?.stop()
})

// Runs `body` with a function that opens pages, and a topic that no other test uses. What a page's script fails to
// catch fails the test.
export function scenario(title, body) {
  test(title, { timeout: TIMEOUT_MS }, async () => {
    const contexts = []
    const brokers = []
    const errors = []
    const open = async (url, options = {}) => {
      const context = await browser.newContext(options)
      contexts.push(context)
      const page = await context.newPage()
      page.setDefaultTimeout(WAIT_MS)
      page.on('pageerror', (error) => errors.push(error))
      await page.goto(url)
      return page
    }
    // Stopped in the end, in good order.
    const keep = (it) => {
      brokers.push(it)
      return it
    }
    try {
      await body({ open, keep, topic: `browser-${run}/${serial++}` })
    } catch (error) {
      for (const { log } of brokers) if (log) console.error(`broker log:\n${log.slice(-60).join('\n')}`)
      throw error
    } finally {
      for (const context of contexts) await context.close()
      for (const it of brokers.reverse()) await it.stop()
    }
    if (errors.length > 0) throw errors[0]
  })
}

// A file with one user, as `tidings passwd` writes it.
async function passwords(user, password) {
  const directory = await mkdtemp(join(tmpdir(), 'tidings-'))
  try {
    execFileSync(BINARY, ['passwd', join(directory, 'passwd'), user], { input: `${password}\n`, stdio: ['pipe', 'ignore', 'inherit'] })
    return await readFile(join(directory, 'passwd'), 'utf8')
  } finally {
    await rm(directory, { recursive: true })
  }
}

// The files of a broker with this user, who may do everything, and nobody else.
export async function oneUser(user, password) {
  return {
    passwd: await passwords(user, password),
    'broker.toml': `
      [access]
      password_file = "passwd"
      [[access.rule]]
      user = "*"
      allow = ["publish", "subscribe", "receive"]
      topics = ["#"]
    `,
  }
}

// Opens an EventSource in the page and notes all that it says in `window.streams[name]`.
export async function listen(page, url, { name = 'a', events = [], withCredentials = false } = {}) {
  await page.evaluate(({ url, name, events, withCredentials }) => {
    const source = new EventSource(url, { withCredentials })
    const stream = { source, seen: [], opened: 0, errors: [] }
    window.streams = { ...window.streams, [name]: stream }
    source.onopen = () => { stream.opened += 1 }
    source.onerror = () => stream.errors.push(source.readyState)
    for (const type of ['message', 'gap', 'goodbye', 'base64', ...events]) {
      source.addEventListener(type, (event) => stream.seen.push({ type, data: event.data, id: event.lastEventId }))
    }
  }, { url, name, events, withCredentials })
}

export async function opened(page, times = 1, name = 'a') {
  await page.waitForFunction(({ name, times }) => window.streams[name].opened >= times, { name, times })
}

// Waits for so many events and returns all that have come.
export async function seen(page, count, name = 'a') {
  await page.waitForFunction(({ name, count }) => window.streams[name].seen.length >= count, { name, count })
  return page.evaluate((name) => window.streams[name].seen, name)
}

export const envelopes = (events) => events.map(({ data }) => JSON.parse(data))
export const payloads = (events) => envelopes(events).map(({ payload }) => payload)
