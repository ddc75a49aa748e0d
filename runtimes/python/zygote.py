"""The zygote: one interpreter with the common standard library imported, forked for every sandbox.

Started by the agent with a SOCK_SEQPACKET socket as standard input. Each message is one JSON object.

    agent  -> {"fork": ID, "confine": {...}, "environment": {...}, "task_root": DIR}
              with three descriptors: standard output, standard error, a connection to the Runtime API
    zygote -> {"ready": VERSION, "unreadable": [PATH, ...]}
              {"forked": ID, "pid": PID}
              {"failed": ID, "reason": TEXT}          the child could not be made, or not be confined
              {"exited": ID, "status": WAIT_STATUS, "max_rss_kib": N}

A child puts on its bounds before it touches anything of the user's: session, cgroup, limits, user, no new privileges,
and death with its parent. The zygote holds no secret: whatever it has in memory every sandbox can read.
"""

import ctypes
import errno
import gc
import importlib
import importlib.util
import json
import os
import resource
import select
import signal
import socket
import stat
import sys
import time

MESSAGE_MAX = 1 << 20
CLONE_NEWNS = 0x20000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NO_NEW_PRIVS = 38

# What functions commonly import: imported once here, shared by all sandboxes. Nothing that starts threads or opens files.
PRELOAD = (
    "abc argparse array ast asyncio base64 binascii bisect calendar codecs collections collections.abc concurrent.futures "
    "contextlib contextvars copy csv ctypes dataclasses datetime decimal difflib email.message email.parser email.utils "
    "encodings.idna encodings.utf_8 encodings.latin_1 enum errno fnmatch fractions functools glob gzip hashlib heapq hmac "
    "html http.client http.cookies importlib importlib.util inspect io ipaddress itertools json linecache locale logging "
    "logging.handlers math mimetypes multiprocessing numbers operator os.path pathlib pickle platform posixpath pprint "
    "queue random re secrets select selectors shutil signal socket sqlite3 ssl statistics stat string struct subprocess "
    "tempfile textwrap threading time token tokenize traceback types typing unicodedata unittest urllib.error "
    "urllib.parse urllib.request uuid warnings weakref xml.etree.ElementTree zipfile zlib zoneinfo"
)


LIBC = ctypes.CDLL(None, use_errno=True)
PRCTL = LIBC.prctl
PRCTL.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
MOUNT = LIBC.mount
MOUNT.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]


def control(option, value):
    if PRCTL(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl %d" % option)


def mount(source, target, kind, flags, data=None):
    encoded = [text if text is None else os.fsencode(text) for text in (source, target, kind)]
    if MOUNT(*encoded, flags, data) != 0:
        raise OSError(ctypes.get_errno(), "mount on %s" % target)


def enter_private_view(temporary, work_dir):
    """A `/tmp` and shared memory of the sandbox's own; the agent's private.rs does the same for other runtimes."""
    if LIBC.unshare(CLONE_NEWNS) != 0:
        if ctypes.get_errno() in (errno.EPERM, errno.ENOSYS):
            return
        raise OSError(ctypes.get_errno(), "unshare")
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    for shared in ("/tmp", "/var/tmp"):
        shared = os.path.realpath(shared)
        if not os.path.isdir(shared):
            continue
        if work_dir.startswith(shared + "/"):
            # The agent's directory shows through.
            place = temporary + work_dir[len(shared) :]
            os.makedirs(place, 0o755)
            mount(work_dir, place, None, MS_BIND | MS_REC)
        mount(temporary, shared, None, MS_BIND | MS_REC)
    if os.path.isdir("/dev/shm"):
        mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, b"mode=1777")


def preload():
    """Imports the library a module at a time, between which the zygote listens: a slow machine has it all after seconds."""
    for name in PRELOAD.split():
        try:
            importlib.import_module(name)
        except ImportError:
            pass  # Not every Python has everything; a function that needs it gets its own error.
        yield


def unreadable_paths():
    """Directories of this Python that an unprivileged user cannot read; a child would fail at its first late import."""
    found = []
    for path in sys.path:
        path = os.path.realpath(path)
        while True:
            try:
                mode = os.stat(path).st_mode
            except OSError:
                break
            if stat.S_ISDIR(mode) and not mode & stat.S_IXOTH:
                if path not in found:
                    found.append(path)
                break
            if path == "/":
                break
            path = os.path.dirname(path)
    return found


class Zygote:
    def __init__(self, agent, runtime):
        self.agent = agent
        self.runtime = runtime
        self.children = {}
        self.own_pid = os.getpid()

    def tell(self, message):
        self.agent.send(json.dumps(message).encode())

    def serve(self):
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self.agent, select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        self.inherited = (wake_read, wake_write)
        self.tell({"ready": sys.version.split()[0], "unreadable": unreadable_paths()})
        loading = preload()
        while True:
            # Nobody who waits for a child waits for more than one module.
            ready = poll.poll(None if loading is None else 0)
            if not ready and next(loading, self) is self:
                loading = None
            for descriptor, _ in ready:
                if descriptor == wake_read:
                    try:
                        while len(os.read(wake_read, 512)) == 512:
                            pass
                    except BlockingIOError:
                        pass
                    self.reap()
                elif not self.receive():
                    return

    def receive(self):
        data, descriptors, _, _ = socket.recv_fds(self.agent, MESSAGE_MAX, 3)
        if not data:
            return False
        message = json.loads(data)
        try:
            self.fork(message, descriptors)
        except OSError as error:
            self.tell({"failed": message["fork"], "reason": "fork: %s" % error.strerror})
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def reap(self):
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            number = self.children.pop(pid, None)
            if number is not None:
                self.tell({"exited": number, "status": status, "max_rss_kib": usage.ru_maxrss})

    def fork(self, message, descriptors):
        pid = os.fork()
        if pid:
            self.children[pid] = message["fork"]
            self.tell({"forked": message["fork"], "pid": pid})
            return
        # The child never comes back from here.
        status = 1
        try:
            try:
                self.confine(message["confine"], descriptors[:2])
            except BaseException as error:
                self.tell({"failed": message["fork"], "reason": "%s: %s" % (type(error).__name__, error)})
                os._exit(126)
            self.agent.close()
            for descriptor in self.inherited:
                os.close(descriptor)
            status = self.run(message, descriptors[2])
        except SystemExit as error:
            status = exit_status(error)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            leave(status)

    def confine(self, confine, descriptors):
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.umask(0o022)
        os.setsid()
        if confine["entrance"]:
            with open(confine["entrance"], "w") as entrance:
                entrance.write("0")
        os.dup2(descriptors[0], 1)
        os.dup2(descriptors[1], 2)
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        for descriptor in descriptors:
            os.close(descriptor)
        if confine["private"]:
            enter_private_view(**confine["private"])
        for name, value in confine["limits"]:
            if name == "data":
                value += own_data()
            kind = getattr(resource, "RLIMIT_" + name.upper())
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))
        try:
            # As the agent's launch.rs does.
            with open("/proc/self/oom_score_adj", "w") as score:
                score.write("1000")
        except OSError:
            pass
        user = confine["user"]
        if user is not None:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            # A change of user makes /proc/self foreign; every sandbox has its own user, so nothing is given away.
            control(PR_SET_DUMPABLE, 1)
        control(PR_SET_NO_NEW_PRIVS, 1)
        # After the change of user, which clears it.
        control(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self.own_pid:
            os._exit(126)

    def run(self, message, connection):
        os.environ.clear()
        os.environ.update(message["environment"])
        time.tzset()
        # What the zygote brought along is not looked at by the collector, whose marks would make its pages this child's own.
        gc.freeze()
        gc.enable()
        os.set_inheritable(connection, False)
        return self.runtime.run(message["task_root"], socket.socket(fileno=connection))


def own_data():
    """Bytes of data that the zygote brought along; the limit counts from there."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    return 0


def exit_status(error):
    """What the interpreter would make of a SystemExit."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def leave(status):
    """Ends this process as the interpreter would, but never returns into the zygote's stack."""
    try:
        import atexit
        import threading

        threading._shutdown()
        atexit._run_exitfuncs()
    except BaseException:
        pass
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            pass
    os._exit(status)


def load_runtime(path):
    """The bootstrap as a module whose name no function's module has."""
    spec = importlib.util.spec_from_file_location("_lambda_bootstrap", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.rehearse()
    return module


def main():
    # A collection writes to every object: what children share would be theirs no more.
    gc.disable()
    control(PR_SET_PDEATHSIG, signal.SIGKILL)
    agent = socket.socket(fileno=os.dup(0))
    runtime = load_runtime(os.path.join(os.path.dirname(os.path.abspath(__file__)), "bootstrap.py"))
    Zygote(agent, runtime).serve()


if __name__ == "__main__":
    main()
