// A TCP proxy in front of a broker: a network that can be cut.

import { once } from 'node:events'
import { connect, createServer } from 'node:net'

export class Proxy {
  #pairs = new Set()
  #refusing = false
  #accepted = 0
  // What the broker said last.
  #said = ''
  #waiting = []

  static async start(host, port) {
    const proxy = new Proxy()
    proxy.server = createServer((near) => proxy.#accept(near, host, port))
    proxy.server.listen(0, '127.0.0.1')
    await once(proxy.server, 'listening')
    proxy.port = proxy.server.address().port
    proxy.url = `http://127.0.0.1:${proxy.port}`
    return proxy
  }

  #accept(near, host, port) {
    if (this.#refusing) return near.resetAndDestroy()
    const far = connect(port, host)
    const pair = [near, far]
    this.#pairs.add(pair)
    const broken = () => {
      // What was ended in good order may still be on its way.
      if (!this.#pairs.delete(pair)) return
      near.destroy()
      far.destroy()
    }
    for (const socket of pair) socket.on('error', broken).on('close', broken)
    near.pipe(far)
    far.pipe(near)
    far.on('data', (data) => {
      this.#said = (this.#said + data.toString('latin1')).slice(-65536)
      this.#wake()
    })
    this.#accepted += 1
    this.#wake()
  }

  #wake() {
    for (const wake of this.#waiting.splice(0)) wake()
  }

  // Resets all connections, in both directions, and refuses new ones until `mend`.
  cut() {
    this.#refusing = true
    for (const sockets of this.#pairs) for (const socket of sockets) socket.resetAndDestroy()
    this.#pairs.clear()
  }

  // Ends all connections in good order, after what the broker has said, and refuses new ones until `mend`.
  end() {
    this.#refusing = true
    for (const [near, far] of this.#pairs) {
      far.unpipe(near)
      near.end()
      far.resetAndDestroy()
    }
    this.#pairs.clear()
  }

  mend() {
    this.#refusing = false
  }

  // How many connections have come through.
  get accepted() {
    return this.#accepted
  }

  // Waits until the broker has said this.
  async said(text) {
    while (!this.#said.includes(text)) await new Promise((resolve) => this.#waiting.push(resolve))
  }

  // Waits for a connection beyond the first `count`.
  async beyond(count) {
    while (this.#accepted <= count) await new Promise((resolve) => this.#waiting.push(resolve))
  }

  async stop() {
    this.cut()
    this.server.close()
    await once(this.server, 'close')
  }
}
