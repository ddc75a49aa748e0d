"""The Python runtime: imports the user's handler and speaks the AWS Lambda Runtime API to the agent.

The connection is one keep-alive socket and each answer goes out in one write together with the request for the next
event, because this is the hot path of every warm invocation.
"""

import importlib
import io
import json
import logging
import os
import sys
import time
import traceback

API = "/2018-06-01/runtime"
MESSAGE_MAX = 128 * 1024  # Characters of an error's message; what is longer is in the log.
TRACE_MAX = 64  # Frames of a stack trace.
RECEIVE = 32 * 1024  # Bytes received at once, and of an event that is known to be larger.
RECEIVE_MAX = 1024 * 1024


class Fault(Exception):
    """Something that is told to the user with an error type of the runtime's own."""

    def __init__(self, error_type, message, trace=()):
        super().__init__(message)
        self.error_type = error_type
        self.message = message
        self.trace = list(trace)


class ProtocolError(Exception):
    """The agent answered what it never should."""


class Client:
    """As much of an HTTP client as the Runtime API needs, on a connection that is there already."""

    def __init__(self, connection, address):
        self.address = address
        self.socket = connection
        self.buffer = bytearray()
        self.next_request = ("GET %s/invocation/next HTTP/1.1\r\nHost: %s\r\n\r\n" % (API, address)).encode()

    def next(self):
        """Asks for an event and waits for it."""
        self.socket.sendall(self.next_request)
        return self.event()

    def event(self):
        """Waits for the event that was asked for."""
        status, headers, body = self.receive()
        if status != 200:
            raise ProtocolError("status %d for the next event: %s" % (status, body[:200]))
        return headers, body

    def post(self, path, body, error_type=None, more=b""):
        """Posts and returns the status. `more` is sent along and answered later."""
        head = "POST %s/%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % (
            API,
            path,
            self.address,
            len(body),
        )
        if error_type is not None:
            # A class may have any name; a header may not.
            plain = "".join(c if c.isalnum() or c in "._" else "_" for c in error_type[:256])
            head += "Lambda-Runtime-Function-Error-Type: %s\r\n" % plain
        self.socket.sendall(b"".join((head.encode("latin-1", "replace"), b"\r\n", body, more)))
        return self.receive()[0]

    def receive(self):
        buffer = self.buffer
        end = buffer.find(b"\r\n\r\n")
        while end < 0:
            self.fill()
            end = buffer.find(b"\r\n\r\n")
        lines = buffer[:end].decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        whole = end + 4 + int(headers.get("content-length", 0))
        while len(buffer) < whole:
            self.fill(whole - len(buffer))
        body = bytes(buffer[end + 4 : whole])
        del buffer[:whole]
        return int(lines[0].split(" ", 2)[1]), headers, body

    def fill(self, missing=0):
        # What most events fit into: more is taken from the system and given back with each call.
        data = self.socket.recv(min(max(missing, RECEIVE), RECEIVE_MAX))
        if not data:
            # The agent is gone, or this sandbox is being ended.
            os._exit(0)
        self.buffer += data


class Identity:
    """`context.identity`."""

    __slots__ = ("cognito_identity_id", "cognito_identity_pool_id")

    def __init__(self, values):
        self.cognito_identity_id = values.get("cognitoIdentityId")
        self.cognito_identity_pool_id = values.get("cognitoIdentityPoolId")

    def __repr__(self):
        return "CognitoIdentity([cognito_identity_id=%s,cognito_identity_pool_id=%s])" % (
            self.cognito_identity_id,
            self.cognito_identity_pool_id,
        )


class Client_:
    """`context.client_context.client`."""

    __slots__ = ("installation_id", "app_title", "app_version_name", "app_version_code", "app_package_name")

    def __init__(self, values):
        for name in self.__slots__:
            setattr(self, name, values.get(name))


class ClientContext:
    """`context.client_context`."""

    __slots__ = ("custom", "env", "client")

    def __init__(self, values):
        self.custom = values.get("custom")
        self.env = values.get("env")
        self.client = Client_(values.get("client") or {})


class Context:
    """What a handler is told about its invocation, with AWS Lambda's names."""

    def __init__(self, headers, function):
        self.aws_request_id = headers["lambda-runtime-aws-request-id"]
        self.invoked_function_arn = headers.get("lambda-runtime-invoked-function-arn")
        self.function_name = function["name"]
        self.function_version = function["version"]
        self.memory_limit_in_mb = function["memory"]
        self.log_group_name = function["log_group"]
        self.log_stream_name = function["log_stream"]
        self.tenant_id = headers.get("lambda-runtime-aws-tenant-id")
        client_context = headers.get("lambda-runtime-client-context")
        self.client_context = ClientContext(json.loads(client_context)) if client_context else None
        identity = headers.get("lambda-runtime-cognito-identity")
        self.identity = Identity(json.loads(identity) if identity else {})
        self._deadline_ms = int(headers["lambda-runtime-deadline-ms"])

    def get_remaining_time_in_millis(self):
        """Milliseconds until the invocation is ended."""
        return max(self._deadline_ms - int(time.time() * 1000), 0)

    def log(self, message):
        """Writes to the log, without an end of line of its own."""
        sys.stdout.write(message if isinstance(message, str) else str(message))

    def __repr__(self):
        return "LambdaContext([aws_request_id=%s,function_name=%s,function_version=%s])" % (
            self.aws_request_id,
            self.function_name,
            self.function_version,
        )


class LogFilter(logging.Filter):
    """Puts the request id into each record."""

    request_id = ""

    def filter(self, record):
        record.aws_request_id = LogFilter.request_id
        return True


class LogHandler(logging.Handler):
    """Writes where `print` writes, so that the order is kept, also when the handler has replaced `sys.stdout`."""

    def emit(self, record):
        try:
            sys.stdout.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


def set_up_streams():
    """Both streams as a fresh interpreter would have them, written line by line: a line is told when it was written."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        raw = io.FileIO(descriptor, "w", closefd=False)
        stream = io.TextIOWrapper(
            io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True
        )
        stream.mode = "w"
        setattr(sys, name, stream)
        setattr(sys, "__%s__" % name, stream)


def log_handler():
    handler = LogHandler()
    formatter = logging.Formatter(
        "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    handler.addFilter(LogFilter())
    return handler


# Made once, before this process is forked.
LOG_HANDLER = log_handler()


def set_up_logging():
    root = logging.getLogger()
    root.handlers[:] = [LOG_HANDLER]
    level = logging.getLevelName(os.environ.get("AWS_LAMBDA_LOG_LEVEL", "").upper().replace("TRACE", "DEBUG"))
    if isinstance(level, int):
        root.setLevel(level)


def text_of(value):
    """`str(value)` of something that may fail at it."""
    try:
        text = str(value)
    except BaseException:
        text = "<%s that cannot be printed>" % type(value).__name__
    return text if len(text) <= MESSAGE_MAX else text[:MESSAGE_MAX] + "…"


def frames_of(error):
    """The user's stack, outermost call first, each frame as Python prints it, with paths as they are in the package."""
    package = os.environ.get("LAMBDA_TASK_ROOT", "") + os.sep
    frames = []
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == __file__ or frame.filename.startswith("<frozen importlib"):
            continue
        name = frame.filename
        if name.startswith(package):
            name = name[len(package):]
        frames.append(traceback.FrameSummary(name, frame.lineno, frame.name, lookup_line=False, line=frame.line))
    if len(frames) > TRACE_MAX:
        half = TRACE_MAX // 2
        frames = frames[:half] + frames[-half:]
    return [line.rstrip("\n") for line in traceback.format_list(frames)]


def memory_fault():
    limit = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "?")
    return Fault("Runtime.OutOfMemory", "the function reached its memory limit of %s MiB" % limit)


def fault_of(error):
    """An exception of the user's code as the error object's parts."""
    if isinstance(error, Fault):
        return error
    if isinstance(error, MemoryError):
        return memory_fault()
    return Fault(type(error).__name__, text_of(error), frames_of(error))


def error_body(fault, request_id=None):
    body = {"errorMessage": fault.message, "errorType": fault.error_type, "stackTrace": fault.trace}
    if request_id is not None:
        body["requestId"] = request_id
    return json.dumps(body).encode()


def log_fault(fault):
    """Into the log as AWS Lambda writes it: one line, then the stack."""
    lines = ["[ERROR] %s: %s" % (fault.error_type, fault.message)]
    if fault.trace:
        lines += ["Traceback (most recent call last):"] + fault.trace
    write_safely("\n".join(lines) + "\n")


def write_safely(text):
    try:
        sys.__stdout__.write(text)
    except BaseException:
        pass  # The user closed it.


def load_handler(name, task_root):
    """The function that `module.function` names; directories of the module are separated by `/` or `.`."""
    module_name, dot, function_name = name.rpartition(".")
    module_name = module_name.replace("/", ".").strip(".")
    if not dot or not module_name or not function_name:
        raise Fault("Runtime.MalformedHandlerName", "Bad handler '%s': it must be module.function" % name)
    top = module_name.split(".")[0]
    if top in sys.modules and is_in(task_root, top):
        # A fresh interpreter would find the function's module first.
        for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] == top]:
            del sys.modules[loaded]
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise Fault(
            "Runtime.ImportModuleError",
            "Unable to import module '%s': %s" % (module_name, text_of(error)),
            frames_of(error),
        ) from None
    except SyntaxError as error:
        where = '  File "%s" Line %s\n    %s' % (error.filename, error.lineno, (error.text or "").rstrip("\n"))
        raise Fault(
            "Runtime.UserCodeSyntaxError",
            "Syntax error in module '%s': %s" % (module_name, text_of(error)),
            [where],
        ) from None
    function = getattr(module, function_name, None)
    if function is None:
        raise Fault("Runtime.HandlerNotFound", "Handler '%s' missing on module '%s'" % (function_name, module_name))
    if not callable(function):
        raise Fault("Runtime.HandlerNotFound", "Handler '%s' on module '%s' is no function" % (function_name, module_name))
    return function


def is_in(task_root, top):
    path = os.path.join(task_root, top)
    return os.path.isfile(path + ".py") or os.path.isdir(path)


def encode_other(value):
    """What JSON does not know but AWS's runtime writes."""
    if type(value).__name__ == "Decimal" and type(value).__module__ == "decimal":
        return float(value)
    raise TypeError("Object of type %s is not JSON serializable" % type(value).__name__)


encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=encode_other).encode


def marshal(result):
    try:
        return encode(result).encode()
    except MemoryError:
        raise
    except Exception as error:
        raise Fault("Runtime.MarshalError", "Unable to marshal response: %s" % text_of(error)) from None


def unmarshal(body, content_type):
    try:
        return json.loads(body)
    except Exception as error:
        raise Fault("Runtime.UnmarshalError", "Unable to unmarshal input: %s" % text_of(error)) from None


def rehearse():
    """What every event needs, before this process is forked: the interpreter writes down how best to run code with the
    code, and what is written before the fork is shared."""
    headers = {"lambda-runtime-aws-request-id": "", "lambda-runtime-deadline-ms": "0"}
    function = {"name": "", "version": "", "memory": "", "log_group": "", "log_stream": ""}
    for _ in range(20):
        Context(headers, function)
        unmarshal(marshal({"text": "", "number": [1]}), None)
        flush()


def flush():
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()
        except Exception:
            pass  # Closed or replaced by the user.


def run(task_root, connection):
    """Serves the events that come over a connection to the Runtime API, until the agent ends this process. Returns an exit
    status when it cannot."""
    set_up_streams()
    set_up_logging()
    environment = os.environ
    client = Client(connection, environment["AWS_LAMBDA_RUNTIME_API"])
    handler_name = environment["_HANDLER"]
    sys.argv = ["bootstrap.py", handler_name]
    python_path = [path for path in environment.get("PYTHONPATH", "").split(":") if path]
    sys.path[:0] = [task_root] + python_path
    try:
        os.chdir(task_root)
        handler = load_handler(handler_name, task_root)
    except Exception as error:
        fault = fault_of(error)
        log_fault(fault)
        flush()
        client.post("init/error", error_body(fault), fault.error_type)
        return 1
    function = {
        "name": environment.get("AWS_LAMBDA_FUNCTION_NAME"),
        "version": environment.get("AWS_LAMBDA_FUNCTION_VERSION"),
        "memory": environment.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"),
        "log_group": environment.get("AWS_LAMBDA_LOG_GROUP_NAME"),
        "log_stream": environment.get("AWS_LAMBDA_LOG_STREAM_NAME"),
    }
    flush()
    headers, body = client.next()
    while True:
        request_id = headers["lambda-runtime-aws-request-id"]
        LogFilter.request_id = request_id
        trace_id = headers.get("lambda-runtime-trace-id")
        if trace_id:
            environment["_X_AMZN_TRACE_ID"] = trace_id
        else:
            environment.pop("_X_AMZN_TRACE_ID", None)
        error_type = None
        try:
            event = unmarshal(body, headers.get("content-type"))
            answer = marshal(handler(event, Context(headers, function)))
        except Exception as error:
            fault = fault_of(error)
            error = event = None  # What they hold may be what memory is short of.
            log_fault(fault)
            answer = error_body(fault, request_id)
            error_type = fault.error_type
        flush()
        path = "invocation/%s/%s" % (request_id, "response" if error_type is None else "error")
        event = body = None
        status = client.post(path, answer, error_type, more=client.next_request)
        answer = None
        if status not in (202, 413):
            raise ProtocolError("status %d for an answer" % status)
        headers, body = client.event()
