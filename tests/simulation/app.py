"""The app of the simulation: a handler that executes whatever program it is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from datetime import timedelta
from functools import partial
from typing import Any

from temporalio import workflow

import steporal
from steporal import Context, RetryPolicy, SentEvent, Step, StepError, WorkflowExt

from . import programs
from .effects import Seen, perform, recorder, result_of
from .programs import Node, from_data

_MOST_POLLS = 20

VAR: ContextVar[str] = ContextVar("simulation_var", default="none")

QUICKLY = RetryPolicy(initial_interval=timedelta(milliseconds=1))

client = steporal.Client("simulation", retry=QUICKLY, step_packages=["tests", "simulation"])


ELSEWHERE = steporal.reference("elsewhere", "invoked")


class Oops(Exception):
    """What a program raises itself."""


class Fault(Exception):
    """What a body attempt ends with, as no program says."""


def written_as_function(label: str, seconds: tuple[float, ...], fails: int, given: object = None) -> str:
    return perform(label, seconds, fails)


async def written_as_coroutine(label: str, seconds: tuple[float, ...], fails: int, given: object = None) -> str:
    return perform(label, seconds, fails)


class Body:
    """One attempt of a body.

    Attributes:
        seen: What its branches have seen, in order: the path of the statement, and what it saw.
        is_over: Whether the handler has returned.
    """

    def __init__(self, ctx: Context[Any], step: Step, fault: int | None) -> None:
        self._ctx = ctx
        self._step = step
        self._fault = fault
        self._points = 0
        self.is_over = False
        self.has_failed = False
        self._failed_at = 0.0
        self.seen = Seen()
        recorder().body_begins(self.seen)

    def say(self, path: str, *what: Any) -> None:
        if self.is_over:  # a task that was left to itself is cancelled when the handler has returned
            return
        self.seen.append([path, *what])
        self.seen.times.append(workflow.time())

    def _point(self) -> None:
        """Between two statements that only the body's main branch and ``gather`` are in, a body attempt may end."""
        self._points += 1
        if self._points == self._fault:
            self.has_failed = True
            recorder().interrupted("a body attempt", has_other_clock=True)
            self._failed_at = workflow.time()
        self.check_failed()

    def check_failed(self) -> None:
        """End the attempt of the body, if it is to end; ``gather`` may have raised another error of a branch first."""
        if self.has_failed:
            recorder().outlasted(workflow.time() - self._failed_at)
            raise Fault("the body attempt ends here")

    async def run(self, node: Node, path: str, is_open: bool) -> Any:
        """Execute a statement.

        Args:
            node: The statement.
            path: Where it is in the program, with the numbers of iterations; no two calls have the same.
            is_open: Whether a body attempt may end there.
        """
        if is_open:
            self._point()
        self.check_failed()
        execute: Callable[[Any, str, bool], Awaitable[Any]] = getattr(self, f"_{type(node).__name__}")
        return await execute(node, path, is_open)

    async def _or_error(self, path: str, awaitable: Awaitable[Any]) -> Any:
        """What something returns, or what a program may raise, as text."""
        try:
            return await awaitable
        except (StepError, Oops, TimeoutError) as err:
            return _text(err)

    def _tasks(self, branches: tuple[Node, ...], path: str) -> list[asyncio.Task[Any]]:
        return [asyncio.create_task(self.run(b, f"{path}.{n}", False)) for n, b in enumerate(branches)]

    # --- steps -----------------------------------------------------------------------------------------------------

    async def _Step(self, node: programs.Step, path: str, is_open: bool) -> Any:
        label, seconds, fails, step = path, node.seconds, node.fails, self._step
        limit = None if node.timeout is None else timedelta(seconds=node.timeout)
        given = None if node.takes is None else self._drawn(node.takes)
        id = f"{node.id} {self._ctx.random.randrange(1000)}" if node.is_named_by_chance else node.id
        try:
            match node.form:
                case "lambda":
                    result = await step.run(
                        id, lambda: written_as_function(label, seconds, fails, given), timeout=limit
                    )
                case "function":
                    result = await step.run(id, written_as_function, label, seconds, fails, given, timeout=limit)
                case "async":
                    result = await step.run(id, written_as_coroutine, label, seconds, fails, given, timeout=limit)
                case "partial":
                    result = await step.run(
                        id, partial(written_as_function, label, seconds, fails=fails, given=given), timeout=limit
                    )
                case "local":
                    result = await step.run(id, written_as_function, label, seconds, fails, given, local=True)
        except StepError as err:
            self.say(path, "failed", _text(err))
            if "Declined" in str(err) and label not in str(err):
                self.say(path, "EXCHANGED", str(err))
            raise
        except asyncio.CancelledError:
            self.say(path, "cancelled")
            raise
        self.say(path, result)
        if result != result_of(label):
            self.say(path, "EXCHANGED", result)
        return result

    async def _Sleep(self, node: programs.Sleep, path: str, is_open: bool) -> Any:
        await self._step.sleep(node.id, timedelta(seconds=node.seconds))
        self.say(path, "slept")

    async def _Pause(self, node: programs.Pause, path: str, is_open: bool) -> Any:
        await asyncio.sleep(node.seconds)
        self.say(path, "paused")

    async def _Draw(self, node: programs.Draw, path: str, is_open: bool) -> Any:
        self.say(path, node.what, self._drawn(node.what))

    def _drawn(self, what: str) -> Any:
        match what:
            case "random":
                return self._ctx.random.random()
            case "uuid":
                return str(self._ctx.uuid4())
            case "attempt":
                return self._ctx.attempt
            case "ids":
                return {self._ctx.run_id: [f"{self._ctx.ext.workflow_id}/charge", self._ctx.input.id.encode()]}
            case "parts":
                return f"{self._ctx.run_id[:8]} {self._ctx.input.id.upper()}"
            case "temporal":
                return [workflow.random().random(), str(workflow.uuid4()), workflow.time()]
            case _:
                return self._ctx.now().timestamp()

    async def _Send(self, node: programs.Send, path: str, is_open: bool) -> Any:
        event = SentEvent(name=node.name, data={"seconds": node.seconds, "from": path})
        sent = await self._step.ext.send_event(node.id, event)
        self.say(path, "sent", sent.ids)

    async def _WaitEvent(self, node: programs.WaitEvent, path: str, is_open: bool) -> Any:
        event = await self._step.ext.wait_for_event(node.id, event=node.name, timeout=timedelta(seconds=node.timeout))
        self.say(path, "event", None if event is None else event.id)

    async def _Listen(self, node: programs.Listen, path: str, is_open: bool) -> Any:
        timeout = timedelta(seconds=node.timeout)
        async with await self._step.ext.listen(node.id, event=node.name, timeout=timeout) as listener:
            for number in range(node.times):
                event = await listener.next(f"{node.id} next")
                self.say(f"{path}.{number}", "heard", None if event is None else event.id)
                if event is None:
                    break
                if node.each is not None:
                    await self._or_error(path, self.run(node.each, f"{path}.{number}", is_open))

    async def _WaitSignal(self, node: programs.WaitSignal, path: str, is_open: bool) -> Any:
        timeout = timedelta(seconds=node.timeout)
        signal = await self._step.wait_for_signal(node.id, signal=node.name, timeout=timeout, on_conflict="replace")
        self.say(path, "signal", None if signal is None else signal.data)

    async def _SendSignal(self, node: programs.SendSignal, path: str, is_open: bool) -> Any:
        sent = await self._step.send_signal(node.id, signal=node.name, data={"seconds": node.seconds, "from": path})
        self.say(path, "signalled", sent.run_id is not None)

    async def _Invoke(self, node: programs.Invoke, path: str, is_open: bool) -> Any:
        data = {"label": path, "seconds": node.seconds, "fails": node.fails}
        timeout = None if node.timeout is None else timedelta(seconds=node.timeout)
        try:
            target: Any = ELSEWHERE if node.by_reference else invoked
            result = await self._step.invoke_workflow(node.id, workflow=target, data=data, timeout=timeout)
        except StepError as err:
            self.say(path, "failed", _text(err))
            raise
        self.say(path, result)
        if result != f"{path} has ended":
            self.say(path, "EXCHANGED", result)

    # --- statements ------------------------------------------------------------------------------------------------

    async def _Throw(self, node: programs.Throw, path: str, is_open: bool) -> Any:
        raise Oops(path)

    async def _Seq(self, node: programs.Seq, path: str, is_open: bool) -> Any:
        return [await self.run(item, f"{path}.{number}", is_open) for number, item in enumerate(node.items)]

    async def _Loop(self, node: programs.Loop, path: str, is_open: bool) -> Any:
        return [await self.run(node.body, f"{path}.{number}", is_open) for number in range(node.times)]

    async def _Try(self, node: programs.Try, path: str, is_open: bool) -> Any:
        try:
            return await self.run(node.body, f"{path}.t", is_open)
        except (StepError, Oops, TimeoutError) as err:
            self.say(path, "caught", _text(err))
            return await self.run(node.handler, f"{path}.h", is_open)

    async def _Finally(self, node: programs.Finally, path: str, is_open: bool) -> Any:
        try:
            result = await self.run(node.body, f"{path}.b", is_open)
        except (Fault, GeneratorExit):
            raise  # in a body attempt that was to end here, nothing is cleaned up that the next one still needs
        except BaseException:
            await self.run(node.cleanup, f"{path}.f", False)
            raise
        await self.run(node.cleanup, f"{path}.f", False)
        return result

    async def _Gather(self, node: programs.Gather, path: str, is_open: bool) -> Any:
        # Where a branch raises, the others call steps before the body's attempt is over: with the same ids, they would
        # have others' keys than in the next attempt.
        is_open = is_open and not (node.return_exceptions or programs.share_ids(node.branches))
        branches = [self.run(branch, f"{path}.{n}", is_open) for n, branch in enumerate(node.branches)]
        if not node.return_exceptions:
            return await asyncio.gather(*branches)
        results = await asyncio.gather(*branches, return_exceptions=True)
        for result in results:
            if isinstance(result, Fault):
                raise result
        results = [_text(result) if isinstance(result, BaseException) else result for result in results]
        self.say(path, "gathered", results)
        return results

    async def _Group(self, node: programs.Group, path: str, is_open: bool) -> Any:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.run(b, f"{path}.{n}", False)) for n, b in enumerate(node.branches)]
        except* (StepError, Oops, TimeoutError) as errors:
            self.say(path, "group", sorted(map(_text, errors.exceptions)))
        else:
            self.say(path, "group", [_result(task.result()) for task in tasks])

    async def _Race(self, node: programs.Race, path: str, is_open: bool) -> Any:
        tasks = self._tasks(node.branches, path)
        done, pending = await asyncio.wait(tasks, timeout=node.timeout, return_when=getattr(asyncio, node.return_when))
        self.say(path, "won", [_outcome(task) if task in done else "-" for task in tasks])
        if node.after is not None:
            await self._or_error(path, self.run(node.after, f"{path}.a", False))
        if node.then == "cancel":
            for task in tasks:
                if task in pending:
                    task.cancel()
        if node.then != "leave":
            self.say(path, "raced", [_result(each) for each in await asyncio.gather(*tasks, return_exceptions=True)])
        else:
            for task in tasks:
                task.add_done_callback(_looked_at)

    async def _AsCompleted(self, node: programs.AsCompleted, path: str, is_open: bool) -> Any:
        for number, next_done in enumerate(asyncio.as_completed(self._tasks(node.branches, path))):
            self.say(path, number, _result(await self._or_error(path, next_done)))
            if node.after is not None:
                await self._or_error(path, self.run(node.after, f"{path}.a.{number}", False))

    async def _Limit(self, node: programs.Limit, path: str, is_open: bool) -> Any:
        body = self.run(node.body, f"{path}.b", False)
        try:
            if node.how == "wait_for":
                return await asyncio.wait_for(body, node.seconds)
            async with asyncio.timeout(node.seconds):
                return await body
        except TimeoutError:
            self.say(path, "too late")
        if node.late is not None:
            return await self.run(node.late, f"{path}.l", is_open)
        return None

    async def _Shielded(self, node: programs.Shielded, path: str, is_open: bool) -> Any:
        task = asyncio.create_task(self.run(node.body, f"{path}.b", False))
        try:
            return await asyncio.wait_for(asyncio.shield(task), node.seconds)
        except TimeoutError:
            self.say(path, "too late")
        await self._or_error(path, self.run(node.late, f"{path}.l", False))
        return await task

    async def _Channel(self, node: programs.Channel, path: str, is_open: bool) -> Any:
        queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=1)

        async def produce(branch: Node, number: int) -> None:
            done = await self._or_error(path, self.run(branch, f"{path}.{number}", False))
            await queue.put([number, _result(done)])

        tasks = [asyncio.create_task(produce(branch, number)) for number, branch in enumerate(node.producers)]
        for number in range(len(tasks)):
            self.say(path, "taken", await queue.get())
            await self._or_error(path, self.run(node.each, f"{path}.e.{number}", False))
        await asyncio.gather(*tasks)

    async def _Locked(self, node: programs.Locked, path: str, is_open: bool) -> Any:
        lock: Any = asyncio.Lock() if node.slots == 1 else asyncio.Semaphore(node.slots)

        async def locked(branch: Node, number: int) -> Any:
            async with lock:
                self.say(f"{path}.{number}", "has it")
                return await self.run(branch, f"{path}.{number}", False)

        branches = [locked(branch, number) for number, branch in enumerate(node.branches)]
        return [_result(each) for each in await asyncio.gather(*branches, return_exceptions=True)]

    async def _Handoff(self, node: programs.Handoff, path: str, is_open: bool) -> Any:
        event = asyncio.Event()

        async def first() -> None:
            await self._or_error(path, self.run(node.first, f"{path}.f", False))
            event.set()

        async def second() -> None:
            await self._or_error(path, self.run(node.before, f"{path}.b", False))
            await event.wait()
            await self._or_error(path, self.run(node.second, f"{path}.s", False))

        await asyncio.gather(first(), second())

    async def _Poll(self, node: programs.Poll, path: str, is_open: bool) -> Any:
        task = asyncio.create_task(self.run(node.body, f"{path}.b", False))
        for number in range(_MOST_POLLS):
            try:
                await self._or_error(path, asyncio.wait_for(asyncio.shield(task), node.every))
            except asyncio.CancelledError:
                task.cancel()
                raise
            if task.done():
                break
            await self._or_error(path, self.run(node.between, f"{path}.{number}", False))
        self.say(path, "polled", _result((await asyncio.gather(task, return_exceptions=True))[0]))

    async def _Generate(self, node: programs.Generate, path: str, is_open: bool) -> Any:
        async def generate() -> AsyncGenerator[Any, None]:
            try:
                for number in range(node.times):
                    yield await self._or_error(path, self.run(node.each, f"{path}.{number}", False))
            finally:
                await self._or_error(path, self.run(node.cleanup, f"{path}.f", False))

        async with aclosing(generate()) as generated:
            async for each in generated:
                self.say(path, "generated", _result(each))
                if len(self.seen) % 2:
                    break

    async def _Barred(self, node: programs.Barred, path: str, is_open: bool) -> Any:
        condition, arrived = asyncio.Condition(), 0

        async def branch(first: Node, number: int) -> None:
            nonlocal arrived
            await self._or_error(path, self.run(first, f"{path}.{number}", False))
            async with condition:
                arrived += 1
                condition.notify_all()
                await condition.wait_for(lambda: arrived == len(node.firsts))
            await self._or_error(path, self.run(node.second, f"{path}.s.{number}", False))

        await asyncio.gather(*(branch(first, number) for number, first in enumerate(node.firsts)))

    async def _Ears(self, node: programs.Ears, path: str, is_open: bool) -> Any:
        timeout = timedelta(seconds=node.timeout)

        async def hear(listener: Any, branch: Node, number: int) -> None:
            own = timedelta(seconds=node.own * (1 + 0.37 * number))
            for time in range(node.times):
                event = await listener.next(f"{node.id} {number}", timeout=own)
                self.say(f"{path}.{number}.{time}", "heard", None if event is None else event.id)
                await self._or_error(path, self.run(branch, f"{path}.{number}.{time}", False))

        async with await self._step.ext.listen(node.id, event=node.name, timeout=timeout) as listener:
            await asyncio.gather(*(hear(listener, branch, number) for number, branch in enumerate(node.branches)))

    async def _Barrier(self, node: programs.Barrier, path: str, is_open: bool) -> Any:
        barrier = asyncio.Barrier(len(node.firsts))

        async def branch(first: Node, number: int) -> None:
            await self._or_error(path, self.run(first, f"{path}.{number}", False))
            self.say(f"{path}.{number}", "place", await barrier.wait())
            await self._or_error(path, self.run(node.second, f"{path}.s.{number}", False))

        await asyncio.gather(*(branch(first, number) for number, first in enumerate(node.firsts)))

    async def _Reschedule(self, node: programs.Reschedule, path: str, is_open: bool) -> Any:
        try:
            async with asyncio.timeout(node.seconds) as limit:
                await self.run(node.first, f"{path}.1", False)
                when = None if node.again is None else asyncio.get_running_loop().time() + node.again
                limit.reschedule(when)
                return await self.run(node.second, f"{path}.2", False)
        except TimeoutError:
            self.say(path, "too late", limit.expired())
        if node.late is not None:
            return await self.run(node.late, f"{path}.l", is_open)
        return None

    async def _Pool(self, node: programs.Pool, path: str, is_open: bool) -> Any:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        for number, job in enumerate(node.jobs):
            queue.put_nowait((number, job))

        async def work(worker: int) -> None:
            try:
                while True:
                    number, job = await queue.get()
                    self.say(path, "takes", worker, number)
                    try:
                        await self._or_error(path, self.run(job, f"{path}.{number}", False))
                    finally:
                        queue.task_done()
            except asyncio.CancelledError:
                self.say(path, "fired", worker)
                raise

        workers = [asyncio.create_task(work(worker)) for worker in range(node.workers)]
        try:
            await queue.join()
        finally:
            for worker in workers:
                worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    async def _Pending(self, node: programs.Pending, path: str, is_open: bool) -> Any:
        pending = set(self._tasks(node.branches, path))
        more, number = node.more, 0
        try:
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED, timeout=node.timeout)
                self.say(path, "done", [_outcome(task) for task in done])
                number += 1
                if number > _MOST_POLLS:
                    break
                if more is not None:
                    pending.add(asyncio.create_task(self.run(more, f"{path}.m", False)))
                    more = None
                await self._or_error(path, self.run(node.after, f"{path}.a.{number}", False))
        finally:
            for task in pending:
                task.cancel()
        self.say(path, "all", [_result(each) for each in await asyncio.gather(*pending, return_exceptions=True)])

    async def _FirstOf(self, node: programs.FirstOf, path: str, is_open: bool) -> Any:
        tasks = self._tasks(node.branches, path)
        for task in tasks:
            task.add_done_callback(_looked_at)
        for next_done in asyncio.as_completed(tasks, timeout=node.timeout):
            self.say(path, "first", _result(await self._or_error(path, next_done)))
            break
        for task in tasks:
            task.cancel()
        if node.is_awaited:
            self.say(path, "others", [_result(each) for each in await asyncio.gather(*tasks, return_exceptions=True)])
        if node.after is not None:
            await self._or_error(path, self.run(node.after, f"{path}.a", False))

    async def _Held(self, node: programs.Held, path: str, is_open: bool) -> Any:
        @asynccontextmanager
        async def held() -> AsyncGenerator[Any, None]:
            entered = await self._or_error(path, self.run(node.enter, f"{path}.e", is_open))
            try:
                yield _result(entered)
            except (Fault, GeneratorExit):
                raise
            except BaseException as err:
                self.say(path, "left by", _text(err))
                await self.run(node.leave, f"{path}.l", False)
                raise
            else:
                await self.run(node.leave, f"{path}.l", False)

        async with held() as entered:
            self.say(path, "entered", entered)
            return await self.run(node.body, f"{path}.b", is_open)

    async def _Vars(self, node: programs.Vars, path: str, is_open: bool) -> Any:
        async def branch(each: Node, number: int) -> None:
            token = VAR.set(f"{path}.{number}")
            await self._or_error(path, self.run(each, f"{path}.{number}", False))
            self.say(f"{path}.{number}", "var", VAR.get())
            VAR.reset(token)
            self.say(f"{path}.{number}", "var", VAR.get())

        self.say(path, "var", VAR.get())
        VAR.set(path)
        await asyncio.gather(*(branch(each, number) for number, each in enumerate(node.branches)))
        self.say(path, "var", VAR.get())

    async def _Stubborn(self, node: programs.Stubborn, path: str, is_open: bool) -> Any:
        async def stubborn() -> Any:
            try:
                return await self.run(node.body, f"{path}.b", False)
            except asyncio.CancelledError as err:
                if self.is_over or self.has_failed:
                    raise
                self.say(path, "goes on", str(err))
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()
                return await self.run(node.then, f"{path}.t", False)

        task = asyncio.create_task(stubborn())
        try:
            await self._or_error(path, self.run(node.meanwhile, f"{path}.m", is_open))
        except asyncio.CancelledError:
            task.cancel()
            raise
        task.cancel("by the body")
        self.say(path, "joined", _result((await asyncio.gather(task, return_exceptions=True))[0]))

    async def _Growing(self, node: programs.Growing, path: str, is_open: bool) -> Any:
        try:
            async with asyncio.TaskGroup() as group:

                async def first() -> None:
                    await self._or_error(path, self.run(node.first, f"{path}.f", False))
                    for number, branch in enumerate(node.branches):
                        group.create_task(self.run(branch, f"{path}.{number}", False), name=f"grown {number}")

                group.create_task(first())
        except* (StepError, Oops, TimeoutError) as errors:
            self.say(path, "grown", sorted(map(_text, errors.exceptions)))

    async def _Ahead(self, node: programs.Ahead, path: str, is_open: bool) -> Any:
        calls = [
            self._step.run(each.id, written_as_function, f"{path}.{number}", each.seconds, each.fails)
            for number, each in enumerate(node.steps)
            if isinstance(each, programs.Step)
        ]
        if node.order == "gathered":
            results = await asyncio.gather(*reversed(calls), return_exceptions=True)
            self.say(path, "ahead", [_result(each) for each in results])
            return
        for task in reversed([asyncio.create_task(call) for call in calls]):
            self.say(path, "ahead", _result(await self._or_error(path, task)))

    async def _Shared(self, node: programs.Shared, path: str, is_open: bool) -> Any:
        task = asyncio.create_task(self.run(node.body, f"{path}.b", False))
        task.add_done_callback(_looked_at)

        async def branch(seconds: float, number: int) -> None:
            try:
                if node.how == "wait":
                    done, _ = await asyncio.wait([task], timeout=seconds)
                    self.say(f"{path}.{number}", "done", len(done))
                    return
                async with asyncio.timeout(seconds):
                    await (task if node.how == "plain" else asyncio.shield(task))
                self.say(f"{path}.{number}", "in time")
            except (StepError, Oops, TimeoutError) as err:
                self.say(f"{path}.{number}", _text(err))
            except asyncio.CancelledError:
                self.say(f"{path}.{number}", "with it")
                raise

        results = await asyncio.gather(
            *(branch(seconds, number) for number, seconds in enumerate(node.seconds)), return_exceptions=True
        )
        self.say(path, "shared", [_result(each) for each in results])
        if not task.done():
            self.say(path, "later", _result((await asyncio.gather(task, return_exceptions=True))[0]))

    async def _CallLater(self, node: programs.CallLater, path: str, is_open: bool) -> Any:
        tasks: list[asyncio.Task[Any]] = []

        def call() -> None:
            self.say(path, "called")
            tasks.append(asyncio.create_task(self.run(node.body, f"{path}.b", False)))

        handle = asyncio.get_running_loop().call_later(node.seconds, call)
        try:
            await self._or_error(path, self.run(node.meanwhile, f"{path}.m", is_open))
        finally:
            if node.is_cancelled:
                handle.cancel()
        if tasks:
            self.say(path, "late", _result((await asyncio.gather(*tasks, return_exceptions=True))[0]))

    async def _Spawn(self, node: programs.Spawn, path: str, is_open: bool) -> Any:
        task = asyncio.create_task(self.run(node.body, f"{path}.b", False))
        try:
            await self._or_error(path, self.run(node.meanwhile, f"{path}.m", is_open))
        except asyncio.CancelledError:
            task.cancel()
            raise
        if node.then == "cancel":
            task.cancel()
        self.say(path, "joined", _result((await asyncio.gather(task, return_exceptions=True))[0]))


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _result(value: Any) -> Any:
    return _text(value) if isinstance(value, BaseException) else value


def _outcome(task: asyncio.Task[Any]) -> Any:
    if task.cancelled():
        return "cancelled"
    return _result(task.exception() or task.result())


def _looked_at(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


def _fault(faults: list[list[int]]) -> int | None:
    """Where the attempt of the body that begins now is to end: that many have begun in this execution."""
    instance: Any = workflow.instance()
    instance.begun = begun = getattr(instance, "begun", 0) + 1
    number = int(workflow.info().run_id.rpartition("-")[2])
    return next((point for execution, attempt, point in faults if (execution, attempt) == (number, begun)), None)


async def execute(ctx: Context[Any], step: Step) -> Any:
    """Execute the program that is the run's input; returns what its branches have seen."""
    data = ctx.input.data
    body = Body(ctx, step, _fault(data["faults"]))
    try:
        result = _result(await body.run(from_data(data["program"]), "p", True))
    except (StepError, Oops, TimeoutError) as err:
        result = _text(err)
    body.check_failed()
    body.is_over = True
    return {"seen": list(body.seen), "result": result}


@client.workflow(id="stays", ext=WorkflowExt(park_after="never"))
async def stays(ctx: Context[Any], step: Step) -> Any:
    """A run that is never parked."""
    return await execute(ctx, step)


@client.workflow(id="parks", ext=WorkflowExt(park_after="1s"))
async def parks(ctx: Context[Any], step: Step) -> Any:
    """A run that is parked whenever it waits."""
    return await execute(ctx, step)


@client.workflow(id="invoked")
async def invoked(ctx: Context[Any], step: Step) -> Any:
    """Invoked by programs; the world answers for it."""
    raise AssertionError("nobody executes it")
