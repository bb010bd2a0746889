// Publishing over HTTP, as any service would.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'

export const topicUrl = (broker, topic, query = {}) =>
  `${broker.url}/v1/topics/${topic.split('/').map(encodeURIComponent).join('/')}?${new URLSearchParams(query)}`

// Publishes once; what is accepted is what the caller may rely on.
export async function publish(broker, topic, payload, { qos = 1, retain = false, headers = {} } = {}) {
  const response = await fetch(topicUrl(broker, topic, { qos, retain }), { method: 'POST', body: payload, headers })
  const body = await response.text()
  assert.equal(response.status, 200, body)
  return JSON.parse(body)
}

// Publishes until it is accepted, over whatever happens to the broker meanwhile. The Idempotency-Key keeps a message
// whose acknowledgement was lost from being published twice.
export async function publishForSure(broker, topic, payload) {
  const headers = { 'Idempotency-Key': `"${randomUUID()}"` }
  for (;;) {
    let response
    try {
      response = await fetch(topicUrl(broker, topic, { qos: 1 }), { method: 'POST', body: payload, headers })
    } catch {
      // Nobody listens there just now.
      await new Promise((resolve) => setTimeout(resolve, 50))
      continue
    }
    const body = await response.text()
    // 503: it is about to stop, or has just started.
    if (response.status === 503) continue
    assert.equal(response.status, 200, body)
    return JSON.parse(body)
  }
}
