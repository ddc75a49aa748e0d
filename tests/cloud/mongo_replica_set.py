"""Make the mongod at 127.0.0.1:PORT a replica set of one, unless it is one, and wait until it is primary.

Transactions and majority writes want a replica set. This speaks as much of MongoDB's wire protocol as two commands
need, so that the tests need no client library.
"""

import socket
import struct
import sys
import time

OP_MSG = 2013
ALREADY_INITIALIZED = 23


def encode(document):
    """BSON of a dict of strings, ints, dicts and lists."""
    body = b""
    for key, value in document.items():
        name = key.encode() + b"\0"
        if isinstance(value, str):
            text = value.encode() + b"\0"
            body += b"\x02" + name + struct.pack("<i", len(text)) + text
        elif isinstance(value, int):
            body += b"\x10" + name + struct.pack("<i", value)
        elif isinstance(value, list):
            body += b"\x04" + name + encode({str(place): item for place, item in enumerate(value)})
        else:
            body += b"\x03" + name + encode(value)
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def decode(data):
    """The top-level numbers, booleans and strings of a BSON document; whatever else it has is skipped."""
    found, at = {}, 4
    while data[at]:
        kind, end = data[at], data.index(b"\0", at + 1)
        name, at = data[at + 1 : end].decode(), end + 1
        if kind == 0x01:
            found[name], at = struct.unpack_from("<d", data, at)[0], at + 8
        elif kind == 0x02:
            size = struct.unpack_from("<i", data, at)[0]
            found[name], at = data[at + 4 : at + 3 + size].decode(), at + 4 + size
        elif kind in (0x03, 0x04):
            at += struct.unpack_from("<i", data, at)[0]
        elif kind == 0x05:
            at += 5 + struct.unpack_from("<i", data, at)[0]
        elif kind == 0x08:
            found[name], at = data[at] == 1, at + 1
        elif kind == 0x10:
            found[name], at = struct.unpack_from("<i", data, at)[0], at + 4
        elif kind in (0x07, 0x09, 0x11, 0x12):
            at += {0x07: 12}.get(kind, 8)
        elif kind != 0x0A:
            raise ValueError(f"a BSON element of type {kind:#x}")
    return found


def command(connection, document):
    """Send one command to the admin database; its reply."""
    message = struct.pack("<iB", 0, 0) + encode({**document, "$db": "admin"})
    connection.sendall(struct.pack("<iiii", 16 + len(message), 1, 0, OP_MSG) + message)
    size = struct.unpack("<i", receive(connection, 4))[0]
    return decode(receive(connection, size - 4)[12 + 5 :])


def receive(connection, size):
    """Exactly that many bytes."""
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError("mongod closed the connection")
        data += part
    return data


def main(port):
    address = ("127.0.0.1", port)
    end = time.monotonic() + 60
    with socket.create_connection(address, timeout=60) as connection:
        members = [{"_id": 0, "host": "127.0.0.1:%d" % port}]
        reply = command(connection, {"replSetInitiate": {"_id": "rs0", "members": members}})
        if not reply.get("ok") and reply.get("code") != ALREADY_INITIALIZED:
            sys.exit(f"replSetInitiate: {reply}")
        while not command(connection, {"hello": 1}).get("isWritablePrimary"):
            if time.monotonic() > end:
                sys.exit("mongod has not become primary within 60 s")
            time.sleep(0.05)


main(int(sys.argv[1]))
