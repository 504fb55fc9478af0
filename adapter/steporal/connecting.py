"""Connection of a client to Temporal, shared by the threads and event loops of one process."""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import temporalio.client
import temporalio.exceptions
from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
from temporalio.client import RPCTimeoutOrCancelledError
from temporalio.converter import DataConverter
from temporalio.runtime import Runtime
from temporalio.service import RPCError

from .errors import ConnectError, ForkError, SteporalError, TemporalCallError
from .loops import start_in_background

Connect = Callable[[], Awaitable[temporalio.client.Client]]


class Connection:
    """Connection of one client.

    Args:
        client_id: The client's id, for messages.
        connect: Makes the connection, unless one is set.
        data_converter: The data converter for a connection that the client makes.

    Attributes:
        own_converter: That data converter.
    """

    def __init__(self, client_id: str, connect: Connect, data_converter: DataConverter | None) -> None:
        self._client_id = client_id
        self.own_converter = data_converter
        self._connect = connect
        self._temporal: temporalio.client.Client | None = None
        self._is_ready = False
        self._process = os.getpid()
        self._starting = threading.Lock()
        self._connecting: Future[temporalio.client.Client] | None = None

    @property
    def temporal(self) -> temporalio.client.Client | None:
        """Temporal client, or None before it is set or made.

        Raises:
            ForkError: The connection was made before this process was forked.
        """
        if self._temporal is not None and self._process != os.getpid():
            raise ForkError(
                f"client {self._client_id!r} was connected in process {self._process}, and this process "
                f"({os.getpid()}) was forked from it; connections to Temporal do not survive a fork. Connect after the "
                "fork: in a hook such as gunicorn's post_fork, or by starting processes with 'spawn'"
            )
        return self._temporal

    @temporal.setter
    def temporal(self, temporal: temporalio.client.Client) -> None:
        # The SDK connects a lazy client on its first call, under a lock that belongs to one event loop.
        self._temporal, self._is_ready = temporal, not temporal.service_client.config.lazy
        self._process = os.getpid()
        if self._is_ready:
            _keep_runtime(temporal.service_client.config.runtime)

    @property
    def data_converter(self) -> DataConverter | None:
        """Data converter of the connection, or, before a connection exists, the one that was passed to the client."""
        temporal = self.temporal
        return self.own_converter if temporal is None else temporal.data_converter

    async def get(self) -> temporalio.client.Client:
        """Return the Temporal client, connected.

        Raises:
            ConnectError: The connection could not be made.
        """
        temporal = self.temporal
        if temporal is not None and self._is_ready:
            return temporal
        self._notice_fork()
        # The background loop connects. Another caller's loop might close, and leave the other callers waiting.
        return await asyncio.shield(asyncio.wrap_future(self._once()))

    def _once(self) -> Future[temporalio.client.Client]:
        with self._starting:
            if self._connecting is None:
                connecting: Future[temporalio.client.Client] = start_in_background(self._make())
                self._connecting = connecting
                connecting.add_done_callback(lambda done: self._forget())
            else:
                connecting = self._connecting
            return connecting

    def _forget(self) -> None:
        self._connecting = None

    def _notice_fork(self) -> None:
        """In a forked child, drop a lock and a connection attempt that no thread of this process will finish."""
        if self._process != os.getpid():
            self._starting, self._connecting, self._process = threading.Lock(), None, os.getpid()

    async def _make(self) -> temporalio.client.Client:
        what = f"client {self._client_id!r} could not connect to Temporal"
        temporal = self._temporal
        _keep_runtime(None if temporal is None else temporal.service_client.config.runtime)
        with sdk_errors(what, ConnectError):
            try:
                if temporal is None:
                    temporal = await self._connect()
                else:
                    await temporal.workflow_service.get_system_info(GetSystemInfoRequest())  # connects a lazy client
            except SteporalError:  # such as an invalid key, which is also a ValueError
                raise
            except (RuntimeError, ValueError, OSError) as err:
                raise ConnectError(f"{what}: {err}") from err
        if self._temporal is None:
            self._temporal = temporal
        self._is_ready = True
        return self._temporal


def _keep_runtime(chosen: Runtime | None) -> None:
    """Keep the SDK's default runtime until the process ends, unless the connection has a runtime chosen by the user.

    A call that is still in flight when the program ends, such as an abandoned ``run.result()``, holds a thread of the
    SDK. Once Python finalizes, that thread blocks when it requests the interpreter. Python then frees the runtime,
    which waits for its threads, so the process would never exit. The extra reference keeps the runtime from being
    freed. A runtime that the user has chosen is not kept, because freeing it may flush its metrics.
    """
    if chosen is None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(Runtime.default()))


@contextmanager
def sdk_errors(what: str, kind: Callable[[str], TemporalCallError] = TemporalCallError) -> Iterator[None]:
    """Raise errors of Temporal's SDK as Steporal's errors, with the SDK's error as ``__cause__``.

    A ``RuntimeError``, which drivers of external storages raise, is only converted if ``kind`` is more specific than a
    failed call.

    Args:
        what: The start of the message: the operation that failed.
        kind: The class of the error to raise; it also replaces a :class:`ConnectError`, unless that is a subclass of
            it.
    """
    try:
        yield
    except ForkError:
        raise
    except ConnectError as err:
        if kind in (TemporalCallError, ConnectError):
            raise
        raise kind(f"{what}: {err}") from err
    except RPCTimeoutOrCancelledError as err:
        if isinstance(err.__cause__, asyncio.CancelledError):
            raise asyncio.CancelledError from None
        raise kind(f"{what}: Temporal did not answer in time") from err
    except RPCError as err:
        raise kind(f"{what}: {err.message} ({err.status.name})") from err
    except temporalio.exceptions.TemporalError as err:
        raise kind(f"{what}: {err}") from err
    except RuntimeError as err:  # from the driver of an external storage
        if kind in (TemporalCallError, ConnectError) or isinstance(err, SteporalError):
            raise
        raise kind(f"{what}: {err}") from err
    except AssertionError as err:
        if "across forks" not in str(err):
            raise
        raise ForkError(
            f"{what}: Temporal's SDK was used before this process was forked, and does not survive a "
            "fork; connect only after the fork, or start processes with 'spawn'"
        ) from err
