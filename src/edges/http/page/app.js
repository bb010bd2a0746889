// The page at `/`: a live tail over Server-Sent Events, and a form that publishes.
//
// What comes from messages is untrusted. It becomes text (`textContent`) and nothing else; the Content-Security-Policy
// forbids the rest, `innerHTML` included.
'use strict'

const LINES_MAX = 500
// Of a longer payload only the beginning is shown.
const PAYLOAD_SHOWN_MAX = 16 * 1024
const BINARY_SHOWN_MAX = 256
const RETRY_MS_MIN = 1000
const RETRY_MS_MAX = 30_000

const $ = (id) => document.getElementById(id)
// Paths are relative, so that the page works below a prefix of a reverse proxy too.
const at = (path) => new URL(path, document.baseURI)

// URLSearchParams writes a space as `+`, which the server refuses in a Topic Filter: somebody may have meant the wildcard.
const search = (query) => query.toString().replaceAll('+', '%20')

function element(name, className, text) {
  const made = document.createElement(name)
  if (className) made.className = className
  if (text !== undefined) made.textContent = text
  return made
}

// --- Who we are ------------------------------------------------------------------------------------------------------

const login = {
  // Where the browser keeps no cookie for us.
  authorization: null,
  user: null,
  // What to do again once somebody has logged in.
  waiting: [],

  ask(why, again) {
    $('login-why').textContent = why
    if (again) this.waiting.push(again)
    if ($('login').hidden) {
      $('login').hidden = false
      $('login-user').focus()
    }
  },

  show(user) {
    this.user = user
    $('who').hidden = user === null
    $('who-user').textContent = user ?? ''
    showCommands()
  },

  // Somebody may be logged in already, which no script can see of the cookie.
  async look() {
    try {
      this.show((await (await request('v1/login')).json()).user)
    } catch (error) {
      // One that is not good any more would keep out even who may come in without.
      if (error.status === 401) await this.forget()
    }
  },

  async enter(event) {
    event.preventDefault()
    const [user, password] = [$('login-user').value, $('login-password').value]
    this.authorization = null
    $('login-enter').disabled = true
    try {
      await request('v1/login', {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ user, password }),
      })
    } catch (error) {
      if (error.kind !== 'needs-tls') {
        $('login-why').textContent = error.status === 401 ? 'User or password is wrong.' : error.message
        return
      }
      const bytes = new TextEncoder().encode(`${user}:${password}`)
      this.authorization = `Basic ${btoa(String.fromCharCode(...bytes))}`
    } finally {
      $('login-enter').disabled = false
    }
    $('login').hidden = true
    $('login-password').value = ''
    this.show(user)
    for (const again of this.waiting.splice(0)) again()
  },

  async leave() {
    this.authorization = null
    tail.stop()
    this.show(null)
    await this.forget()
  },

  async forget() {
    try { await request('v1/login', { method: 'DELETE' }) } catch { /* The next request tells who we are. */ }
  },
}

class Problem extends Error {
  constructor(status, message, kind) {
    super(message)
    this.status = status
    this.kind = kind
  }
}

// A request with our credentials. `X-Requested-With` keeps the browser from asking for a password in a window of its own.
async function request(path, options = {}) {
  const headers = { 'X-Requested-With': 'tidings', ...options.headers }
  if (login.authorization) headers.Authorization = login.authorization
  let response
  try {
    response = await fetch(at(path), { ...options, headers, credentials: 'same-origin', cache: 'no-store' })
  } catch (error) {
    if (options.signal?.aborted) throw error
    throw new Problem(0, 'The server cannot be reached.')
  }
  if (response.ok) return response
  // RFC 9457; whatever stands between us and the server may answer something else.
  let body = null
  try { body = await response.json() } catch { /* The status has to do. */ }
  const title = body?.title ?? `The server answered ${response.status} ${response.statusText}`
  throw new Problem(response.status, body?.detail ? `${title}: ${body.detail}` : title, body?.type?.split(':').pop())
}

const wrongLogin = () => (login.authorization ? 'User or password is wrong, or may not do this.' : 'This server wants to know who you are.')

// --- Listening -------------------------------------------------------------------------------------------------------

const tail = {
  source: null,
  // Counts what was started, so that an answer to an earlier start can be told from one to the last.
  run: 0,
  query: null,
  lastEventId: '',
  retryMs: RETRY_MS_MIN,
  retryTimer: undefined,
  seen: 0,
  // What has arrived and is not shown yet. A tab in the background shows nothing, so this is bounded too.
  pending: [],
  frame: undefined,

  show(state, text) {
    $('state').dataset.state = state
    $('state').textContent = text
    const running = this.query !== null
    $('start').disabled = running
    $('stop').disabled = !running
  },

  start() {
    this.stop()
    this.query = new URLSearchParams({ topic: $('filter').value })
    if ($('since').value) this.query.set('since', $('since').value)
    if ($('retained').checked) this.query.set('retained', 'true')
    this.lastEventId = ''
    this.retryMs = RETRY_MS_MIN
    this.open()
  },

  stop() {
    this.run += 1
    this.source?.close()
    this.source = null
    this.query = null
    clearTimeout(this.retryTimer)
    this.show('stopped', 'Stopped')
  },

  fail(text) {
    this.stop()
    this.show('problem', text)
  },

  // An EventSource cannot tell why it was refused, and has no credentials but a cookie. So a ticket is asked for first:
  // the answer tells whether we are known, and who has no cookie takes the ticket along.
  async open() {
    const run = ++this.run
    this.show(this.lastEventId ? 'reconnecting' : 'connecting', this.lastEventId ? 'Reconnecting…' : 'Connecting…')
    let ticket = null
    try {
      ticket = (await (await request('v1/tickets', { method: 'POST' })).json()).ticket
    } catch (error) {
      if (run !== this.run) return
      if (error.status === 401) return this.unauthorized()
      if (error.status === 0 || error.status >= 500) return this.later(error.message)
    }
    if (run !== this.run) return
    const query = this.resumed()
    const ticketed = login.authorization !== null && ticket !== null
    if (ticketed) query.set('ticket', ticket)
    const source = new EventSource(at(`v1/events?${search(query)}`))
    this.source = source
    source.onopen = () => {
      this.retryMs = RETRY_MS_MIN
      this.show('live', 'Live')
    }
    source.onmessage = (event) => this.receive(event, message)
    source.addEventListener('gap', (event) => this.receive(event, gap))
    source.addEventListener('goodbye', (event) => this.goodbye(event))
    source.onerror = () => {
      if (run !== this.run) return
      // A ticket is good for one connection, so the next one is made here, not by the EventSource.
      const refused = source.readyState === EventSource.CLOSED
      if (!refused && !ticketed) return this.show('reconnecting', 'Reconnecting…')
      source.close()
      // Where an EventSource is before its first event, it tells nobody.
      if (!this.lastEventId && !refused) this.add(['notice', 'The connection was lost: what is published meanwhile may be missing.'])
      if (refused) this.explain()
      else this.later('Connection lost')
    }
  },

  // The query with the place where we are. Retained Messages have come already.
  resumed() {
    const query = new URLSearchParams(this.query)
    if (this.lastEventId) {
      query.set('last_event_id', this.lastEventId)
      query.delete('since')
      query.delete('retained')
    }
    return query
  },

  // Asks for the reason that an EventSource does not tell.
  async explain() {
    const run = this.run
    const abort = new AbortController()
    try {
      await request(`v1/events?${search(this.resumed())}`, { headers: { Accept: 'text/event-stream' }, signal: abort.signal })
      if (run === this.run) this.later('The stream was closed')
    } catch (error) {
      if (run !== this.run) return
      if (error.status === 401) this.unauthorized()
      else if (error.status >= 400 && error.status < 500 && ![408, 425, 429].includes(error.status)) this.fail(error.message)
      else this.later(error.message)
    } finally {
      abort.abort()
    }
  },

  later(why) {
    const seconds = Math.round(this.retryMs / 1000)
    this.show('reconnecting', `${why}; trying again in ${seconds} s`)
    clearTimeout(this.retryTimer)
    this.retryTimer = setTimeout(() => this.open(), this.retryMs)
    this.retryMs = Math.min(this.retryMs * 2, RETRY_MS_MAX)
  },

  unauthorized() {
    const { query, lastEventId } = this
    const why = wrongLogin()
    this.fail('Not logged in')
    login.ask(why, () => {
      if (this.query) return
      this.query = query
      this.lastEventId = lastEventId
      this.open()
    })
  },

  receive(event, line) {
    if (event.lastEventId) this.lastEventId = event.lastEventId
    if (event.type === 'message') this.seen += 1
    this.add(line(event))
  },

  goodbye(event) {
    let reason = ''
    try { reason = JSON.parse(event.data).reason } catch { /* It is over all the same. */ }
    this.add(['notice', `The server ended the stream: ${reason || 'it gave no reason'}.`])
    if (reason === 'unauthorized' || reason === 'expired') this.unauthorized()
  },

  add(line) {
    this.pending.push(line)
    if (this.pending.length > LINES_MAX) this.pending.splice(0, this.pending.length - LINES_MAX)
    this.frame ??= requestAnimationFrame(() => this.draw())
  },

  draw() {
    this.frame = undefined
    const list = $('messages')
    const lines = document.createDocumentFragment()
    for (const line of this.pending.splice(0).reverse()) lines.append(draw(line))
    list.prepend(lines)
    while (list.childElementCount > LINES_MAX) list.lastElementChild.remove()
    $('count').textContent = this.seen > LINES_MAX ? `${this.seen} messages, the last ${LINES_MAX} shown` : `${this.seen} ${this.seen === 1 ? 'message' : 'messages'}`
  },

  clear() {
    this.seen = 0
    this.pending = []
    $('messages').replaceChildren()
    $('count').textContent = ''
  },
}

// What is shown of an event: [kind, text], or ['message', envelope].
function message(event) {
  try {
    return ['message', JSON.parse(event.data)]
  } catch {
    return ['notice', `An event that is not JSON: ${event.data.slice(0, PAYLOAD_SHOWN_MAX)}`]
  }
}

function gap(event) {
  let what = {}
  try { what = JSON.parse(event.data) } catch { /* That there is a gap is known. */ }
  const lost = what.lost === undefined ? 'Messages are missing here' : `${what.lost} ${what.lost === 1 ? 'message is' : 'messages are'} missing here`
  return ['gap', what.oldest ? `${lost}: the oldest that is left is ${what.oldest}.` : `${lost}.`]
}

function draw([kind, content]) {
  if (kind !== 'message') return element('li', kind, content)
  const line = element('li', 'message')
  const about = element('div', 'about')
  about.append(element('span', 'topic', content.topic))
  if (content.time) {
    const time = element('time', '', new Date(content.time).toLocaleString())
    time.dateTime = time.title = content.time
    about.append(time)
  }
  about.append(element('span', 'qos', `QoS ${content.qos}`))
  if (content.retain) about.append(element('span', 'retained', 'retained'))
  const [note, text] = content.payload_base64 === undefined ? readable(content.payload ?? '') : binary(content.payload_base64)
  if (note) about.append(element('span', 'kind', note))
  line.append(about, element('pre', 'payload', text))
  if (content.id) line.title = content.id
  return line
}

function readable(text) {
  if (text === '') return ['empty', '']
  if (text.length > PAYLOAD_SHOWN_MAX) return [`the first ${PAYLOAD_SHOWN_MAX} of ${text.length} characters`, text.slice(0, PAYLOAD_SHOWN_MAX)]
  return ['', pretty(text)]
}

function binary(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))
  const shown = bytes.subarray(0, BINARY_SHOWN_MAX)
  const rows = []
  for (let from = 0; from < shown.length; from += 16) {
    rows.push(Array.from(shown.subarray(from, from + 16), (byte) => byte.toString(16).padStart(2, '0')).join(' '))
  }
  const part = shown.length < bytes.length ? `, the first ${shown.length} shown` : ''
  return [`binary, ${bytes.length} bytes${part}`, rows.join('\n')]
}

// JSON with a line for each member. The text is laid out, not parsed and written anew: numbers keep their digits and
// members their order, and what occurs twice stays so.
function pretty(text) {
  if (!/^\s*[[{]/.test(text)) return text
  try { JSON.parse(text) } catch { return text }
  let out = ''
  let depth = 0
  const indent = () => `\n${'  '.repeat(Math.min(depth, 40))}`
  let open = false
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"|[^\s"[\]{},:]+|[[\]{},:]/gs)) {
    if (token === '}' || token === ']') {
      depth -= 1
      out += open ? token : indent() + token
      open = false
      continue
    }
    if (open) out += indent()
    open = token === '{' || token === '['
    if (open) depth += 1
    out += token
    if (token === ',') out += indent()
    else if (token === ':') out += ' '
    // Deep nesting would make much of little.
    if (out.length > 4 * PAYLOAD_SHOWN_MAX) return text
  }
  return out
}

// --- Publishing ------------------------------------------------------------------------------------------------------

async function publish() {
  const topic = $('topic').value
  const payload = $('payload').value
  const qos = Number($('qos').value)
  const retain = $('retain').checked
  const answer = (state, text) => {
    $('answer').dataset.state = state
    $('answer').textContent = text
  }
  $('publish').disabled = true
  answer('', 'Publishing…')
  try {
    let said
    const levels = topic.split('/')
    // A URL cannot hold a level of one or two dots: it would be taken for a step in the path.
    if (levels.includes('.') || levels.includes('..')) {
      const response = await request('v1/publish', {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ topic, payload, qos, retain }),
      })
      said = await response.json()
    } else {
      const query = new URLSearchParams({ qos, retain })
      const response = await request(`v1/topics/${levels.map(encodeURIComponent).join('/')}?${search(query)}`, {
        method: 'POST',
        // Bytes, for which a browser declares no content type.
        body: new TextEncoder().encode(payload),
      })
      said = await response.json()
    }
    const reached = said.matched === 1 ? '1 subscription' : `${said.matched} subscriptions`
    const cleared = retain && payload === '' ? ' The Retained Message is cleared.' : ''
    answer('good', `Published with QoS ${said.qos ?? qos} to ${reached}.${cleared}`)
  } catch (error) {
    answer('problem', error.message)
    if (error.status === 401) login.ask(wrongLogin(), publish)
  } finally {
    $('publish').disabled = false
  }
}

// --- Addresses and commands ------------------------------------------------------------------------------------------

const mqttPort = document.body.dataset.mqttPort

function showAddresses() {
  const socket = (path) => {
    const url = at(path)
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:'
    return url.href
  }
  $('at-mqtt').textContent = mqttPort ? `${location.hostname}:${mqttPort}` : 'not offered'
  $('at-mqtt-ws').textContent = socket('mqtt')
  $('at-ws').textContent = socket('v1/ws')
  $('at-events').textContent = `${at('v1/events').href}?topic=…`
  $('at-publish').textContent = `${at('v1/topics/').href}…`
  $('at-messages').textContent = `${at('v1/messages').href}?topic=…`
}

// One word for a POSIX shell.
const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`)

function showCommands() {
  const filter = $('filter').value
  const topic = $('topic').value
  const payload = $('payload').value
  const basic = login.user === null ? '' : `-u ${quoted(login.user)} `
  const host = location.hostname.replace(/^\[|\]$/g, '')
  const mqtt = `-h ${quoted(host)} -p ${mqttPort}${login.user === null ? '' : ` -u ${quoted(login.user)} -P PASSWORD`}`
  const path = topic.split('/').map(encodeURIComponent).join('/')
  const query = ['qos=' + $('qos').value]
  if ($('retain').checked) query.push('retain=true')
  $('curl-listen').textContent = `curl -N ${basic}${quoted(`${at('v1/events').href}?topic=${encodeURIComponent(filter).replaceAll('%2F', '/')}`)}`
  $('curl-publish').textContent = `curl ${basic}--data-raw ${quoted(payload)} ${quoted(`${at('v1/topics/').href}${path}?${query.join('&')}`)}`
  $('mosquitto-listen').textContent = `mosquitto_sub ${mqtt} -t ${quoted(filter)} -v`
  $('mosquitto-publish').textContent = `mosquitto_pub ${mqtt} -q ${$('qos').value}${$('retain').checked ? ' -r' : ''} -t ${quoted(topic)} -m ${quoted(payload)}`
  for (const id of ['mosquitto-listen', 'mosquitto-publish']) $(id).parentElement.hidden = !mqttPort
}

function addCopyButtons() {
  // Browsers lend the clipboard to secure origins only.
  if (!navigator.clipboard) return
  for (const command of document.querySelectorAll('.command')) {
    const button = element('button', '', 'Copy')
    button.type = 'button'
    button.addEventListener('click', async () => {
      try {
        await navigator.clipboard.writeText(command.querySelector('pre').textContent)
        button.textContent = 'Copied'
      } catch {
        button.textContent = 'Not allowed'
      }
      setTimeout(() => { button.textContent = 'Copy' }, 2000)
    })
    command.append(button)
  }
}

$('login-form').addEventListener('submit', (event) => login.enter(event))
$('logout').addEventListener('click', () => login.leave())
$('listen-form').addEventListener('submit', (event) => {
  event.preventDefault()
  tail.start()
})
$('stop').addEventListener('click', () => tail.stop())
$('clear').addEventListener('click', () => tail.clear())
$('publish-form').addEventListener('submit', (event) => {
  event.preventDefault()
  publish()
})
for (const form of ['listen-form', 'publish-form']) $(form).addEventListener('input', showCommands)

showAddresses()
showCommands()
addCopyButtons()
tail.show('stopped', 'Stopped')
login.look()
