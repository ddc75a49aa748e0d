"""Drive a Zaqar v2 service with openstacksdk, as it is published, and check what it answers.

openstacksdk_check.py URL [PROJECT]: prints "ok" and leaves nothing behind, or fails at the first thing that is wrong.
"""

import sys

from keystoneauth1 import noauth, session
from openstack import connection, exceptions
from openstack.message.v2 import claim as claim_resource
from openstack.message.v2 import queue as queue_resource

# Zaqar gives each process an id; the SDK makes a new one for each request unless it is told.
CLIENT = "3381af92-2b9e-11e3-b191-71861300734c"


class InProject(noauth.NoAuth):
    """No authentication, but a project, as a token would name one."""

    def __init__(self, project, url):
        super().__init__(endpoint=url)
        self.project = project

    def get_project_id(self, session, **_):
        return self.project


def main(url, project="demo"):
    cloud = connection.Connection(
        session=session.Session(auth=InProject(project, url)),
        message_endpoint_override=url,
    )
    messaging = cloud.message
    me = {"client_id": CLIENT}

    # A queue.
    messaging.create_queue(name="sdk-jobs", description="jobs", default_message_ttl=120, **me)
    queue = messaging.get_queue(messaging_queue("sdk-jobs", me))
    assert queue.default_message_ttl == 120 and queue.description == "jobs", queue
    assert queue.max_messages_post_size == 262144, queue
    for number in range(22):
        messaging.create_queue(name=f"sdk-{number:02}", **me)
    names = [found.name for found in messaging.queues(limit=5, **me)]
    assert names == [f"sdk-{number:02}" for number in range(22)] + ["sdk-jobs"], names
    for number in range(22):
        messaging.delete_queue(messaging_queue(f"sdk-{number:02}", me), ignore_missing=False)

    # Messages. The SDK goes on from page to page with the last message's id; Zaqar's MongoDB driver, which wants the
    # marker of its link, would stop after the first ten.
    bodies = [{"n": n, "text": "é"} for n in range(25)]
    hrefs = messaging.post_message("sdk-jobs", [{"ttl": 600, "body": body} for body in bodies])
    assert len(hrefs) == 25, hrefs
    listed = list(messaging.messages("sdk-jobs", echo=True, **me))
    assert [message.body for message in listed] == bodies, listed
    one = messaging.get_message("sdk-jobs", listed[3].id)
    assert one.body == bodies[3] and one.ttl == 600, one

    # Claims.
    claim = create_claim(messaging, ttl=300, grace=60, limit=3, **me)
    assert len(claim.messages) == 10, "the SDK sends the limit in the body, where Zaqar does not look"
    held = [message["id"] for message in claim.messages]
    messaging.update_claim("sdk-jobs", claim, ttl=600, grace=120)
    shown = messaging.get_claim("sdk-jobs", claim.id)
    assert shown.ttl == 600 and shown.age >= 0 and len(shown.messages) == 10, shown
    messaging.delete_message("sdk-jobs", held[0], claim=claim.id, ignore_missing=False)
    try:
        messaging.delete_message("sdk-jobs", held[1], ignore_missing=False)
    except exceptions.ForbiddenException:
        pass
    else:
        raise AssertionError("a claimed message was deleted without its claim")
    messaging.delete_claim("sdk-jobs", claim.id, ignore_missing=False)
    try:
        messaging.get_claim("sdk-jobs", claim.id)
    except exceptions.NotFoundException:
        pass
    else:
        raise AssertionError("a released claim was found")
    again = create_claim(messaging, ttl=60, grace=60, **me)
    assert [message["id"] for message in again.messages][:9] == held[1:], again

    # What it has no method for, by its session.
    headers = {"Client-ID": CLIENT, "X-Project-Id": project}
    stats = messaging.get("/queues/sdk-jobs/stats", headers=headers).json()["messages"]
    assert (stats["free"], stats["claimed"], stats["total"]) == (14, 10, 24), stats
    popped = messaging.delete("/queues/sdk-jobs/messages?pop=2", headers=headers).json()["messages"]
    assert [message["body"] for message in popped] == bodies[11:13], popped

    # What the service does not have.
    assert list(messaging.subscriptions("sdk-jobs", **me)) == []
    try:
        messaging.create_subscription("sdk-jobs", subscriber="http://127.0.0.1/", ttl=600, **me)
    except exceptions.BadRequestException:
        pass
    else:
        raise AssertionError("a subscription was made")

    messaging.delete_queue(messaging_queue("sdk-jobs", me), ignore_missing=False)
    assert list(messaging.queues(**me)) == []
    print("ok")


def messaging_queue(name, me):
    """A queue by name, asked for by this client."""
    return queue_resource.Queue.new(name=name, **me)


def create_claim(messaging, **attributes):
    """What messaging.create_claim does, which in 4.22 fails on every Zaqar once something is claimed.

    It gives the claim a connection, and that overwrites the Location header before the id is read from it.
    """
    return claim_resource.Claim.new(queue_name="sdk-jobs", **attributes).create(messaging)


if __name__ == "__main__":
    main(*sys.argv[1:])
