"""Counts the words of a text: of a file that was created, or of an event's own text."""

import re
from collections import Counter


def handler(event, context):
    # An event from the queue is a CloudEvent, whose data say what happened; a direct call may be the data alone.
    data = event.get("data", event)
    text = data.get("content", data.get("text"))
    if not isinstance(text, str):
        raise ValueError("the event has no text: put it into data.content")
    words = re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.lower())
    print(f"counting {data.get('name', 'a text')}: {len(text)} characters")
    return {
        "name": data.get("name"),
        "lines": len(text.splitlines()),
        "words": len(words),
        "most_common": Counter(words).most_common(3),
    }
