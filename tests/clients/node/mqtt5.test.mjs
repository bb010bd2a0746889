// Node's mqtt against the broker: what only MQTT 5 has.

import assert from 'node:assert/strict'

import { persistent } from './client.mjs'
import { scenario } from './fixture.mjs'

const V5 = 'v5'
const text = (message) => message.payload.toString()

const PROPERTIES = {
  payloadFormatIndicator: true,
  contentType: 'application/json',
  responseTopic: 'answers/here',
  correlationData: Buffer.from(Array.from({ length: 256 }, (_, i) => i)),
  userProperties: { b: ['1', '3'], a: '2', ключ: 'значение' },
}

const forwarded = ({ properties }) =>
  Object.fromEntries(Object.entries(properties).filter(([key]) => key in PROPERTIES).map(([key, value]) => [key, key === 'userProperties' ? { ...value } : value]))

for (const qos of [0, 1, 2]) {
  scenario(`properties are forwarded unchanged at QoS ${qos}`, V5, async ({ connect, name }) => {
    const client = await connect()
    await client.subscribe(name, qos)
    await client.publish(name, '{}', qos, { properties: PROPERTIES })
    assert.deepEqual(forwarded(await client.message()), PROPERTIES)
  })
}

scenario('a will carries its properties', V5, async ({ connect, name }) => {
  const watcher = await connect()
  await watcher.subscribe(name, 1)
  await (await connect({ will: { topic: name, payload: Buffer.from('gone'), qos: 1, retain: false, properties: PROPERTIES } })).abort()
  assert.deepEqual(forwarded(await watcher.message()), PROPERTIES)
})

scenario('DISCONNECT with 0x04 asks for the will', V5, async ({ connect, name }) => {
  const watcher = await connect()
  await watcher.subscribe(name, 1)
  const client = await connect({ will: { topic: name, payload: Buffer.from('asked for'), qos: 1, retain: false } })
  await client.disconnect({ reasonCode: 0x04 })
  assert.equal(text(await watcher.message()), 'asked for')
})

scenario('a will waits for its delay', V5, async ({ connect, name }) => {
  const watcher = await connect()
  await watcher.subscribe(name, 1)
  const will = { topic: name, payload: Buffer.from('gone'), qos: 1, retain: false, properties: { willDelayInterval: 1 } }
  const client = await connect({ ...persistent(V5, name), will })
  const lost = performance.now()
  await client.abort()
  assert.equal(text(await watcher.message()), 'gone')
  assert.ok(performance.now() - lost >= 900)
})

scenario('the broker chooses a Client Identifier and tells it', V5, async ({ connect }) => {
  const client = await connect({ clientId: '' })
  assert.ok(client.connack.properties.assignedClientIdentifier)
})

scenario('what is left of the Message Expiry Interval is forwarded', V5, async ({ connect, name }) => {
  const client = await connect()
  await client.subscribe(name, 1)
  await client.publish(name, '', 1, { properties: { messageExpiryInterval: 100 } })
  const { messageExpiryInterval } = (await client.message()).properties
  assert.ok(messageExpiryInterval > 90 && messageExpiryInterval <= 100, messageExpiryInterval)
})

scenario('a client may replace its topics by aliases of its own', V5, async ({ connect, name }) => {
  const subscriber = await connect()
  await subscriber.subscribe(`${name}/#`, 1)
  const publisher = await connect({ autoAssignTopicAlias: true })
  const bare = []
  publisher.mqtt.on('packetsend', (packet) => { if (packet.cmd === 'publish' && packet.topic === '') bare.push(packet) })
  const sent = Array.from({ length: 12 }, (_, i) => `${name}/${i % 3}`)
  for (const topic of sent) await publisher.publish(topic, '', 1)
  assert.deepEqual((await subscriber.messages(sent.length)).map(({ topic }) => topic), sent)
  assert.ok(bare.length > 0, 'the client used no alias')
})

scenario('a client that allows aliases can tell the topics of all messages', V5, async ({ connect, name }) => {
  const subscriber = await connect({ properties: { topicAliasMaximum: 2 } })
  await subscriber.subscribe(`${name}/#`, 1)
  const publisher = await connect()
  const sent = Array.from({ length: 12 }, (_, i) => `${name}/${i % 4}`)
  for (const topic of sent) await publisher.publish(topic, '', 1)
  assert.deepEqual((await subscriber.messages(sent.length)).map(({ topic }) => topic), sent)
})

scenario('overlapping subscriptions give one delivery with the identifiers of all', V5, async ({ connect, name }) => {
  const client = await connect()
  await client.subscribe(`${name}/a`, 0, { properties: { subscriptionIdentifier: 7 } })
  await client.subscribe(`${name}/+`, 2, { properties: { subscriptionIdentifier: 268_435_455 } })
  await client.publish(`${name}/a`, 'both match', 2)
  await client.publish(`${name}/b`, 'one matches', 2)
  const got = await client.messages(2)
  assert.deepEqual(got.map(text), ['both match', 'one matches'])
  // The library gives one identifier as a number, several as an array.
  const identifiers = got.map(({ properties }) => [properties.subscriptionIdentifier].flat().sort((a, b) => a - b))
  assert.deepEqual(identifiers, [[7, 268_435_455], [268_435_455]])
  assert.equal(got[0].qos, 2)
  client.nothingElse()
})

scenario('DISCONNECT may end the session', V5, async ({ connect, name }) => {
  await (await connect(persistent(V5, name))).disconnect()
  const back = await connect(persistent(V5, name))
  assert.equal(back.connack.sessionPresent, true)
  await back.disconnect({ properties: { sessionExpiryInterval: 0 } })
  assert.equal((await connect(persistent(V5, name, 0))).connack.sessionPresent, false)
})

scenario('UNSUBACK tells whether there was a subscription', V5, async ({ connect, name }) => {
  const client = await connect()
  await client.subscribe(name, 1)
  assert.equal(await client.unsubscribe(name), 0x00)
  assert.equal(await client.unsubscribe(name), 0x11) // No subscription existed
})

scenario('No Local spares a client its own messages', V5, async ({ connect, name }) => {
  const [client, other] = [await connect(), await connect()]
  await client.subscribe(name, 1, { nl: true })
  await client.publish(name, 'own', 1)
  await other.publish(name, 'other', 1)
  assert.equal(text(await client.message()), 'other')
})

scenario('Retain As Published keeps the flag, Retain Handling 2 sends nothing retained', V5, async ({ connect, name }) => {
  const [client, publisher] = [await connect(), await connect()]
  await publisher.publish(name, 'before', 1, { retain: true })
  await client.subscribe(name, 1, { rap: true, rh: 2 })
  await publisher.publish(name, 'after', 1, { retain: true })
  const got = await client.message()
  assert.deepEqual([text(got), got.retain], ['after', true])
  await publisher.publish(name, '', 1, { retain: true })
})

scenario('a message that is too large for a client is left out for it', V5, async ({ connect, name }) => {
  const [client, publisher] = [await connect({ properties: { maximumPacketSize: 1000 } }), await connect()]
  await client.subscribe(name, 1)
  await publisher.publish(name, Buffer.alloc(2000), 1)
  await publisher.publish(name, 'fits', 1)
  assert.equal(text(await client.message()), 'fits')
})
