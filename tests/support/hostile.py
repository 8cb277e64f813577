"""Connections that send halves, too much, or go away, until the process is ended: `python hostile.py PORT NUMBER`.

It prints `open` once as many connections were made as were asked for, and keeps about that many open from there on.
Each is of one kind: half a head, half a body, a whole request whose sender goes away, a body beyond the limit, one byte
at a time, and JSON that is none. A process of its own, so that who measures is not slowed down by it.
"""

import asyncio
import contextlib
import itertools
import json
import logging
import subprocess
import sys
from pathlib import Path

PAUSE_S = 0.5  # between the requests of a connection
WAIT_S = 5.0  # for an answer that may never come
BODY = json.dumps({"pairs": [{"question": "q", "prediction": "p"}]}).encode()
LARGE = 9_000_000  # bytes, which is more than a server takes unless it is told to


def head(length):
    lines = ["POST /score HTTP/1.1", "Host: h", "Content-Type: application/json", f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode()


async def half_a_head(reader, writer):
    writer.write(head(100)[:40])
    await reader.read(1000)


async def half_a_body(reader, writer):
    writer.write(head(1000) + BODY)
    await reader.read(1000)


async def gone(reader, writer):
    writer.write(head(len(BODY)) + BODY)
    await writer.drain()


async def too_large(reader, writer):
    writer.write(head(LARGE))
    for _ in range(LARGE // 1_000_000):
        writer.write(b" " * 1_000_000)
        await writer.drain()
    await reader.read(1000)


async def slow(reader, writer):
    for byte in head(len(BODY)) + BODY:
        writer.write(bytes([byte]))
        await asyncio.sleep(PAUSE_S)


async def no_json(reader, writer):
    writer.write(head(5) + b'{"pai')
    await reader.read(1000)


KINDS = (half_a_head, half_a_body, gone, too_large, slow, no_json)


async def attack(port, kind, opened):
    while True:
        with contextlib.suppress(OSError, TimeoutError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            opened()
            try:
                async with asyncio.timeout(None if kind is slow else WAIT_S):
                    await kind(reader, writer)
            finally:
                writer.close()
        await asyncio.sleep(PAUSE_S)


async def main(port, number):
    count = itertools.count(1)

    def opened():
        if next(count) == number:
            sys.stdout.write("open\n")
            sys.stdout.flush()

    await asyncio.gather(*(attack(port, kind, opened) for kind in itertools.islice(itertools.cycle(KINDS), number)))


@contextlib.contextmanager
def hostile(port, number):
    """Attack a server from another process; begins once all connections were made."""
    command = [sys.executable, str(Path(__file__).resolve()), str(port), str(number)]
    attacker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert attacker.stdout.readline() == "open\n"
        yield
    finally:
        attacker.kill()
        attacker.communicate()


if __name__ == "__main__":
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # that it writes to closed connections is the point
    asyncio.run(main(*map(int, sys.argv[1:])))
