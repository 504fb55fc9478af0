"""Calls that the body of a workflow must not make, and their replacements.

``steporal lint`` finds them in the source, and the watch (``sandbox/watch.py``) when a body makes them.
"""

from __future__ import annotations

STEP = "put it in a step.run(...)"

STEP_OUTSIDE = "put it in a step.run(...), or do it outside the workflow"

_TIME = f"use ctx.now(), or {STEP}"
_SLEEP = f'use await step.sleep("id", "5s"), or {STEP}'
_RANDOM = f"use ctx.random, or {STEP}"
_UUID = f"use ctx.uuid4(), or {STEP}"
_NETWORK = f"use step.ext.fetch(...), or {STEP}"
_THREAD = f"{STEP}, which runs a plain function in a thread"

_INSTEAD: dict[str, str] = {
    _TIME: """
        time.time time.time_ns time.monotonic time.monotonic_ns time.perf_counter time.perf_counter_ns
        time.process_time time.process_time_ns time.thread_time time.thread_time_ns time.clock_gettime
        time.localtime time.gmtime time.ctime time.strftime
        datetime.datetime.now datetime.datetime.utcnow datetime.datetime.today datetime.date.today
        """,
    _SLEEP: "time.sleep",
    _RANDOM: "random.*",
    f"use ctx.random if it need not be secret, or {STEP}": "secrets.* os.urandom os.getrandom random.SystemRandom",
    _UUID: "uuid.uuid1 uuid.uuid4 uuid.uuid6 uuid.uuid7 uuid.uuid8 uuid.getnode",
    _NETWORK: """
        requests.* urllib3.* urllib.request.* http.client.HTTPConnection http.client.HTTPSConnection
        httpx.get httpx.post httpx.put httpx.patch httpx.delete httpx.head httpx.options httpx.request httpx.stream
        httpx.Client httpx.AsyncClient aiohttp.ClientSession aiohttp.request
        """,
    STEP: """
        socket.socket socket.create_connection socket.create_server socket.socketpair socket.getaddrinfo
        socket.gethostbyname socket.gethostbyaddr socket.getnameinfo socket.gethostname socket.getfqdn
        smtplib.* ftplib.* imaplib.* poplib.* asyncio.open_connection asyncio.start_server
        sqlite3.connect psycopg.connect asyncpg.connect asyncpg.create_pool pymongo.MongoClient redis.Redis
        boto3.client boto3.resource
        open io.open os.open os.fdopen input gzip.open bz2.open lzma.open shutil.* tempfile.* glob.glob glob.iglob
        os.listdir os.scandir os.walk os.stat os.lstat os.access os.remove os.unlink os.rename os.replace os.mkdir
        os.makedirs os.rmdir os.removedirs os.chmod os.chown os.link os.symlink os.readlink os.truncate os.utime
        os.read os.write os.chdir os.getcwd
        os.path.exists os.path.lexists os.path.isfile os.path.isdir os.path.islink os.path.getsize os.path.getmtime
        os.path.getatime os.path.getctime os.path.abspath os.path.realpath os.path.expanduser
        pathlib.Path.open pathlib.Path.read_text pathlib.Path.read_bytes pathlib.Path.write_text
        pathlib.Path.write_bytes pathlib.Path.exists pathlib.Path.is_file pathlib.Path.is_dir pathlib.Path.is_symlink
        pathlib.Path.iterdir pathlib.Path.glob pathlib.Path.rglob pathlib.Path.walk pathlib.Path.stat
        pathlib.Path.lstat pathlib.Path.mkdir pathlib.Path.rmdir pathlib.Path.touch pathlib.Path.unlink
        pathlib.Path.rename pathlib.Path.replace pathlib.Path.chmod pathlib.Path.symlink_to pathlib.Path.hardlink_to
        pathlib.Path.readlink pathlib.Path.resolve pathlib.Path.absolute pathlib.Path.expanduser pathlib.Path.cwd
        pathlib.Path.home pathlib.Path.samefile
        os.environ os.environb os.getenv os.getenvb os.putenv os.unsetenv os.getpid os.getlogin os.cpu_count os.uname
        platform.node sys.argv sys.stdin
        subprocess.run subprocess.call subprocess.check_call subprocess.check_output subprocess.getoutput
        subprocess.getstatusoutput subprocess.Popen os.system os.popen os.fork os.spawnl os.spawnv os.execv os.execl
        asyncio.create_subprocess_exec asyncio.create_subprocess_shell multiprocessing.*
        """,
    "return from the handler, or raise NonRetryableError to fail the run": "sys.exit os._exit os.abort",
    _THREAD: """
        threading.Thread threading.Timer asyncio.to_thread loop.run_in_executor
        concurrent.futures.ThreadPoolExecutor concurrent.futures.thread.ThreadPoolExecutor
        concurrent.futures.ProcessPoolExecutor concurrent.futures.process.ProcessPoolExecutor
        """,
    'use step.ext.send_event("id", ...)': "steporal.Client.send_event",
    'use step.send_signal("id", ...)': "steporal.Client.send_signal",
    'use step.invoke_workflow("id", ...), or send an event that starts it': """
        steporal.Client.start_workflow steporal.Workflow.start
        """,
    'use step.invoke_workflow("id", ...), which returns the result, or put it in a step.run(...)': """
        steporal.Client.get_run steporal.Run.result steporal.Run.cancel
        """,
    STEP_OUTSIDE: "steporal.Client.connect steporal.Client.temporal steporal.Client.sync",
}

NAMES: dict[str, str] = {name: instead for instead, names in _INSTEAD.items() for name in names.split()}
"""Remedies by full name; ``random.*`` stands for everything in a module."""

REFERENCES = frozenset({"os.environ", "os.environb", "sys.argv", "sys.stdin"})
"""Names that are read, and not called."""

_FIXED_BY_ARGUMENTS = {"random.Random": 1, "time.localtime": 1, "time.gmtime": 1, "time.ctime": 1, "time.strftime": 2}
"""Functions that are deterministic if they get at least this many arguments."""

_HARMLESS = frozenset({"urllib.request.Request", "urllib3.util.Retry", "urllib3.util.Timeout", "requests.Request"})


def remedy(name: str, *, arguments: int = 0) -> str | None:
    """Return the remedy for a name in a body; None if a body may use it.

    Args:
        name: The full name, such as ``datetime.datetime.now``.
        arguments: The number of arguments of the call.
    """
    if (
        name in _HARMLESS
        or name.startswith("random.Random.")
        or arguments >= _FIXED_BY_ARGUMENTS.get(name, arguments + 1)
    ):
        return None
    if name in NAMES:
        return NAMES[name]
    parts = name.split(".")
    packages = (".".join(parts[:count]) for count in range(1, len(parts)))
    return next((NAMES[f"{package}.*"] for package in packages if f"{package}.*" in NAMES), None)
