"""What Python 3.11 raises in one thread because of what another one does is no business of a body."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT_LUCK = """
import gc, sys, threading
from steporal.closures.own_code import OwnCode
from steporal.sandbox.watch import Watch, aside, in_body
from steporal.closures.syntax import parse

sys.setswitchinterval(1e-6)
sys.addaudithook(lambda event, args: sum(range(20)))  # Python code, in which another thread may take its turn
gc.set_threshold(50)
failures = []

class Garbage:
    def __init__(self):
        self.itself = self

    def __del__(self):
        sum(range(100))

async def handler(): ...

def watches():
    with Watch(OwnCode([handler]))():
        for _ in range(2_000):
            in_body(aside, len, "")

def parses():
    for _ in range(40):
        Garbage()
        assert len(parse(SOURCE).body) == 60

SOURCE = "".join(f"def f{n}(a, b):\\n  return [a + b * {n} for c in range({n})]\\n" for n in range(60))

def run(call):
    try:
        call()
    except BaseException as err:
        failures.append(repr(err))

threads = [threading.Thread(target=run, args=(CALL,)) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failures, failures
"""


@pytest.mark.parametrize("call", ["watches", "parses"])
def test_threads_do_not_disturb_each_other(call: str) -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_LUCK.replace("CALL", call)], check=True, timeout=60)
