// Node's mqtt against the broker, in MQTT 3.1, 3.1.1 and 5.

import assert from 'node:assert/strict'

import { VERSIONS, persistent } from './client.mjs'
import { scenario } from './fixture.mjs'

const QOS = [0, 1, 2]
const MEBIBYTE = 1024 * 1024

const text = (message) => message.payload.toString()

// Sends one last message behind all others. Once it is there, nothing before it can still be on its way.
async function flush(publisher, subscriber, topic, qos) {
  await subscriber.subscribe(topic, qos)
  await publisher.publish(topic, 'last', qos)
}

for (const version of Object.keys(VERSIONS)) {
  scenario('connect: a new client has no session', version, async ({ connect, name }) => {
    const client = await connect({ clientId: name })
    assert.ok(!client.connack.sessionPresent)
    await client.disconnect()
  })

  for (const published of QOS) {
    for (const subscribed of QOS) {
      scenario(`a message published at QoS ${published} and subscribed at ${subscribed} arrives once, at the lower`, version, async ({ connect, name }) => {
        const [subscriber, publisher] = [await connect(), await connect()]
        assert.equal(await subscriber.subscribe(name, subscribed), subscribed)
        await publisher.publish(name, 'payload', published)
        const got = await subscriber.message()
        assert.deepEqual([got.topic, text(got), got.qos, got.retain, got.dup], [name, 'payload', Math.min(published, subscribed), false, false])
        await flush(publisher, subscriber, `${name}/end`, subscribed)
        assert.equal((await subscriber.message()).topic, `${name}/end`)
        subscriber.nothingElse()
      })
    }
  }

  for (const qos of QOS) {
    scenario(`many messages at QoS ${qos} arrive complete, once and in order`, version, async ({ connect, name }) => {
      const [subscriber, publisher] = [await connect(), await connect()]
      await subscriber.subscribe(name, qos)
      const expected = Array.from({ length: 300 }, (_, i) => String(i))
      await Promise.all(expected.map((payload) => publisher.publish(name, payload, qos)))
      assert.deepEqual((await subscriber.messages(expected.length)).map(text), expected)
      await flush(publisher, subscriber, `${name}/end`, qos)
      assert.equal((await subscriber.message()).topic, `${name}/end`)
      subscriber.nothingElse()
    })

    scenario(`a payload of one mebibyte at QoS ${qos} arrives byte for byte`, version, async ({ connect, name }) => {
      const payload = Buffer.from({ length: MEBIBYTE }).map((_, i) => i % 251)
      const [subscriber, publisher] = [await connect(), await connect()]
      await subscriber.subscribe(name, qos)
      await publisher.publish(name, payload, qos)
      const got = await subscriber.message()
      assert.ok(got.payload.equals(payload), `${got.payload.length} bytes`)
    })

    scenario(`the last retained message at QoS ${qos} greets a new subscription, and an empty one takes it away`, version, async ({ connect, name }) => {
      const publisher = await connect()
      await publisher.publish(name, 'first', qos, { retain: true })
      await publisher.publish(name, 'second', qos, { retain: true })
      // QoS 0 has no acknowledgement: this one comes behind it.
      await publisher.publish(`${name}/end`, '', 1)

      const early = await connect()
      await early.subscribe(name, qos)
      const greeting = await early.message()
      assert.deepEqual([text(greeting), greeting.qos, greeting.retain], ['second', qos, true])
      await publisher.publish(name, 'third', qos, { retain: true })
      const live = await early.message()
      assert.deepEqual([text(live), live.retain], ['third', false])

      await publisher.publish(name, '', qos, { retain: true })
      assert.equal(text(await early.message()), '')
      const late = await connect()
      await late.subscribe(name, qos)
      await flush(publisher, late, `${name}/end`, qos)
      assert.equal((await late.message()).topic, `${name}/end`)
    })

    scenario(`a client that vanishes has its will published at QoS ${qos}`, version, async ({ connect, name }) => {
      const watcher = await connect()
      await watcher.subscribe(name, 2)
      const client = await connect({ clientId: name, will: { topic: name, payload: Buffer.from('gone'), qos, retain: false } })
      await client.abort()
      const got = await watcher.message()
      assert.deepEqual([text(got), got.qos, got.retain], ['gone', qos, false])
    })
  }

  scenario('topics and payloads are carried as they are', version, async ({ connect, name }) => {
    const [subscriber, publisher] = [await connect(), await connect()]
    await subscriber.subscribe(`${name}/#`, 1)
    const cases = [
      [name, Buffer.alloc(0)],
      [`${name}/`, Buffer.from(Array.from({ length: 256 }, (_, i) => i))],
      [`${name}//a`, Buffer.from('empty level')],
      [`${name}/Zürich/東京/🌦`, Buffer.from('17 °C')],
    ]
    for (const [topic, payload] of cases) await publisher.publish(topic, payload, 1)
    assert.deepEqual((await subscriber.messages(cases.length)).map(({ topic, payload }) => [topic, payload]), cases)
  })

  scenario('wildcards: + stands for one level, # for the rest', version, async ({ connect, name }) => {
    const [single, rest, publisher] = [await connect(), await connect(), await connect()]
    await single.subscribe(`${name}/+/c`, 1)
    await rest.subscribe(`${name}/a/#`, 1)
    for (const level of ['a', 'a/b', 'a/c', 'b/c', 'a/b/c', 'b']) await publisher.publish(`${name}/${level}`, '', 1)
    await flush(publisher, single, `${name}/end`, 1)
    await flush(publisher, rest, `${name}/end`, 1)
    const levels = (messages) => messages.map(({ topic }) => topic.slice(name.length + 1))
    assert.deepEqual(levels(await single.messages(3)), ['a/c', 'b/c', 'end'])
    assert.deepEqual(levels(await rest.messages(4)), ['a', 'a/b', 'a/c', 'a/b/c'])
  })

  scenario('after UNSUBACK nothing more is sent for that filter', version, async ({ connect, name }) => {
    const client = await connect()
    await client.subscribe([`${name}/off`, `${name}/on`], 1)
    await client.unsubscribe(`${name}/off`)
    await client.publish(`${name}/off`, '', 1)
    await client.publish(`${name}/on`, '', 1)
    assert.equal((await client.message()).topic, `${name}/on`)
  })

  scenario('a client that says goodbye leaves no will', version, async ({ connect, name }) => {
    const watcher = await connect()
    await watcher.subscribe(`${name}/#`, 1)
    const leaving = await connect({ clientId: name, will: { topic: `${name}/will`, payload: Buffer.from('gone'), qos: 1, retain: false } })
    await leaving.disconnect()
    // The CONNACK of the same Client Identifier comes only when the broker is through with the earlier connection.
    await (await connect({ clientId: name })).publish(`${name}/end`, '', 1)
    assert.equal((await watcher.message()).topic, `${name}/end`)
  })

  scenario('a session is resumed: what was published meanwhile arrives in order', version, async ({ connect, name }) => {
    const away = await connect(persistent(version, name))
    await away.subscribe(`${name}/+`, 2)
    await away.disconnect()

    const publisher = await connect()
    const sent = Array.from({ length: 40 }, (_, i) => [`${name}/${i % 3}`, String(i), 1 + (i % 2)])
    for (const [topic, payload, qos] of sent) await publisher.publish(topic, payload, qos)

    const back = await connect(persistent(version, name))
    // CONNACK of MQTT 3.1 has no such flag.
    if (version !== 'v31') assert.equal(back.connack.sessionPresent, true)
    const got = (await back.messages(sent.length)).map((message) => [message.topic, text(message), message.qos])
    // A QoS 2 message is handed out when its PUBREL arrives, a QoS 1 message at once: the order of each can be seen.
    for (const qos of [1, 2]) assert.deepEqual(got.filter((message) => message[2] === qos), sent.filter((message) => message[2] === qos))
    await publisher.publish(`${name}/live`, 'live', 2)
    assert.equal(text(await back.message()), 'live')
    back.nothingElse()
  })

  scenario('unacknowledged messages come again: first, in order, as duplicates', version, async ({ connect, name }) => {
    // The application never finishes handling a message, so that no PUBACK is sent.
    const will = { topic: `${name}/gone`, payload: Buffer.from('gone'), qos: 1, retain: false }
    const stuck = await connect({ ...persistent(version, name), will })
    let arrived
    const first = new Promise((resolve) => { arrived = resolve })
    stuck.mqtt.handleMessage = (packet) => arrived(packet)
    await stuck.subscribe(name, 1)
    const publisher = await connect()
    await publisher.subscribe(will.topic, 1)
    for (const payload of ['1', '2', '3']) await publisher.publish(name, payload, 1)
    assert.equal((await first).payload.toString(), '1')
    await stuck.abort()
    // The will tells that the broker has noticed. Before, it would send the next message into the void.
    assert.equal(text(await publisher.message()), 'gone')
    await publisher.publish(name, '4', 1)

    const back = await connect(persistent(version, name))
    const got = await back.messages(4)
    assert.deepEqual(got.map(text), ['1', '2', '3', '4'])
    assert.equal(got[0].dup, true)
    assert.equal(got[3].dup, false)
    back.nothingElse()
  })

  scenario('a clean start discards the earlier session', version, async ({ connect, name }) => {
    await (await connect(persistent(version, name))).subscribe(name, 1)
    const publisher = await connect()
    await publisher.publish(name, 'lost', 1)
    const clean = await connect({ clientId: name, clean: true })
    assert.ok(!clean.connack.sessionPresent)
    await publisher.publish(name, 'not subscribed', 1)
    await flush(publisher, clean, `${name}/end`, 1)
    assert.equal((await clean.message()).topic, `${name}/end`)
  })

  scenario('a second connection with the same Client Identifier takes over', version, async ({ connect, name }) => {
    const first = await connect(persistent(version, name))
    await first.subscribe(name, 1)
    const second = await connect(persistent(version, name))
    const reason = await first.waitClosed()
    if (version === 'v5') assert.equal(reason, 0x8e) // Session taken over
    if (version !== 'v31') assert.equal(second.connack.sessionPresent, true)
    await (await connect()).publish(name, 'for the second', 1)
    assert.equal(text(await second.message()), 'for the second')
    first.nothingElse()
  })

  scenario('a shared subscription gives each message to exactly one member', version, async ({ connect, name }) => {
    const members = [await connect(), await connect(), await connect()]
    const publisher = await connect()
    for (const member of members) {
      assert.equal(await member.subscribe(`$share/group/${name}`, 1), 1)
      await member.subscribe(`${name}/end`, 1)
    }
    const sent = Array.from({ length: 60 }, (_, i) => String(i))
    for (const payload of sent) await publisher.publish(name, payload, 1)
    await publisher.publish(`${name}/end`, '', 1)
    const shares = []
    for (const member of members) {
      const share = []
      for (let got; (got = await member.message()).topic === name;) share.push(text(got))
      shares.push(share)
    }
    assert.deepEqual(shares.flat().sort((a, b) => a - b), sent)
    assert.ok(shares.every((share) => share.length > 0), 'a member of the group got nothing')
  })

  scenario('PINGREQ is answered', version, async ({ connect }) => {
    const client = await connect({ keepalive: 1, reschedulePings: false })
    const pong = () => new Promise((resolve) => {
      client.mqtt.on('packetreceive', (packet) => { if (packet.cmd === 'pingresp') resolve() })
    })
    await pong()
    await pong()
  })
}
