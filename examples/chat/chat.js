// A chat room is a topic; what is said in it is a message.
'use strict'

const query = new URLSearchParams(location.search)
const broker = new URL(query.get('broker') ?? `http://${location.hostname}:8080`)
const topic = `chat/${query.get('room') ?? 'lobby'}`
const $ = (id) => document.getElementById(id)

let socket
// Where we are in the log: the id of the last message that we have seen.
let since
// What was said and is not acknowledged yet, by the id of its request.
const outbox = new Map()
let requests = 0
// The keys of what is shown.
const shown = new Set()

function connect() {
  socket = new WebSocket(`${broker.origin.replace(/^http/, 'ws')}/v1/ws`, 'tidings.v1.json')
  socket.onopen = () => {
    // Without `since` the subscription begins now.
    socket.send(JSON.stringify({ type: 'subscribe', id: 'subscribe', filter: topic, since }))
  }
  socket.onmessage = ({ data }) => receive(JSON.parse(data))
  // A connection that cannot be opened is closed too.
  socket.onclose = () => {
    $('state').textContent = 'Reconnecting…'
    setTimeout(connect, 500 + Math.random() * 1000)
  }
}

function receive(said) {
  if (said.type === 'message') {
    since = said.message.id
    show(said.message)
  } else if (said.type === 'gap') {
    line('', 'Some messages are lost: we were away for too long.')
  } else if (said.type === 'ok' && said.id === 'subscribe') {
    // A first subscription begins where the server says, so that nothing is missed even if we lose it at once.
    since ??= said.cursor
    $('state').textContent = 'Connected'
    for (const [id, message] of outbox) publish(id, message)
  } else if (said.type === 'ok') {
    outbox.delete(said.id)
  } else if (said.type === 'error') {
    // What may succeed later stays in the outbox, and is sent again with the next connection.
    if (!said.temporary) outbox.delete(said.id)
    $('state').textContent = said.message
  }
}

function publish(id, message) {
  // Otherwise it is sent when the connection is there.
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: 'publish', id, message }))
}

function show({ payload, payload_base64: bytes }) {
  let said
  try { said = JSON.parse(payload) } catch { return line('?', payload ?? `bytes ${bytes}`) }
  if (shown.has(said?.key)) return
  if (said?.key) shown.add(said.key)
  line(String(said?.name), String(said?.text))
}

function line(name, text) {
  const item = document.createElement('li')
  const who = document.createElement('b')
  who.textContent = name
  // Never as HTML: it comes from strangers.
  item.append(who, ' ', text)
  $('said').append(item)
}

$('form').addEventListener('submit', (event) => {
  event.preventDefault()
  const key = `${Date.now()}-${Math.random().toString(36).slice(2)}`
  const payload = JSON.stringify({ key, name: $('name').value, text: $('text').value })
  const message = { topic, payload, qos: 1 }
  const id = ++requests
  outbox.set(id, message)
  publish(id, message)
  $('text').value = ''
})

connect()
