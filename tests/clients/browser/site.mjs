// A website that is not the broker's: an origin of its own, with an empty page and mqtt.js.

import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'

const MQTT_JS = new URL('../node_modules/mqtt/dist/mqtt.min.js', import.meta.url)

export class Site {
  static async start() {
    const site = new Site()
    const script = await readFile(MQTT_JS)
    site.server = createServer((request, response) => {
      if (request.url === '/mqtt.js') return response.writeHead(200, { 'Content-Type': 'text/javascript' }).end(script)
      if (request.url !== '/') return response.writeHead(404).end()
      response.writeHead(200, { 'Content-Type': 'text/html' }).end('<!doctype html><title>elsewhere</title><script src="/mqtt.js"></script>')
    })
    site.server.listen(0, '127.0.0.1')
    await once(site.server, 'listening')
    site.origin = `http://127.0.0.1:${site.server.address().port}`
    return site
  }

  async stop() {
    this.server.close()
    this.server.closeAllConnections()
    await once(this.server, 'close')
  }
}
