'use strict'
// A gateway of messages, on ws: each message of one side is sent to the other.
// usage: node messages.js PORT UPSTREAM_PORT
const { WebSocket, WebSocketServer } = require('ws')

const [port, upstreamPort] = process.argv.slice(2).map(Number)
const host = '127.0.0.1'

const server = new WebSocketServer({ host, port, perMessageDeflate: false, backlog: 8191 })
server.on('connection', (client, request) => {
  const upstream = new WebSocket(`ws://${host}:${upstreamPort}${request.url}`, { perMessageDeflate: false })
  const early = []
  client.on('message', (data, binary) => {
    if (upstream.readyState === WebSocket.OPEN) upstream.send(data, { binary })
    else early.push([data, binary])
  })
  upstream.on('open', () => early.splice(0).forEach(([data, binary]) => upstream.send(data, { binary })))
  upstream.on('message', (data, binary) => client.send(data, { binary }))
  client.on('close', () => upstream.terminate())
  upstream.on('close', () => client.terminate())
  client.on('error', () => upstream.terminate())
  upstream.on('error', () => client.terminate())
})
