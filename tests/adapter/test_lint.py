"""`steporal.lint`: what is not deterministic in a body is found in its source, and nothing else is."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from textwrap import dedent, indent

import pytest
from apps import clock, clock_broken, forms, notify, pair, values

import steporal
from examples.approval import app as approval
from examples.payment import app as payment
from examples.shop import app as shop
from steporal.lint import Finding, findings
from steporal.sandbox import remedies

_numbers = count(1)

HEADER = """\
import asyncio
import steporal
from steporal import Context, Step

client = steporal.Client("linted")
"""

Lint = Callable[..., list[Finding]]


@pytest.fixture
def lint_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lint]:
    """Lints an app that consists of a module, and of further ones by name."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def lint(source: str, **modules: str) -> list[Finding]:
        name = f"linted_{next(_numbers)}"
        for other, text in modules.items():
            (tmp_path / f"{other}.py").write_text(dedent(text))
        (tmp_path / f"{name}.py").write_text(HEADER + dedent(source))
        importlib.invalidate_caches()
        return findings(importlib.import_module(name).client)

    yield lint
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def lint_body(lint_app: Lint) -> Lint:
    """Lints a body, with what stands in its module before it."""

    def lint(body: str, module: str = "", **modules: str) -> list[Finding]:
        handler = '@client.workflow(id="linted")\nasync def handler(ctx: Context, step: Step):\n'
        return lint_app(f"{dedent(module)}\n{handler}{indent(dedent(body), '    ')}", **modules)

    return lint


@pytest.mark.parametrize(
    ("body", "called"),
    [
        ('step.run("a", print)', "step.run"),
        ('step.sleep("a", "1s")', "step.sleep"),
        ('step.ext.send_event("a", {"name": "b"})', "step.ext.send_event"),
        ('charge = step.run("a", print)', "step.run"),
        ('if ctx.attempt:\n    for n in range(3):\n        step.run("a", print)', "step.run"),
        ('async def branch():\n    step.run("a", print)\nawait branch()', "step.run"),
    ],
)
def test_a_step_that_nothing_awaits_is_found(lint_body: Lint, body: str, called: str) -> None:
    [found] = lint_body(body)
    assert found.does == f"calls {called} and never awaits it"
    assert f"await {called}(...)" in found.instead


def test_a_step_that_nothing_awaits_is_found_in_a_helper_by_its_type(lint_body: Lint) -> None:
    helper = 'async def helper(steps: Step):\n    steps.run("a", print)\n    steps.ext.fetch("b", "GET", "http://a")'
    assert does(lint_body("await helper(step)", helper)) == [
        "calls steps.run and never awaits it",
        "calls steps.ext.fetch and never awaits it",
    ]


@pytest.mark.parametrize(
    "body",
    [
        'await step.run("a", print)',
        'charge = step.run("a", print)\nawait charge',
        'charge = step.run("a", print)\nasync def later():\n    await charge\nawait later()',
        'import asyncio\nawait asyncio.gather(step.run("a", print), step.run("b", print))',
        'import asyncio\nasync with asyncio.TaskGroup() as group:\n    group.create_task(step.run("a", print))',
        'return step.run("a", print)',
        'steps = [step.run(f"{n}", print) for n in range(3)]\nfor each in steps:\n    await each',
        'step.run("a", print)  # steporal: ignore',
        'step.run("a", print).close()',
    ],
)
def test_a_step_that_something_awaits_is_not_found(lint_body: Lint, body: str) -> None:
    assert lint_body(body) == []


def does(found: list[Finding]) -> list[str]:
    return [finding.does for finding in found]


@pytest.mark.parametrize(
    ("imports", "body", "called", "instead"),
    [
        ("import time", "time.time()", "time.time", "ctx.now()"),
        ("import sys", "sys.exit(2)", "sys.exit", "NonRetryableError"),
        ("from time import time as clock", "clock()", "time.time", "ctx.now()"),
        ("import time as t", "t.monotonic()", "time.monotonic", "ctx.now()"),
        ("import datetime", "datetime.datetime.now()", "datetime.datetime.now", "ctx.now()"),
        ("from datetime import datetime as dt", "dt.utcnow()", "datetime.datetime.utcnow", "ctx.now()"),
        ("from datetime import datetime", "datetime.today()", "datetime.datetime.today", "ctx.now()"),
        ("from datetime import date", "date.today()", "datetime.date.today", "ctx.now()"),
        ("import time", "time.sleep(1)", "time.sleep", "step.sleep"),
        ("import random", "random.random()", "random.random", "ctx.random"),
        ("from random import choice", "choice([1, 2])", "random.choice", "ctx.random"),
        ("import random", "random.Random()", "random.Random", "ctx.random"),
        ("import secrets", "secrets.token_hex()", "secrets.token_hex", "step.run"),
        ("from secrets import choice", "choice([1, 2])", "secrets.choice", "step.run"),
        ("import uuid", "uuid.uuid1()", "uuid.uuid1", "ctx.uuid4()"),
        ("from uuid import uuid4", "uuid4()", "uuid.uuid4", "ctx.uuid4()"),
        ("import os", "os.urandom(4)", "os.urandom", "step.run"),
        ("import httpx", 'httpx.get("http://a")', "httpx.get", "step.ext.fetch"),
        ("import httpx", "client = httpx.AsyncClient()", "httpx.AsyncClient", "step.ext.fetch"),
        ("", 'import requests\nrequests.post("http://a")', "requests.post", "step.ext.fetch"),
        ("", "import aiohttp\naiohttp.ClientSession()", "aiohttp.ClientSession", "step.ext.fetch"),
        ("from urllib.request import urlopen", 'urlopen("http://a")', "urllib.request.urlopen", "step.ext.fetch"),
        ("import socket", "socket.socket()", "socket.socket", "step.run"),
        ("", 'open("a")', "open", "step.run"),
        ("from pathlib import Path", 'Path("a").read_text()', "pathlib.Path.read_text", "step.run"),
        ("from pathlib import Path", 'p = Path("a") / "b"\np.write_text("")', "pathlib.Path.write_text", "step.run"),
        ("from pathlib import Path\nHERE = Path('.')", "HERE.exists()", "pathlib.Path.exists", "step.run"),
        ("from pathlib import Path", 'Path("a").open()', "pathlib.Path.open", "step.run"),
        ("import os", 'os.listdir(".")', "os.listdir", "step.run"),
        ("from os import remove", 'remove("a")', "os.remove", "step.run"),
        ("import os", 'os.path.exists("a")', "os.path.exists", "step.run"),
        ("import os", 'os.getenv("A")', "os.getenv", "step.run"),
        ("import threading", "threading.Thread(target=print).start()", "threading.Thread", "in a thread"),
        ("", "await asyncio.to_thread(print)", "asyncio.to_thread", "in a thread"),
        ("", "await asyncio.get_running_loop().run_in_executor(None, print)", "loop.run_in_executor", "in a thread"),
        ("import subprocess", 'subprocess.run(["true"])', "subprocess.run", "step.run"),
        ("import multiprocessing", "multiprocessing.Process()", "multiprocessing.Process", "step.run"),
        ("", 'await client.send_event({"name": "a"})', "steporal.Client.send_event", "step.ext.send_event"),
        ("", "await handler.start()", "steporal.Workflow.start", "step.invoke_workflow"),
    ],
)
def test_what_a_body_may_not_call_is_found(lint_body: Lint, imports: str, body: str, called: str, instead: str) -> None:
    [found] = lint_body(body, imports)
    assert found.does == f"calls {called}"
    assert instead in found.instead
    assert found.workflow == "linted"


@pytest.mark.parametrize("imports", ["from concurrent.futures import ThreadPoolExecutor", "import concurrent.futures"])
def test_a_pool_of_threads_is_found(lint_body: Lint, imports: str) -> None:
    name = "ThreadPoolExecutor" if "from" in imports else "concurrent.futures.ThreadPoolExecutor"
    [found] = lint_body(f"with {name}() as pool:\n    pool.submit(print)", imports)
    assert found.does.endswith("ThreadPoolExecutor")


@pytest.mark.parametrize("body", ['os.environ["A"]', 'os.environ.get("A")', '"A" in environ', "dict(environ)"])
def test_a_look_into_the_environment_is_found(lint_body: Lint, body: str) -> None:
    assert does(lint_body(body, "import os\nfrom os import environ")) == ["reads os.environ"]


@pytest.mark.parametrize(
    "body",
    [
        "now = ctx.now()\nctx.random.random()\nctx.uuid4()",
        'await step.sleep("s", "5s")\nawait asyncio.sleep(1)',
        "from datetime import UTC, datetime\ndatetime(2026, 1, 1, tzinfo=UTC)",
        "import random\nrandom.Random(7).random()",
        "import time\ntime.strftime('%Y', time.gmtime(0))",
        "import uuid\nuuid.UUID(int=1)\nuuid.uuid5(uuid.NAMESPACE_DNS, 'a')",
        "from pathlib import PurePath, Path\nPath('a').name\nPath('a') / 'b'\nPurePath('a').parts",
        "import os\nos.path.join('a', 'b')",
        "from urllib.parse import urlparse\nurlparse('http://a')",
        "import httpx\ntry:\n    pass\nexcept httpx.HTTPError:\n    raise httpx.HTTPError('a')",
        "time = ctx.now()\ntime.time()",
        "open = ctx.input.data.get('open')\nopen('a')",
        "for key in {'a', 'b'}:\n    print(key)",
        "await asyncio.gather(*(step.run(key, print) for key in sorted({'a', 'b'})))",
        "import logging\nlogging.info('hello')\nprint('hello')",
    ],
)
def test_what_a_body_may_do_is_not_found(lint_body: Lint, body: str) -> None:
    assert lint_body(body) == []


@pytest.mark.parametrize(
    "body",
    [
        'await step.run("a", lambda: time.time())',
        "def read():\n    return open('a').read()\nawait step.run('a', read)",
        "async def pause():\n    time.sleep(1)\nawait step.run('a', functools.partial(pause))",
        'await step.run("a", time.time)',
        'await step.run("a", in_module, 1)',
        "charge = functools.partial(in_module, 1)\nawait step.run('a', charge)",
    ],
)
def test_a_function_that_is_a_step_may_do_anything(lint_body: Lint, body: str) -> None:
    module = """
        import functools, time

        def in_module(number):
            return time.time()
        """
    assert lint_body(body, module) == []


def test_arguments_and_defaults_of_steps_are_the_bodys(lint_body: Lint) -> None:
    body = """
        def charge(at=time.time()):
            return at
        await step.run("a", charge, time.monotonic())
        """
    assert does(lint_body(body, "import time")) == ["calls time.time", "calls time.monotonic"]


def test_functions_that_the_body_calls_are_followed(lint_body: Lint) -> None:
    found = lint_body(
        """
        def nested():
            return helpers.deep()
        return [nested(), await asyncio.gather(late())]
        """,
        """
        import linted_helpers as helpers

        async def late():
            return helpers.Clock().read()
        """,
        linted_helpers="""
            import time

            def deep():
                return deeper()

            def deeper():
                deep()
                return time.time()

            class Clock:
                def __init__(self):
                    self.made = time.monotonic()

                def read(self):
                    return time.time_ns()
            """,
    )
    assert does(found) == ["calls time.time", "calls time.monotonic", "calls time.time_ns"]
    assert [Path(finding.file).name for finding in found] == ["linted_helpers.py"] * 3
    assert [len(finding.called_from) for finding in found] == [3, 2, 2]
    assert "called from" in str(found[0])


def test_a_context_manager_of_the_app_is_followed(lint_body: Lint) -> None:
    module = """
        import time
        from contextlib import contextmanager

        @contextmanager
        def timed():
            yield time.perf_counter()
        """
    assert does(lint_body("with timed():\n    pass", module)) == ["calls time.perf_counter"]


def test_a_function_of_a_library_is_not_followed(lint_body: Lint) -> None:
    assert lint_body("json.dumps({})\nPath('a').name", "import json\nfrom pathlib import Path") == []


def test_what_sorted_calls_is_followed(lint_body: Lint) -> None:
    body = "sorted([1], key=lambda x: random.random())\nmax([1], key=draw)"
    module = "import random\ndef draw(x):\n    return random.randint(0, x)"
    assert does(lint_body(body, module)) == ["calls random.randint", "calls random.random"]


def test_defaults_of_models_and_dataclasses_are_found(lint_body: Lint) -> None:
    found = lint_body(
        "Order(id=ctx.uuid4())\nOrder()\nPoint()",
        """
        import time
        from dataclasses import dataclass, field
        from uuid import UUID, uuid4
        from pydantic import BaseModel, Field

        class Order(BaseModel):
            id: UUID = Field(default_factory=uuid4)

        @dataclass
        class Point:
            at: float = field(default_factory=lambda: time.time()); name: str = field(default_factory=lambda: "a")
        """,
    )
    assert does(found) == ["calls time.time", "calls uuid.uuid4, the default of Order.id"]


@pytest.mark.parametrize(
    "body",
    [
        "for key in {'a', 'b'}:\n    await step.run(key, print)",
        "await asyncio.gather(*(step.run(key, print) for key in set(ctx.input.data)))",
        "keys = {key for key in ctx.input.data}\nawait asyncio.gather(*[step.run(key, print) for key in keys])",
        "for key in ctx.input.data.keys() - {'a'}:\n    await step.run(key, print)",
    ],
)
def test_steps_in_the_order_of_a_set_are_found(lint_body: Lint, body: str) -> None:
    [found] = lint_body(body)
    assert "the order of a set" in found.does
    assert found.instead == "use sorted(...)"


def test_a_comment_silences_a_line_and_what_it_calls(lint_body: Lint) -> None:
    body = """
        time.time()  # steporal: ignore
        late()  # it is only logged; steporal: ignore
        time.sleep(
            1
        )  # steporal: ignore
        if time.time() > 1:  # steporal: ignore
            time.monotonic()
        """
    assert does(lint_body(body, "import time\ndef late():\n    return time.time_ns()")) == ["calls time.monotonic"]


def test_each_workflow_has_its_own_findings_with_file_and_line(lint_app: Lint) -> None:
    found = lint_app(
        """
        import time

        @client.workflow(id="one")
        async def one(ctx, step):
            return time.time()

        @client.workflow(id="two", ext=steporal.WorkflowExt(on_failure=one.handler))
        async def two(ctx, step):
            return [time.time(), time.time()]
        """
    )
    assert [(finding.workflow, finding.line) for finding in found] == [("one", 11), ("two-failure", 11), ("two", 15)]
    assert str(found[0]) == (
        f"{found[0].file}:11: workflow 'one' calls time.time; use ctx.now(), or put it in a step.run(...)"
    )


def test_handlers_inside_functions_and_decorated_ones_are_read(lint_app: Lint) -> None:
    found = lint_app(
        '''
        import functools, time

        def traced(handler):
            @functools.wraps(handler)
            async def wrapper(ctx, step):
                time.monotonic()
                return await handler(ctx, step)
            return wrapper

        def define(clock):
            @client.workflow(id="inside")
            @traced
            async def inside(ctx, step):
                text = """
        at the margin"""
                return clock()

        define(time.time)
        '''
    )
    assert [(finding.line, finding.does) for finding in found] == [
        (12, "calls time.monotonic"),
        (22, "calls time.time"),
    ]


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("global counter\ncounter += 1", "assigns the global variable 'counter'"),
        ("global counter\ndel counter", "assigns the global variable 'counter'"),
        ("CACHE[ctx.run_id] = 1", "changes the global variable 'CACHE'"),
        ("CACHE[ctx.run_id] += 1", "changes the global variable 'CACHE'"),
        ("del CACHE['a']", "changes the global variable 'CACHE'"),
        ("seen.append(ctx.run_id)", "changes the global variable 'seen'"),
        ("remember(ctx.run_id)", "changes the global variable 'seen'"),
    ],
)
def test_a_change_of_what_all_runs_share_is_found(lint_body: Lint, body: str, what: str) -> None:
    module = """
        counter = 0
        CACHE = {"a": 1}
        seen = []

        def remember(run_id):
            seen.append(run_id)
        """
    [finding] = lint_body(body, module)
    assert (finding.does, finding.instead) == (what, "keep it in a local variable, and pass it on")


@pytest.mark.parametrize(
    "body",
    [
        "global settings\nif settings is None:\n    settings = 1",
        "counter = 1\ncounter += 1",
        "seen = []\nseen.append(1)",
        "CACHE['a']",
        "CACHE.get('a')",
        "await step.run('remember', lambda: seen.append(1))",
        "seen.append(1)  # steporal: ignore",
    ],
)
def test_what_changes_nothing_that_runs_share_is_not_found(lint_body: Lint, body: str) -> None:
    assert lint_body(body, "counter, CACHE, seen, settings = 0, {'a': 1}, [], None") == []


SHARED = """
    import asyncio
    from collections import defaultdict
    import shared_state

    lock, event, gate = asyncio.Lock(), asyncio.Event(), asyncio.BoundedSemaphore(2)
    jobs = asyncio.PriorityQueue()
    locks = defaultdict(asyncio.Lock)
    pool = {"a": asyncio.Semaphore(1)}

    class Shop:
        lock = asyncio.Lock()

        def __init__(self):
            self.ready = asyncio.Condition()

    shop = Shop()

    async def helper():
        async with lock:
            pass
    """


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("async with lock:\n    pass", "uses 'lock' (asyncio.Lock), which all runs of the worker share"),
        ("await event.wait()", "uses 'event' (asyncio.Event)"),
        ("async with gate:\n    pass", "uses 'gate' (asyncio.Semaphore)"),
        ("await jobs.get()", "uses 'jobs' (asyncio.Queue)"),
        ("async with locks[ctx.run_id]:\n    pass", "uses 'locks' (asyncio.Lock)"),
        ("async with pool['a']:\n    pass", "uses 'pool' (asyncio.Semaphore)"),
        ("async with Shop.lock:\n    pass", "uses 'Shop.lock' (asyncio.Lock)"),
        ("async with shop.ready:\n    pass", "uses 'shop.ready' (asyncio.Condition)"),
        ("await shared_state.event.wait()", "uses 'shared_state.event' (asyncio.Event)"),
        ("await helper()", "uses 'lock' (asyncio.Lock)"),
        ("async def branch():\n    async with lock:\n        pass\nawait branch()", "uses 'lock' (asyncio.Lock)"),
    ],
)
def test_what_runs_share_and_wait_for_is_found(lint_body: Lint, body: str, what: str) -> None:
    (finding,) = lint_body(body, SHARED, shared_state="import asyncio\nevent = asyncio.Event()")
    assert finding.does.startswith(what)
    assert finding.instead.startswith("create it in the handler")


@pytest.mark.parametrize(
    "body",
    [
        "lock = asyncio.Lock()\nasync with lock:\n    pass",
        "jobs = asyncio.Queue()\nasync def branch():\n    await jobs.get()\nawait branch()",
        'async def work():\n    async with lock:\n        pass\nawait step.run("work", work)',
        "async with lock:  # steporal: ignore\n    pass",
    ],
)
def test_what_one_run_waits_for_is_not_found(lint_body: Lint, body: str) -> None:
    assert lint_body(body, SHARED, shared_state="import asyncio\nevent = asyncio.Event()") == []


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("out = []\nawait step.run('a', lambda: out.append(1))", "out"),
        ("seen: set[int] = set()\nawait step.run('a', lambda: seen.add(1))", "seen"),
        ("found = {}\ndef search():\n    found['a'] = 1\nawait step.run('a', search)", "found"),
        ("order = load()\ndef close():\n    order.lines[0].state = 'closed'\nawait step.run('a', close)", "order"),
        ("found = {'a': 1}\nasync def forget():\n    del found['a']\nawait step.run('a', forget)", "found"),
        ("n = {}\ndef count():\n    n['a'] += 1\nawait asyncio.gather(step.run('a', count), load())", "n"),
    ],
)
def test_a_change_that_a_step_makes_to_a_variable_of_the_body_is_found(lint_body: Lint, body: str, name: str) -> None:
    [finding] = lint_body(body, "def load(): ...")
    assert finding.does == f"changes {name!r} inside a step, and the change is lost"
    assert finding.instead == "return the value from the step, and change the variable in the body"


@pytest.mark.parametrize(
    "body",
    [
        "out = []\nout.append(await step.run('a', lambda: 1))",
        "await step.run('a', lambda: load().append(1))",
        "orders = load()\nawait step.run('a', lambda: orders.add(1))",
        "def search():\n    found = []\n    found.append(1)\n    return found\nawait step.run('a', search)",
        "order = {}\ndef fill():\n    order['a'] = 1\n    return order\norder = await step.run('a', fill)",
        "out = []\nawait step.run('a', lambda: out.append(1))  # steporal: ignore",
        "out = []\nlater = lambda: out.append(1)\nlater()",
    ],
)
def test_a_step_that_changes_what_is_its_own_or_what_it_returns_is_right(lint_body: Lint, body: str) -> None:
    assert lint_body(body, "def load(): ...") == []


def test_a_handler_without_source_is_passed_over() -> None:
    client = steporal.Client("linted")
    names: dict[str, object] = {"client": client, "__name__": "linted"}
    exec("@client.workflow(id='typed')\nasync def typed(ctx, step):\n    return open('a')", names)
    assert findings(client) == []


@pytest.mark.parametrize(
    "client",
    [module.client for module in (approval, payment, shop, clock, forms, notify, pair, values)],
    ids=lambda client: client.id,
)
def test_nothing_is_found_in_apps_that_are_right(client: steporal.Client) -> None:
    assert findings(client) == []


def test_all_is_found_in_the_app_that_is_broken() -> None:
    assert does(findings(clock_broken.client)) == [
        "calls datetime.datetime.now",
        "calls random.random",
        "calls uuid.uuid4",
        "calls time.sleep",
        "calls open",
        "reads os.environ",
        "calls asyncio.to_thread",
        "calls time.time",
        "calls time.monotonic",
    ]


def test_nothing_is_imported_or_run(lint_body: Lint) -> None:
    before = sys.modules.pop("colorsys", None)
    lint_body("import colorsys\nraise SystemExit(colorsys.rgb_to_hsv(1, 1, 1))")
    assert "colorsys" not in sys.modules
    if before is not None:
        sys.modules["colorsys"] = before


@pytest.mark.parametrize("name", sorted(remedies.NAMES))
def test_every_name_has_a_remedy(name: str) -> None:
    instead = remedies.remedy(name.replace("*", "anything"))
    assert instead is not None
    assert "step." in instead or "NonRetryableError" in instead


@pytest.mark.parametrize(
    "body",
    [
        "await asyncio.gather(*(branch(n) for n in range(3)))",
        "await asyncio.gather(*[branch(n) for n in range(3)])",
        "await asyncio.gather(branch(1), branch(2))",
        "async with asyncio.TaskGroup() as group:\n    for n in range(3):\n        group.create_task(branch(n))",
        "first = asyncio.create_task(branch(1))\nsecond = asyncio.ensure_future(branch(2))\nawait first, await second",
    ],
)
def test_ids_that_branches_share_are_warned_of(lint_body: Lint, body: str) -> None:
    branch = 'async def branch(n):\n    await step.run("charge", print, n)\n'
    (found,) = lint_body(branch + body, module="import asyncio")
    assert found.is_warning
    assert found.does == "calls step.run with the id 'charge' in several branches"


@pytest.mark.parametrize(
    "branch",
    [
        'async def branch(n):\n    await step.run(f"charge {n}", print, n)\n',
        'async def branch(n):\n    await step.run("charge", print, n)  # steporal: ignore\n',
    ],
)
def test_ids_of_branches_that_differ_are_not(lint_body: Lint, branch: str) -> None:
    assert lint_body(f"{branch}await asyncio.gather(*(branch(n) for n in range(3)))", module="import asyncio") == []


def test_an_id_in_one_branch_is_not(lint_body: Lint) -> None:
    branch = 'async def branch(n):\n    await step.run("charge", print, n)\n'
    body = f'{branch}await asyncio.gather(branch(1), step.sleep("a", 1))'
    assert lint_body(body, module="import asyncio") == []
