"""Drive a Zaqar v2 service with python-zaqarclient, as it is published, and check what it answers.

zaqarclient_check.py URL [PROJECT]: prints "ok" and leaves nothing behind, or fails at the first thing that is wrong.
"""

import sys

from zaqarclient.queues import client
from zaqarclient.transport import errors


def connect(url, project, uuid):
    auth = {"backend": "noauth", "options": {"os_project_id": project}}
    return client.Client(url, 2, conf={"auth_opts": auth, "client_uuid": uuid})


def main(url, project="demo"):
    poster = connect(url, project, "3381af922b9e11e3b19171861300734c")
    worker = connect(url, project, "3381af92-2b9e-11e3-b191-71861300734d")

    # A queue and its metadata.
    queue = poster.queue("zc-jobs", force_create=True)
    queue.ensure_exists(force_create=True)
    queue.metadata(new_meta={"shape": "round", "color": "red"})
    queue.metadata(new_meta={"color": "blue", "_default_message_ttl": 120})
    shown = worker.queue("zc-jobs", auto_create=False).metadata(force_reload=True)
    assert shown["color"] == "blue" and "shape" not in shown, shown
    assert shown["_default_message_ttl"] == 120, shown
    assert shown["_max_messages_post_size"] == 262144, shown
    found, count = poster.queues(with_count=True, detailed=True)
    assert [one.name for one in found] == ["zc-jobs"] and count == 1

    # Posting and listing: one's own messages are hidden, unless asked for.
    bodies = [{"n": n, "text": "é"} for n in range(25)]
    posted = queue.post([{"ttl": 600, "body": body} for body in bodies])
    assert len(posted["resources"]) == 25, posted
    assert list(queue.messages()) == []
    listed = list(queue.messages(echo=True, limit=7).stream())
    assert [message.body for message in listed] == bodies
    seen = list(worker.queue("zc-jobs", auto_create=False).messages(limit=20).stream())
    assert [message.id for message in seen] == [message.id for message in listed]
    one = queue.message(listed[3].id)
    assert one.body == bodies[3] and one.ttl == 600, one
    assert [m.body for m in queue.messages(listed[4].id, listed[5].id)] == bodies[4:6]

    # Claiming.
    jobs = worker.queue("zc-jobs", auto_create=False)
    claim = jobs.claim(ttl=300, grace=60, limit=3)
    held = list(claim)
    assert [message.body for message in held] == bodies[:3]
    assert all(message.claim_id == claim.id for message in held)
    claim.update(ttl=600, grace=120)
    again = jobs.claim(id=claim.id)
    assert again.ttl == 600 and again.age >= 0 and len(list(again)) == 3
    held[0].delete()
    try:
        queue.delete_messages(held[1].id, held[2].id)
    except errors.TransportError as error:
        raise AssertionError(error) from error
    try:
        claim.update(ttl=600, grace=120)
    except errors.ResourceNotFound:
        pass
    else:
        raise AssertionError("a claim without messages was renewed")

    released = jobs.claim(ttl=300, grace=60, limit=2)
    first = [message.id for message in released]
    released.delete()
    assert [message.id for message in jobs.claim(ttl=60, grace=60, limit=2)] == first

    stats = queue.stats["messages"]
    assert (stats["free"], stats["claimed"], stats["total"]) == (20, 2, 22), stats
    assert stats["oldest"]["href"].endswith(first[0]) and stats["newest"]["age"] >= 0, stats

    # Popping, errors, and the end.
    popped = list(queue.pop(count=5))
    assert [message.body for message in popped] == bodies[5:10]
    try:
        jobs.claim(ttl=1, grace=60, limit=1)
    except errors.MalformedRequest as error:
        assert "TTL" in str(error), error
    else:
        raise AssertionError("a ttl of one second was taken")
    try:
        queue.message("5f0000000000000000000000")
    except errors.ResourceNotFound:
        pass
    else:
        raise AssertionError("a message that is not there was found")
    queue.purge(resource_types=["messages"])
    assert queue.stats["messages"]["free"] == 0
    queue.delete()
    queue.delete()
    print("ok")


if __name__ == "__main__":
    main(*sys.argv[1:])
