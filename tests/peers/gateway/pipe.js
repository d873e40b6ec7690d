'use strict'
// A gateway of sockets: an upgrade goes on to the upstream as it came but for its Host, then either socket is piped
// into the other. What passes is not looked at.
// usage: node pipe.js PORT UPSTREAM_PORT
const http = require('node:http')
const net = require('node:net')

const [port, upstreamPort] = process.argv.slice(2).map(Number)
const host = '127.0.0.1'

const server = http.createServer((request, response) => response.writeHead(426).end())
server.on('upgrade', (request, client, early) => {
  const upstream = net.connect({ host, port: upstreamPort, noDelay: true })
  client.setNoDelay(true)
  const end = () => {
    client.destroy()
    upstream.destroy()
  }
  client.on('error', end)
  upstream.on('error', end)
  upstream.on('connect', () => {
    const headers = { ...request.headers, host: `${host}:${upstreamPort}` }
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
    upstream.write(`${request.method} ${request.url} HTTP/1.1\r\n${lines.join('')}\r\n`)
    if (early.length > 0) upstream.write(early)
    client.pipe(upstream)
    upstream.pipe(client)
  })
})
server.listen({ host, port, backlog: 8191 })
