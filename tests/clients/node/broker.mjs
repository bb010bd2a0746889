// Starts a real broker for the client tests and ends it again. The same rules as in ../python/broker.py:
// `TIDINGS_BIN` names the binary, `TIDINGS_TEST_BROKER=host:port` a broker that already runs.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

import { within } from './client.mjs'

const REPOSITORY = fileURLToPath(new URL('../../..', import.meta.url))
export const BINARY = process.env.TIDINGS_BIN ?? join(REPOSITORY, 'target', 'debug', 'tidings')
const START_TIMEOUT_SECS = 30
const READY = /\bready\b/
// `mqtt=127.0.0.1:1883 http=[::1]:8080`
const ADDRESS = (name) => new RegExp(`\\b${name}="?(\\[[^\\]]+\\]|[^\\s,:"]+):(\\d+)`)
// eslint-disable-next-line no-control-regex
const COLOUR = /\x1b\[[0-9;]*m/g

export class Broker {
  log = []

  // `settings` are given with `--set`, `files` are written to its directory first; of these, `broker.toml` is its
  // configuration. `own`: never the broker that runs already.
  static async start({ settings = {}, files = {}, own = false } = {}) {
    const broker = new Broker()
    const external = process.env.TIDINGS_TEST_BROKER
    if (external && !own) {
      const colon = external.lastIndexOf(':')
      broker.host = external.slice(0, colon)
      broker.port = Number(external.slice(colon + 1))
      return broker
    }
    broker.directory = await mkdtemp(join(tmpdir(), 'tidings-'))
    for (const [name, content] of Object.entries(files)) await writeFile(join(broker.directory, name), content, { mode: 0o600 })
    broker.arguments = Object.entries(settings).flatMap(([key, value]) => ['--set', `${key}=${value}`])
    if ('broker.toml' in files) broker.arguments.push('--config', 'broker.toml')
    await broker.launch('127.0.0.1:0', '127.0.0.1:0')
    return broker
  }

  // `http://127.0.0.1:8080`
  get url() {
    return `http://${this.http}`
  }

  async launch(mqtt, http) {
    const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith('TIDINGS_')))
    env.TIDINGS_MQTT_LISTEN = mqtt
    env.TIDINGS_HTTP_LISTEN = http
    env.TIDINGS_STORE_PATH = join(this.directory, 'data')
    this.process = spawn(BINARY, this.arguments, { cwd: this.directory, env, stdio: ['ignore', 'ignore', 'pipe'] })
    this.exited = once(this.process, 'exit')
    const ready = new Promise((resolve, reject) => {
      this.process.on('error', reject)
      // The pipe is read to its end: a broker that logs must never block on us.
      createInterface({ input: this.process.stderr })
        .on('line', (line) => {
          this.log.push(line.replace(COLOUR, ''))
          if (READY.test(this.log.at(-1)) && ADDRESS('mqtt').test(this.log.at(-1))) resolve(this.log.at(-1))
        })
        .on('close', () => reject(new Error(`the broker did not become ready; its log:\n${this.log.join('\n')}`)))
    })
    const line = await within(ready, 'ready broker', START_TIMEOUT_SECS)
    const [, host, port] = ADDRESS('mqtt').exec(line)
    this.host = host.replace(/^\[|\]$/g, '')
    this.port = Number(port)
    const found = ADDRESS('http').exec(line)
    this.http = found && `${found[1]}:${found[2]}`
  }

  // Takes the broker away as a crash would.
  async kill() {
    this.process.kill('SIGKILL')
    await within(this.exited, 'end of the killed broker')
  }

  // Starts it again where it was, with what it has on disk.
  async restart() {
    await this.launch(`${this.host}:${this.port}`, this.http ?? '127.0.0.1:0')
  }

  // Ends the broker as systemd would, and expects it to go in good order.
  async end() {
    const log = () => `the broker's log:\n${this.log.join('\n')}`
    assert.equal(this.process.exitCode, null, `the broker ended by itself; ${log()}`)
    this.process.kill('SIGTERM')
    const [code] = await within(this.exited, 'end of the broker')
    assert.equal(code, 0, `exit code after SIGTERM; ${log()}`)
  }

  // Ends it for good.
  async stop() {
    if (!this.process) return
    try {
      await this.end()
    } finally {
      this.process.kill('SIGKILL')
      await rm(this.directory, { recursive: true, force: true })
    }
    assert.deepEqual(this.log.filter((line) => line.includes('panicked')), [])
  }
}
