// What the test files share: one broker for a file, clients that are closed after each test, names used once.

import { randomBytes } from 'node:crypto'
import { after, before, test } from 'node:test'

import { Broker } from './broker.mjs'
import { Client } from './client.mjs'

// A hang is a failure, not a long wait.
const TIMEOUT_MS = 60_000

let broker
before(async () => { broker = await Broker.start() })
// That the broker survived all tests and ends in good order is checked here.
after(() => broker.stop())

const run = randomBytes(2).toString('hex')
let serial = 0

// Runs `body` with a function that connects clients, and a name that no other test uses. The name serves as a topic
// to live under and as a Client Identifier; MQTT 3.1 limits those to 23 bytes.
export function scenario(title, version, body) {
  test(`${title} (${version})`, { timeout: TIMEOUT_MS }, async () => {
    const opened = []
    const connect = async (options = {}, other = version) => {
      const client = await Client.connect(broker, other, options)
      opened.push(client)
      return client
    }
    try {
      await body({ connect, version, name: `node-${run}-${serial++}` })
    } catch (error) {
      if (broker.log.length > 0) console.error(`broker log:\n${broker.log.slice(-80).join('\n')}`)
      throw error
    } finally {
      await Promise.all(opened.map((client) => client.mqtt.endAsync(true)))
    }
  })
}
