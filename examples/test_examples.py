"""Runs the examples without the service: python3 -m unittest discover -s examples"""

import base64
import importlib.util
import io
import struct
import unittest
import zlib
from contextlib import redirect_stdout
from pathlib import Path

import picture

HERE = Path(__file__).parent


def example(name):
    spec = importlib.util.spec_from_file_location(name, HERE / name / "main.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def quietly(handler, event):
    with redirect_stdout(io.StringIO()):
        return handler(event, None)


class WordCount(unittest.TestCase):
    def test_the_words_of_a_created_file_are_counted(self):
        event = {"data": {"name": "a.txt", "content": "To be,\nor not to be: naïve it's"}}
        result = quietly(example("wordcount").handler, event)
        self.assertEqual((result["name"], result["lines"], result["words"]), ("a.txt", 2, 8))
        self.assertEqual(result["most_common"][0], ("to", 2))

    def test_an_event_without_text_says_so(self):
        with self.assertRaisesRegex(ValueError, "data.content"):
            quietly(example("wordcount").handler, {"data": {}})


class Thumbnail(unittest.TestCase):
    def setUp(self):
        self.thumbnail = example("thumbnail")

    def test_a_thumbnail_is_a_smaller_picture_of_the_same(self):
        big = picture.picture(100, 50)
        event = {"data": {"name": "a.png", "content": base64.b64encode(big).decode(), "longest_side": 20}}
        result = quietly(self.thumbnail.handler, event)
        self.assertEqual(result["before"], {"width": 100, "height": 50, "bytes": len(big)})
        self.assertEqual((result["after"]["width"], result["after"]["height"]), (20, 10))
        width, height, pixels = self.thumbnail.decode(base64.b64decode(result["content"]))
        self.assertEqual((width, height), (20, 10))
        _, _, original = self.thumbnail.decode(big)
        box = [pixel for row in original[:5] for pixel in row[:5]]
        self.assertEqual(pixels[0][0][0], sum(pixel[0] for pixel in box) // 25)

    def test_every_line_filter_is_undone(self):
        _, _, rows = self.thumbnail.decode(picture.picture(7, 10))
        plain = [[tuple(v) for v in row] for row in rows]
        again = self.thumbnail.encode(7, 10, plain)
        self.assertEqual(self.thumbnail.decode(again)[2], plain)

    def test_transparent_pixels_lend_no_colour(self):
        rows = [[(255, 0, 0, 255), (0, 255, 0, 0)]]
        self.assertEqual(self.thumbnail.shrink(2, 1, rows, 1, 1), [[(255, 0, 0, 127)]])

    def test_a_palette_is_looked_up(self):
        part = self.thumbnail.part
        header = struct.pack(">IIBBBBB", 2, 1, 8, 3, 0, 0, 0)
        body = part(b"IHDR", header) + part(b"PLTE", bytes([1, 2, 3, 4, 5, 6])) + part(b"tRNS", b"\x09")
        body += part(b"IDAT", zlib.compress(b"\0\0\1")) + part(b"IEND", b"")
        self.assertEqual(self.thumbnail.decode(self.thumbnail.SIGNATURE + body)[2], [[(1, 2, 3, 9), (4, 5, 6, 255)]])

    def test_what_is_no_picture_is_refused(self):
        good = picture.picture(4, 4)
        damaged = bytearray(good)
        damaged[45] ^= 1
        for bad, why in [(b"hello", "not a PNG"), (bytes(damaged), "damaged")]:
            with self.assertRaisesRegex(ValueError, why):
                self.thumbnail.decode(bad)


class Failing(unittest.TestCase):
    def test_it_fails(self):
        with self.assertRaises(PermissionError):
            quietly(example("failing").handler, {})


if __name__ == "__main__":
    unittest.main()
