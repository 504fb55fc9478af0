"""From flags, and from Temporal's own environment variables and profiles, to a connected Temporal client."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .problems import Failure, Mistake

if TYPE_CHECKING:
    import temporalio.client
    import temporalio.converter
    from temporalio.envconfig import ClientConfigProfile

DEFAULT_ADDRESS = "localhost:7233"
CONNECT_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """The connection flags; what is not given comes from the environment, else from the profile's file."""

    address: str | None = None
    namespace: str | None = None
    api_key: str | None = None
    profile: str | None = None
    tls: bool | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None
    tls_server_name: str | None = None

    def _profile(self) -> ClientConfigProfile:
        from temporalio.envconfig import ClientConfigProfile, ClientConfigTLS

        try:
            profile = ClientConfigProfile.load(self.profile)
        except (RuntimeError, OSError, ValueError) as err:
            raise Mistake(f"Temporal's client configuration cannot be read: {err}") from None
        tls = profile.tls
        given = {
            "server_name": self.tls_server_name,
            "server_root_ca_cert": self.tls_ca,
            "client_cert": self.tls_cert,
            "client_private_key": self.tls_key,
        }
        if self.tls is not None or any(given.values()):
            tls = dataclasses.replace(
                tls or ClientConfigTLS(),
                disabled=self.tls is False,
                **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
            )
        return dataclasses.replace(
            profile,
            address=self.address or profile.address or DEFAULT_ADDRESS,
            namespace=self.namespace or profile.namespace or "default",
            api_key=self.api_key or profile.api_key,
            tls=tls,
        )

    async def connect(
        self, data_converter: temporalio.converter.DataConverter | None = None
    ) -> temporalio.client.Client:
        """A client that is connected to an existing namespace.

        Raises:
            Mistake: The configuration cannot be right, or there is no such namespace.
            Failure: No Temporal server answers.
        """
        import temporalio.converter
        from temporalio.client import Client

        profile = self._profile()
        address = profile.address or DEFAULT_ADDRESS
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                client = await Client.connect(
                    **profile.to_client_connect_config(),
                    data_converter=data_converter or temporalio.converter.default(),
                )
                await _check_namespace(client, address)
        except (RuntimeError, ValueError, TimeoutError) as err:
            raise Failure(
                f"no Temporal server answers at {address!r} ({_reason(err)}); start one with `steporal dev`, "
                "or say where it is: --address HOST:PORT, TEMPORAL_ADDRESS, or --profile"
            ) from None
        except OSError as err:
            raise Mistake(f"a TLS file cannot be read: {err}") from None
        return client


async def _check_namespace(client: temporalio.client.Client, address: str) -> None:
    from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
    from temporalio.service import RPCError, RPCStatusCode

    try:
        await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=client.namespace))
    except RPCError as err:
        if err.status == RPCStatusCode.NOT_FOUND:
            raise Mistake(
                f"there is no namespace {client.namespace!r} at {address!r}; "
                "say which: --namespace NAME or TEMPORAL_NAMESPACE"
            ) from None
        if err.status == RPCStatusCode.UNAUTHENTICATED:
            raise Mistake(f"{address!r} does not accept the credentials: {err.message}") from None
        if err.status != RPCStatusCode.PERMISSION_DENIED:  # an API key may do less than describe
            raise Failure(f"{address!r} answers with an error: {err.message}") from None


def _reason(error: Exception) -> str:
    """What went wrong, of the many words that the SDK's transport says."""
    if isinstance(error, TimeoutError):
        return f"no answer in {CONNECT_SECONDS:g} seconds"
    text = str(error)
    quoted = re.search(r'(?:message|error): "([^"]+)"', text)
    if quoted:
        return quoted[1].lower()
    return text.removeprefix("Failed client connect: ").splitlines()[0]
