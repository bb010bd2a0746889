// Node's mqtt as a command, so that the client tests can let it talk to clients in other languages.
// ../rust/peer.rs is the same for rumqttc.
//
//   peer.mjs sub v31|v311|v5 127.0.0.1:1883 FILTER          says `subscribed`, then a line per message, until stdin ends
//   peer.mjs pub v31|v311|v5 127.0.0.1:1883 TOPIC QOS [NAME=VALUE]...   publishes stdin, with user properties in MQTT 5
//
// A line is `message`, topic, QoS, payload as hexadecimal digits and user properties as `name=value`, between tabs.

import { buffer } from 'node:stream/consumers'
import mqtt from 'mqtt'

import { VERSIONS } from './client.mjs'

const [command, version, address, ...rest] = process.argv.slice(2)
const [host, port] = address.split(':')
const client = await mqtt.connectAsync({ host, port: Number(port), ...VERSIONS[version], reconnectPeriod: 0 })

if (command === 'sub') {
  client.on('message', (topic, payload, { qos, properties }) => {
    const users = Object.entries(properties?.userProperties ?? {}).flatMap(([name, values]) => [values].flat().map((value) => `${name}=${value}`))
    console.log(['message', topic, qos, payload.toString('hex'), ...users].join('\t'))
  })
  await client.subscribeAsync(rest[0], { qos: 2 })
  console.log('subscribed')
  await buffer(process.stdin)
} else {
  const [topic, qos, ...properties] = rest
  const userProperties = Object.fromEntries(properties.map((property) => property.split('=')))
  await client.publishAsync(topic, await buffer(process.stdin), { qos: Number(qos), ...(version === 'v5' && { properties: { userProperties } }) })
}
await client.endAsync()
