"""Makes a thumbnail of a PNG picture with nothing but Python's standard library.

The picture comes as base64 in the event's data.content, and goes back the same way. Read are pictures of 8 bits a channel
without interlacing: grey, RGB, palette, each with or without transparency.
"""

import base64
import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
MAX_PIXELS = 4_000_000


def handler(event, context):
    data = event.get("data", event)
    picture = base64.b64decode(data["content"], validate=True)
    longest = int(data.get("longest_side", 64))
    width, height, pixels = decode(picture)
    scale = min(1.0, longest / max(width, height))
    small_width, small_height = max(1, round(width * scale)), max(1, round(height * scale))
    thumbnail = encode(small_width, small_height, shrink(width, height, pixels, small_width, small_height))
    print(f"{data.get('name', 'picture')}: {width}x{height} to {small_width}x{small_height}")
    return {
        "name": data.get("name"),
        "before": {"width": width, "height": height, "bytes": len(picture)},
        "after": {"width": small_width, "height": small_height, "bytes": len(thumbnail)},
        "content": base64.b64encode(thumbnail).decode(),
    }


def decode(picture):
    """Gives width, height, and the rows as lists of (red, green, blue, alpha)."""
    if not picture.startswith(SIGNATURE):
        raise ValueError("this is not a PNG picture")
    parts = {}
    place = len(SIGNATURE)
    while place < len(picture):
        length, kind = struct.unpack_from(">I4s", picture, place)
        body = picture[place + 8:place + 8 + length]
        (checksum,) = struct.unpack_from(">I", picture, place + 8 + length)
        if zlib.crc32(kind + body) != checksum:
            raise ValueError(f"the picture is damaged in its {kind.decode('latin-1')} part")
        parts[kind] = parts.get(kind, b"") + body
        place += 12 + length
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", parts[b"IHDR"])
    if depth != 8 or colour not in CHANNELS or interlace:
        raise ValueError(f"pictures of {depth} bits, colour type {colour}, interlacing {interlace} are not read here")
    if not 0 < width * height <= MAX_PIXELS:
        raise ValueError(f"{width}x{height} pixels are too many or too few")
    channels = CHANNELS[colour]
    size = height * (width * channels + 1)
    # No more is unpacked than the picture can need, whatever the file pretends.
    packed = zlib.decompressobj().decompress(parts[b"IDAT"], size)
    if len(packed) != size:
        raise ValueError("the picture ends too early")
    rows = unfilter(packed, height, width * channels, channels)
    return width, height, [coloured(row, colour, parts.get(b"PLTE"), parts.get(b"tRNS")) for row in rows]


def unfilter(packed, height, stride, channels):
    """Undoes PNG's five line filters."""
    above = bytearray(stride)
    for number in range(height):
        start = number * (stride + 1)
        kind, row = packed[start], bytearray(packed[start + 1:start + 1 + stride])
        if kind == 1:
            for i in range(channels, stride):
                row[i] = (row[i] + row[i - channels]) & 255
        elif kind == 2:
            row = bytearray((a + b) & 255 for a, b in zip(row, above))
        elif kind == 3:
            for i in range(stride):
                left = row[i - channels] if i >= channels else 0
                row[i] = (row[i] + (left + above[i]) // 2) & 255
        elif kind == 4:
            for i in range(stride):
                left, corner = (row[i - channels], above[i - channels]) if i >= channels else (0, 0)
                row[i] = (row[i] + nearest(left, above[i], corner)) & 255
        elif kind != 0:
            raise ValueError(f"line {number} has the unknown filter {kind}")
        yield row
        above = row


def nearest(left, above, corner):
    """Paeth's predictor."""
    guess = left + above - corner
    to_left, to_above, to_corner = abs(guess - left), abs(guess - above), abs(guess - corner)
    if to_left <= to_above and to_left <= to_corner:
        return left
    return above if to_above <= to_corner else corner


def coloured(row, colour, palette, transparency):
    """Turns a row into (red, green, blue, alpha)."""
    if colour == 0:
        return [(v, v, v, 255) for v in row]
    if colour == 2:
        return list(zip(row[0::3], row[1::3], row[2::3], b"\xff" * (len(row) // 3)))
    if colour == 3:
        alpha = (transparency or b"").ljust(256, b"\xff")
        return [(palette[3 * v], palette[3 * v + 1], palette[3 * v + 2], alpha[v]) for v in row]
    if colour == 4:
        return [(v, v, v, a) for v, a in zip(row[0::2], row[1::2])]
    return list(zip(row[0::4], row[1::4], row[2::4], row[3::4]))


def shrink(width, height, rows, small_width, small_height):
    """Gives each small pixel the mean of the pixels that it covers; transparent ones count less."""
    small = []
    for y in range(small_height):
        band = rows[y * height // small_height:max(y * height // small_height + 1, (y + 1) * height // small_height)]
        line = []
        for x in range(small_width):
            left = x * width // small_width
            right = max(left + 1, (x + 1) * width // small_width)
            box = [pixel for row in band for pixel in row[left:right]]
            weight = sum(pixel[3] for pixel in box)
            mean = [sum(pixel[c] * pixel[3] for pixel in box) // weight if weight else 0 for c in range(3)]
            line.append((*mean, weight // len(box)))
        small.append(line)
    return small


def encode(width, height, rows):
    """Writes a PNG: RGB if nothing is transparent, else RGBA."""
    channels = 3 if all(pixel[3] == 255 for row in rows for pixel in row) else 4
    lines = b"".join(b"\0" + bytes(v for pixel in row for v in pixel[:channels]) for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 6, 0, 0, 0)
    return SIGNATURE + part(b"IHDR", header) + part(b"IDAT", zlib.compress(lines, 9)) + part(b"IEND", b"")


def part(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
