"""A TCP forwarder: `python cluster_gateway.py PORT TARGET_PORT`.

Killing it is what killing a store with durable disks is to its clients; moto keeps all in memory.
"""

import asyncio
import sys

PORT, TARGET = map(int, sys.argv[1:3])


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while block := await reader.read(1 << 16):
            writer.write(block)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", TARGET)
    await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))


async def serve() -> None:
    async with await asyncio.start_server(forward, "127.0.0.1", PORT) as server:
        await server.serve_forever()


asyncio.run(serve())
