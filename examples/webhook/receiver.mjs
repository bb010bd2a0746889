#!/usr/bin/env node
// Receives webhooks, and believes only what is signed.
//
//     npm install standardwebhooks
//     WEBHOOK_SECRET=whsec_... ./receiver.mjs [port]

import { createServer } from 'node:http'

import { Webhook } from 'standardwebhooks'

const webhook = new Webhook(process.env.WEBHOOK_SECRET)

// At least once: what was answered and not heard comes again, with the same id. A service that has a database keeps
// these there, in the transaction that does the work.
const seen = new Set()

const server = createServer(async (request, response) => {
  const chunks = []
  for await (const chunk of request) chunks.push(chunk)
  const body = Buffer.concat(chunks).toString()
  let event
  try {
    event = webhook.verify(body, request.headers)
  } catch (error) {
    console.error(`refused: ${error.message}`)
    return response.writeHead(401).end()
  }
  if (!seen.has(request.headers['webhook-id'])) {
    seen.add(request.headers['webhook-id'])
    console.log(event.subject, JSON.stringify(event.data))
  }
  // Only now: who answers first and works later loses what it was working on.
  response.writeHead(204).end()
})

server.listen(Number(process.argv[2] ?? 9000), '127.0.0.1', () => {
  console.log(`listening on port ${server.address().port}`)
})
