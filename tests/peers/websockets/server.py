"""A server on websockets: every line that comes over TCP goes to every client, as a text message.

usage: server.py PORT_OF_LINES PORT_OF_CLIENTS
"""

import asyncio
import sys

from websockets.asyncio.server import broadcast, serve

HOST = "127.0.0.1"
MAX_LINE = 1024 * 1024

clients = set()


async def subscribe(client):
    clients.add(client)
    try:
        await client.wait_closed()
    finally:
        clients.discard(client)


async def publish(reader, writer):
    async for line in reader:
        broadcast(clients, line[:-1].decode())
    writer.close()


async def main():
    lines_port, clients_port = map(int, sys.argv[1:])
    lines = await asyncio.start_server(publish, HOST, lines_port, limit=MAX_LINE)
    # No compression, and no ping comes between messages.
    clients_served = serve(subscribe, HOST, clients_port, compression=None, ping_interval=None)
    async with lines, clients_served:
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
