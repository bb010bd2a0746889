// Node's mqtt with its events turned into things that a test can wait for.

import assert from 'node:assert/strict'
import mqtt from 'mqtt'

const TIMEOUT_SECS = 20

// MQTT 3.1 also has another name for the protocol.
export const VERSIONS = {
  v31: { protocolVersion: 3, protocolId: 'MQIsdp' },
  v311: { protocolVersion: 4 },
  v5: { protocolVersion: 5 },
}

// The outcome of `promise`, or a failure that says what was waited for.
export async function within(promise, what, seconds = TIMEOUT_SECS) {
  let timer
  const timeout = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new assert.AssertionError({ message: `${what}: none within ${seconds} s` })), seconds * 1000)
  })
  try {
    return await Promise.race([promise, timeout])
  } finally {
    clearTimeout(timer)
  }
}

// Asks for a session that outlives its connection.
export function persistent(version, clientId, sessionExpiryInterval = 300) {
  return { clientId, clean: false, ...(version === 'v5' && { properties: { sessionExpiryInterval } }) }
}

// A connected client. It never reconnects by itself: a lost connection is something the test wants to see.
export class Client {
  #messages = []
  #waiting = []

  static async connect(broker, version, options = {}) {
    const client = new Client()
    client.version = version
    client.mqtt = mqtt.connect({
      host: broker.host,
      port: broker.port,
      ...VERSIONS[version],
      reconnectPeriod: 0,
      resubscribe: false,
      ...options,
    })
    client.mqtt.on('message', (topic, payload, packet) => {
      const message = { topic, payload, qos: packet.qos, retain: packet.retain, dup: packet.dup, properties: packet.properties ?? {} }
      const next = client.#waiting.shift()
      if (next) next(message)
      else client.#messages.push(message)
    })
    client.closed = new Promise((resolve) => client.mqtt.once('close', resolve))
    client.mqtt.on('disconnect', (packet) => { client.disconnectReason = packet.reasonCode })
    const connected = new Promise((resolve, reject) => {
      client.mqtt.once('connect', resolve)
      client.mqtt.once('error', reject)
      client.closed.then(() => reject(new Error('closed before CONNACK')))
    })
    client.connack = await within(connected, 'CONNACK')
    // A connection that is lost later shows as `closed`; the error beside it needs a listener.
    client.mqtt.on('error', () => {})
    return client
  }

  // Subscribes, waits for SUBACK and gives its code: the granted QoS, or 0x80 and above.
  async subscribe(filter, qos = 0, options = {}) {
    const [grant] = await within(this.mqtt.subscribeAsync(filter, { qos, ...options }), 'SUBACK')
    return grant.qos
  }

  async unsubscribe(filter) {
    const packet = await within(this.mqtt.unsubscribeAsync(filter), 'UNSUBACK')
    return packet?.granted?.[0]
  }

  // Publishes and waits until the broker has acknowledged it; the Reason Code in MQTT 5.
  async publish(topic, payload, qos = 0, options = {}) {
    const packet = await within(this.mqtt.publishAsync(topic, payload, { qos, ...options }), 'acknowledgement')
    return packet?.reasonCode
  }

  // The next message, in the order of arrival.
  message() {
    if (this.#messages.length > 0) return Promise.resolve(this.#messages.shift())
    return within(new Promise((resolve) => this.#waiting.push(resolve)), 'message')
  }

  async messages(count) {
    const all = []
    while (all.length < count) all.push(await this.message())
    return all
  }

  // Meaningful behind something that makes sure that all would be there.
  nothingElse() {
    assert.deepEqual(this.#messages, [])
  }

  // Waits until the broker has closed the connection; the Reason Code of its DISCONNECT in MQTT 5.
  async waitClosed() {
    await within(this.closed, 'end of the connection')
    return this.disconnectReason
  }

  // An MQTT DISCONNECT, then the end of the connection.
  async disconnect(options = {}) {
    await within(this.mqtt.endAsync(false, options), 'end')
    await this.closed
  }

  // The end of the connection without a DISCONNECT, as when a device loses power.
  async abort() {
    this.mqtt.stream.destroy()
    await within(this.closed, 'end of the connection')
    await this.mqtt.endAsync(true)
  }
}
