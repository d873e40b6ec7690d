'use strict'
// A server on ws: every line that comes over TCP goes to every client, as a text message.
// usage: node server.js PORT_OF_LINES PORT_OF_CLIENTS
const net = require('node:net')
const { WebSocket, WebSocketServer } = require('ws')

const [linesPort, clientsPort] = process.argv.slice(2).map(Number)
const host = '127.0.0.1'
const NEWLINE = 0x0a

const server = new WebSocketServer({ host, port: clientsPort, perMessageDeflate: false })

function broadcast(line) {
  for (const client of server.clients) {
    if (client.readyState === WebSocket.OPEN) client.send(line, { binary: false })
  }
}

net
  .createServer(socket => {
    let rest = Buffer.alloc(0)
    socket.on('data', data => {
      const bytes = rest.length === 0 ? data : Buffer.concat([rest, data])
      let from = 0
      for (let end; (end = bytes.indexOf(NEWLINE, from)) !== -1; from = end + 1) broadcast(bytes.subarray(from, end))
      rest = bytes.subarray(from)
    })
  })
  .listen({ host, port: linesPort })
