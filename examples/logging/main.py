"""Writes a log in the three ways that Python programs do: print, standard error, and the logging module."""

import logging
import sys

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s", force=True)
log = logging.getLogger("example")


def handler(event, context):
    print("printed on standard output")
    print("printed on standard error", file=sys.stderr)
    log.info("request %s of function %s", context.aws_request_id, context.function_name)
    log.warning("%d ms are left", context.get_remaining_time_in_millis())
    try:
        {}["missing"]
    except KeyError:
        log.exception("an exception that is handled")
    return {"logged": True}
