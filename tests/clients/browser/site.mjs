// A website that is not the broker's, an origin of its own: an empty page with mqtt.js, or the files of a directory.

import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { extname, join } from 'node:path'

const MQTT_JS = new URL('../node_modules/mqtt/dist/mqtt.min.js', import.meta.url)

const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css' }

export class Site {
  static async start(directory) {
    const site = new Site()
    if (directory) {
      site.server = createServer(async (request, response) => {
        const path = request.url.split('?')[0]
        try {
          const content = await readFile(join(directory, path === '/' ? 'index.html' : path.slice(1)))
          response.writeHead(200, { 'Content-Type': TYPES[extname(path)] ?? TYPES['.html'] }).end(content)
        } catch {
          response.writeHead(404).end()
        }
      })
      return site.listen()
    }
    const script = await readFile(MQTT_JS)
    site.server = createServer((request, response) => {
      if (request.url === '/mqtt.js') return response.writeHead(200, { 'Content-Type': 'text/javascript' }).end(script)
      if (request.url !== '/') return response.writeHead(404).end()
      response.writeHead(200, { 'Content-Type': 'text/html' }).end('<!doctype html><title>elsewhere</title><script src="/mqtt.js"></script>')
    })
    return site.listen()
  }

  async listen() {
    this.server.listen(0, '127.0.0.1')
    await once(this.server, 'listening')
    this.origin = `http://127.0.0.1:${this.server.address().port}`
    return this
  }

  async stop() {
    this.server.close()
    this.server.closeAllConnections()
    await once(this.server, 'close')
  }
}
