#!/usr/bin/python3
"""A runtime in twenty lines: the Lambda Runtime API by hand."""
import http.client
import json
import os

connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
calls = 0
while True:
    connection.request("GET", "/2018-06-01/runtime/invocation/next")
    response = connection.getresponse()
    event = json.loads(response.read())
    request_id = response.headers["Lambda-Runtime-Aws-Request-Id"]
    calls += 1
    answer = json.dumps({"event": event, "calls": calls})
    connection.request("POST", f"/2018-06-01/runtime/invocation/{request_id}/response", answer)
    connection.getresponse().read()
