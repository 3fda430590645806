#!/usr/bin/env bash
# uvicorn 0.54.0 with httptools 0.9.0, as `uvicorn[standard]` has it under many servers of models: a
# POST that offers HTTP/2 (`Connection: Upgrade, HTTP2-Settings`, `Upgrade: h2c`)
# reaches the application with an empty body. Java's HttpClient, on which Spring AI can stand, makes
# that offer by default where there is no TLS, and so does `curl --http2`. RFC 9110 lets a server
# ignore the offer and answer the request as it stands. The parser ends behind the head instead, and
# the body is lost. Clients are told that a field is missing.
#
# Seen (first run): 20 bytes arrive without the offer, 0 with it; with h11 for httptools, 20 with it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet uvicorn==0.54.0 httptools==0.9.0 h11==0.16.0

"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import socket

import uvicorn

OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


async def count(scope, receive, send):
    """Answers with the number of bytes of the body."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % size})


async def arrived(http: str, offer: bytes) -> int:
    config = uvicorn.Config(count, http=http, lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n"
        writer.write(head + offer + b"\r\n" + b"x" * 20)
        await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(b"\r\n")  # the size of the first chunk
        size = int(await reader.readuntil(b"\r\n"))
        writer.close()
        server.should_exit = True
        await serving
    return size


seen = [
    asyncio.run(arrived(http, offer))
    for http, offer in (("httptools", b""), ("httptools", OFFER), ("h11", OFFER))
]
print("httptools without the offer, with it, h11 with it:", seen)
assert seen == [20, 0, 20], "the behaviour has changed"
PYTHON
