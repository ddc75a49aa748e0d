"""Drop the database that a MongoDB connection string names: drop_database.py mongodb://HOST:PORT/NAME…"""

import socket
import struct
import sys
import urllib.parse

OP_MSG = 2013
where = urllib.parse.urlsplit(sys.argv[1])
name = where.path.strip("/").encode() + b"\0"
fields = b"\x10dropDatabase\0" + struct.pack("<i", 1) + b"\x02$db\0" + struct.pack("<i", len(name)) + name
document = struct.pack("<i", len(fields) + 5) + fields + b"\0"
message = struct.pack("<iiiiiB", 21 + len(document), 1, 0, OP_MSG, 0, 0) + document
with socket.create_connection((where.hostname, where.port or 27017), timeout=30) as connection:
    connection.sendall(message)
    if b"ok\0" not in connection.recv(4096):
        sys.exit("the database was not dropped")
