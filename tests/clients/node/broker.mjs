// Starts a real broker for the client tests and ends it again. The same rules as in ../python/broker.py:
// `TIDINGS_BIN` names the binary, `TIDINGS_TEST_BROKER=host:port` a broker that already runs.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

import { within } from './client.mjs'

const REPOSITORY = fileURLToPath(new URL('../../..', import.meta.url))
const START_TIMEOUT_SECS = 30
const READY = /\bready\b.*\bmqtt="?(\[[^\]]+\]|[^\s,:"]+):(\d+)/
// eslint-disable-next-line no-control-regex
const COLOUR = /\x1b\[[0-9;]*m/g

export class Broker {
  log = []

  static async start() {
    const broker = new Broker()
    const external = process.env.TIDINGS_TEST_BROKER
    if (external) {
      const colon = external.lastIndexOf(':')
      broker.host = external.slice(0, colon)
      broker.port = Number(external.slice(colon + 1))
      return broker
    }
    const binary = process.env.TIDINGS_BIN ?? join(REPOSITORY, 'target', 'debug', 'tidings')
    broker.directory = await mkdtemp(join(tmpdir(), 'tidings-'))
    const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith('TIDINGS_')))
    env.TIDINGS_MQTT_LISTEN = '127.0.0.1:0'
    env.TIDINGS_HTTP_LISTEN = '127.0.0.1:0'
    env.TIDINGS_STORE_PATH = join(broker.directory, 'data')
    broker.process = spawn(binary, [], { cwd: broker.directory, env, stdio: ['ignore', 'ignore', 'pipe'] })
    broker.exited = once(broker.process, 'exit')
    const ready = new Promise((resolve, reject) => {
      broker.process.on('error', reject)
      // The pipe is read to its end: a broker that logs must never block on us.
      createInterface({ input: broker.process.stderr })
        .on('line', (line) => {
          broker.log.push(line.replace(COLOUR, ''))
          const found = READY.exec(broker.log.at(-1))
          if (found) resolve(found)
        })
        .on('close', () => reject(new Error(`the broker did not become ready; its log:\n${broker.log.join('\n')}`)))
    })
    const [, host, port] = await within(ready, 'ready broker', START_TIMEOUT_SECS)
    broker.host = host.replace(/^\[|\]$/g, '')
    broker.port = Number(port)
    return broker
  }

  // Ends the broker as systemd would, and expects it to go in good order.
  async stop() {
    if (!this.process) return
    const log = () => `the broker's log:\n${this.log.join('\n')}`
    assert.equal(this.process.exitCode, null, `the broker ended by itself; ${log()}`)
    this.process.kill('SIGTERM')
    try {
      const [code] = await within(this.exited, 'end of the broker')
      assert.equal(code, 0, `exit code after SIGTERM; ${log()}`)
    } finally {
      this.process.kill('SIGKILL')
      await rm(this.directory, { recursive: true, force: true })
    }
    assert.deepEqual(this.log.filter((line) => line.includes('panicked')), [])
  }
}
