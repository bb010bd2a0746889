// The page at `/`, used as a person would. Screenshots go to tests/clients/screenshots, or where `TIDINGS_SCREENSHOTS` says.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { Broker } from '../node/broker.mjs'
import { oneUser, scenario } from './fixture.mjs'
import { publish } from './http.mjs'
import { Proxy } from './proxy.mjs'

const SCREENSHOTS = process.env.TIDINGS_SCREENSHOTS ?? fileURLToPath(new URL('../screenshots', import.meta.url))
const PHONE = { viewport: { width: 375, height: 812 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true }

async function screenshot(page, name) {
  await mkdir(SCREENSHOTS, { recursive: true })
  await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), fullPage: true })
}

const state = (page, text) => page.locator('#state', { hasText: text }).waitFor()
const line = (page, text) => page.locator('#messages li', { hasText: text }).first()

async function listen(page, filter) {
  await page.getByLabel('Topic Filter').fill(filter)
  await page.getByRole('button', { name: 'Start' }).click()
}

async function send(page, topic, payload, { qos = '1', retain = false } = {}) {
  await page.getByLabel('Topic', { exact: true }).fill(topic)
  await page.getByLabel('Payload').fill(payload)
  await page.getByLabel('QoS').selectOption(qos)
  await page.getByLabel('Retain', { exact: true }).setChecked(retain)
  await page.getByRole('button', { name: 'Publish' }).click()
}

for (const [name, options] of [
  ['light', { colorScheme: 'light', viewport: { width: 1280, height: 800 } }],
  ['dark', { colorScheme: 'dark', viewport: { width: 1280, height: 800 } }],
  ['phone-light', { colorScheme: 'light', ...PHONE }],
  ['phone-dark', { colorScheme: 'dark', ...PHONE }],
]) {
  scenario(`a person listens, publishes and sees the message (${name})`, async ({ open, keep, topic }) => {
    const broker = keep(await Broker.start({ own: true }))
    const page = await open(broker.url, options)
    assert.match(await page.locator('h1').innerText(), /^Tidings \d+\.\d+\.\d+/)
    await screenshot(page, `${name}-first`)

    await listen(page, `${topic}/#`)
    await state(page, 'Live')
    await send(page, `${topic}/kitchen`, '{"temperature":21.50,"id":12345678901234567890}')
    await line(page, 'kitchen').waitFor()
    // Laid out, and not a digit changed.
    assert.equal(await line(page, 'kitchen').locator('pre').innerText(), '{\n  "temperature": 21.50,\n  "id": 12345678901234567890\n}')
    assert.match(await line(page, 'kitchen').innerText(), /QoS 1/)
    await page.locator('#answer', { hasText: 'Published with QoS 1 to 1 subscription.' }).waitFor()
    await publish(broker, `${topic}/bytes`, Buffer.from([0, 1, 254, 255]))
    await line(page, 'bytes').waitFor()
    assert.equal(await line(page, 'bytes').locator('pre').innerText(), '00 01 fe ff')
    await publish(broker, `${topic}/cellar/humidity`, '61')
    await line(page, 'humidity').waitFor()
    await screenshot(page, `${name}-live`)

    // Nothing is wider than the screen.
    const [needed, width] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth])
    assert.ok(needed <= width, `${needed} > ${width}`)

    await page.getByRole('button', { name: 'Stop' }).click()
    await state(page, 'Stopped')
    assert.equal(await page.getByRole('button', { name: 'Start' }).isEnabled(), true)
  })
}

scenario('what a message contains is shown, and not run', async ({ open, keep, topic }) => {
  const broker = keep(await Broker.start({ own: true }))
  const page = await open(broker.url)
  const refused = []
  page.on('console', (said) => { if (/Content.Security|Trusted/i.test(said.text())) refused.push(said.text()) })
  await listen(page, `${topic}/#`)
  await state(page, 'Live')
  const hostile = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script><a href="javascript:window.pwned=1">x</a>'
  await publish(broker, `${topic}/<b onmouseover=window.pwned=1>`, hostile)
  await publish(broker, `${topic}/json`, JSON.stringify({ [hostile]: [hostile] }))
  await publish(broker, `${topic}/end`, 'end')
  await line(page, 'end').waitFor()
  assert.equal(await line(page, 'onmouseover').locator('pre').innerText(), hostile)
  assert.deepEqual(await page.evaluate(() => [window.pwned, document.querySelectorAll('#messages :is(img, script, a, b)').length]), [undefined, 0])
  // The policy was not even needed.
  assert.deepEqual(refused, [])
})

scenario('the headers keep foreign code and frames out', async ({ open, keep }) => {
  const broker = keep(await Broker.start({ own: true }))
  const page = await open(broker.url)
  const violated = await page.evaluate(() => new Promise((resolve) => {
    document.addEventListener('securitypolicyviolation', (event) => resolve(event.effectiveDirective))
    const script = document.createElement('script')
    script.append('window.inline = 1')
    document.head.append(script)
  }))
  assert.match(violated, /script|trusted-types/)
  assert.equal(await page.evaluate(() => window.inline), undefined)
  for (const path of ['/', '/app.js', '/style.css', '/favicon.svg']) {
    const response = await fetch(broker.url + path)
    await response.arrayBuffer()
    assert.equal(response.status, 200, path)
    assert.match(response.headers.get('Content-Security-Policy'), /default-src 'none'.*frame-ancestors 'none'/, path)
    assert.equal(response.headers.get('X-Content-Type-Options'), 'nosniff', path)
    assert.equal(response.headers.get('Referrer-Policy'), 'no-referrer', path)
    const again = await fetch(broker.url + path, { headers: { 'If-None-Match': response.headers.get('ETag') } })
    assert.equal(again.status, 304, path)
  }
})

scenario('only the last 500 messages are kept', async ({ open, keep, topic }) => {
  const broker = keep(await Broker.start({ own: true }))
  const page = await open(broker.url)
  await listen(page, `${topic}/#`)
  await state(page, 'Live')
  const messages = Array.from({ length: 620 }, (_, i) => ({ topic: `${topic}/n`, payload: `number ${i + 1}.`, qos: 0 }))
  const response = await fetch(`${broker.url}/v1/publish`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(messages) })
  assert.ok(response.ok, await response.text())
  await line(page, 'number 620.').waitFor()
  assert.equal(await page.locator('#messages li').count(), 500)
  assert.match(await page.locator('#messages li').last().innerText(), /number 121\./)
  assert.match(await page.locator('#count').innerText(), /620 messages, the last 500 shown/)
  await page.getByRole('button', { name: 'Clear' }).click()
  assert.equal(await page.locator('#messages li').count(), 0)
})

scenario('problems are told in the words of the server', async ({ open, keep, topic }) => {
  const broker = keep(await Broker.start({ own: true }))
  const page = await open(broker.url)
  await listen(page, 'a/#/b')
  await page.locator('#state[data-state=problem]', { hasText: '#' }).waitFor()
  await send(page, `${topic}/+`, 'x')
  await page.locator('#answer[data-state=problem]', { hasText: '+' }).waitFor()
  await screenshot(page, 'problems')
  // Neither is a wildcard a space, nor a level of two dots a step in a path.
  await listen(page, `${topic}/room 1/+`)
  await state(page, 'Live')
  await send(page, `${topic}/room 1/100%`, 'percent')
  await line(page, 'percent').waitFor()
  await page.getByRole('button', { name: 'Stop' }).click()
  await listen(page, `${topic}/#`)
  await state(page, 'Live')
  await send(page, `${topic}/../x`, 'dots')
  assert.match(await line(page, 'dots').innerText(), new RegExp(`${topic}/\\.\\./x`))
})

scenario('the commands are those of this server, ready for a shell', async ({ open, keep, topic }) => {
  const broker = keep(await Broker.start({ own: true }))
  const page = await open(broker.url)
  await listen(page, `${topic}/#`)
  await state(page, 'Live')
  const awkward = `it's "$HOME" \\ & a #`
  for (const [command, payload] of [['#curl-publish', awkward], ['#mosquitto-publish', `${awkward} too`]]) {
    await page.getByLabel('Topic', { exact: true }).fill(`${topic}/from a shell`)
    await page.getByLabel('Payload').fill(payload)
    const shell = await page.locator(command).innerText()
    execFileSync('sh', ['-c', shell], { stdio: 'pipe' })
    await line(page, payload).waitFor()
  }
  assert.match(await page.locator('#mosquitto-listen').innerText(), new RegExp(`-p ${broker.port} `))
  assert.match(await page.locator('#curl-listen').innerText(), new RegExp(`^curl -N '?${broker.url}/v1/events\\?topic=`))
  assert.equal(await page.locator('#at-mqtt').innerText(), `${broker.host}:${broker.port}`)
  assert.equal(await page.locator('#at-ws').innerText(), `${broker.url.replace('http', 'ws')}/v1/ws`)
})

scenario('the tail comes back by itself, with what it missed', async ({ open, keep, topic }) => {
  const broker = keep(await Broker.start({ own: true }))
  const proxy = keep(await Proxy.start(broker.host, Number(broker.http.split(':').pop())))
  const page = await open(proxy.url)
  await listen(page, `${topic}/#`)
  await state(page, 'Live')
  await publish(broker, `${topic}/n`, 'before')
  await line(page, 'before').waitFor()
  proxy.cut()
  await state(page, 'Reconnecting')
  await publish(broker, `${topic}/n`, 'meanwhile')
  await screenshot(page, 'reconnecting')
  proxy.mend()
  await state(page, 'Live')
  await line(page, 'meanwhile').waitFor()
  assert.equal(await page.locator('#messages li').count(), 2)
})

scenario('where users are known, the page asks who it is', async ({ open, keep, topic }) => {
  const broker = keep(await Broker.start({ own: true, files: await oneUser('änne', 'pass:wörd') }))
  const proxy = keep(await Proxy.start(broker.host, Number(broker.http.split(':').pop())))
  const page = await open(proxy.url, { colorScheme: 'light', ...PHONE })
  const login = async (user, password) => {
    await page.getByLabel('User').fill(user)
    await page.getByLabel('Password').fill(password)
    await page.getByRole('button', { name: 'Log in' }).click()
  }
  await listen(page, `${topic}/#`)
  await page.getByLabel('User').waitFor()
  await screenshot(page, 'login')
  await login('änne', 'wrong')
  await page.locator('#login-why', { hasText: 'wrong' }).waitFor()
  await login('änne', 'pass:wörd')
  await state(page, 'Live')
  await send(page, `${topic}/a`, 'known')
  await line(page, 'known').waitFor()

  // The stream goes on where it was.
  proxy.cut()
  await state(page, 'Reconnecting')
  const authorization = `Basic ${Buffer.from('änne:pass:wörd').toString('base64')}`
  await publish(broker, `${topic}/a`, 'meanwhile', { headers: { Authorization: authorization } })
  proxy.mend()
  await line(page, 'meanwhile').waitFor()
  await state(page, 'Live')
  assert.equal(await page.locator('#messages li.message').count(), 2)
  // The password is neither in the page nor in its storage.
  assert.equal(await page.evaluate(() => [document.body.innerHTML, JSON.stringify(localStorage), JSON.stringify(sessionStorage)].join().includes('wörd')), false)
})

scenario('who has logged in stays so, until logging out', async ({ open, keep, topic }) => {
  const broker = keep(await Broker.start({ own: true, files: await oneUser('änne', 'pass:wörd') }))
  const page = await open(broker.url)
  await listen(page, `${topic}/#`)
  await page.getByLabel('User').fill('änne')
  await page.getByLabel('Password').fill('pass:wörd')
  await page.getByRole('button', { name: 'Log in' }).click()
  await state(page, 'Live')
  // No script sees the cookie, and none has to.
  assert.equal(await page.evaluate(() => document.cookie), '')
  const [cookie] = await page.context().cookies()
  assert.deepEqual([cookie.name, cookie.httpOnly, cookie.sameSite, cookie.secure], ['tidings', true, 'Lax', false])

  await page.reload()
  await page.locator('#who', { hasText: 'Logged in as änne' }).waitFor()
  await screenshot(page, 'logged-in')
  await listen(page, `${topic}/#`)
  await state(page, 'Live')
  await send(page, `${topic}/a`, 'known')
  await line(page, 'known').waitFor()
  // What has no header of its own is known by it as well.
  const said = await page.evaluate((filter) => new Promise((resolve) => {
    const socket = new WebSocket(new URL('v1/ws', location.href.replace('http', 'ws')), 'tidings.v1.json')
    socket.onopen = () => socket.send(JSON.stringify({ type: 'subscribe', id: 1, filter }))
    socket.onmessage = ({ data }) => resolve(JSON.parse(data))
    socket.onclose = ({ code }) => resolve({ code })
  }), `${topic}/#`)
  assert.equal(said.type, 'ok', JSON.stringify(said))

  await page.getByRole('button', { name: 'Log out' }).click()
  await state(page, 'Stopped')
  await page.waitForFunction(async () => (await fetch('v1/login', { headers: { 'X-Requested-With': 'test' } })).status === 401)
  assert.deepEqual(await page.context().cookies(), [])
  await listen(page, `${topic}/#`)
  await page.getByLabel('User').waitFor()
})

scenario('a cookie that is not good is thrown away where nobody needs one', async ({ open, keep, topic }) => {
  const broker = keep(await Broker.start({ own: true }))
  const page = await open('about:blank')
  await page.context().addCookies([{ name: 'tidings', value: 'of-another-broker', url: broker.url }])
  await page.goto(broker.url)
  await page.waitForFunction(async () => (await fetch('v1/login')).ok)
  assert.deepEqual(await page.context().cookies(), [])
  await listen(page, `${topic}/#`)
  await state(page, 'Live')
})

scenario('on another machine without TLS the page itself keeps the password, and nothing else does', async ({ open, keep, topic }) => {
  const broker = keep(await Broker.start({ own: true, files: await oneUser('änne', 'pass:wörd') }))
  const page = await open(broker.url.replace('127.0.0.1', 'elsewhere.test'))
  await listen(page, `${topic}/#`)
  await page.getByLabel('User').fill('änne')
  await page.getByLabel('Password').fill('pass:wörd')
  await page.getByRole('button', { name: 'Log in' }).click()
  await state(page, 'Live')
  await send(page, `${topic}/a`, 'known')
  await line(page, 'known').waitFor()
  assert.deepEqual(await page.context().cookies(), [])
  await page.getByRole('button', { name: 'Log out' }).click()
  await listen(page, `${topic}/#`)
  await page.getByLabel('User').waitFor()
})
