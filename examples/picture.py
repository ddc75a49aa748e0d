"""Writes a colourful PNG picture to standard output, for the thumbnail example: picture.py [WIDTH HEIGHT]"""

import math
import struct
import sys
import zlib


def picture(width, height):
    """A PNG whose lines use all five filters in turn, as an encoder that knows its craft does."""
    lines, above = [], bytes(width * 3)
    for y in range(height):
        row = bytes(
            int(128 + 127 * math.sin(x / width * turns + y / height * (turns + 2)))
            for x in range(width)
            for turns in (5, 7, 9)
        )
        lines.append(bytes([y % 5]) + filtered(y % 5, row, above))
        above = row
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(b"".join(lines))) + part(b"IEND", b"")


def filtered(kind, row, above):
    left, corner = bytes(3) + row[:-3], bytes(3) + above[:-3]
    if kind == 4:
        guesses = [min((a, b, c), key=lambda v, p=a + b - c: abs(p - v)) for a, b, c in zip(left, above, corner)]
    else:
        guesses = [bytes(len(row)), left, above, [(a + b) // 2 for a, b in zip(left, above)]][kind]
    return bytes((v - guess) & 255 for v, guess in zip(row, guesses))


def part(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


if __name__ == "__main__":
    width, height = map(int, sys.argv[1:3]) if len(sys.argv) > 2 else (320, 200)
    sys.stdout.buffer.write(picture(width, height))
