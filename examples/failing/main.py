"""Fails on purpose, in the way that data.how names: what a record shows of each."""

import os
import time


def handler(event, context):
    how = event.get("data", event).get("how", "raise")
    print(f"about to fail: {how}")
    if how == "exit":
        os._exit(7)
    if how == "hang":
        time.sleep(context.get_remaining_time_in_millis() / 1000 + 60)
    if how == "nonsense":
        return {"a set is no JSON": {1, 2, 3}}
    return open_the_vault(how)


def open_the_vault(how):
    raise PermissionError(f"the vault stays closed ({how})")
