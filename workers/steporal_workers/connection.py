"""Connection to Temporal from flags, Temporal's environment variables and its profiles."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from .problems import Failure, Mistake
from .telemetry import set_up_runtime

if TYPE_CHECKING:
    import temporalio.client
    import temporalio.converter
    from temporalio.envconfig import ClientConfigProfile

DEFAULT_ADDRESS = "localhost:7233"
CONNECT_SECONDS = 10.0

MASK = "********"
"""Text shown in place of a secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Flags of the connection; values that are None come from the environment, or else from the profile in the file."""

    address: str | None = None
    namespace: str | None = None
    api_key: str | None = None
    profile: str | None = None
    tls: bool | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None
    tls_server_name: str | None = None
    encryption_keys: Sequence[str] | None = field(default=None, repr=False)
    decryption_keys: Sequence[str] | None = field(default=None, repr=False)

    def _profile(self) -> ClientConfigProfile:
        from temporalio.envconfig import ClientConfigProfile, ClientConfigTLS

        try:
            profile = ClientConfigProfile.load(self.profile, override_env_vars=_variables())
        except (RuntimeError, OSError, ValueError) as err:
            raise Mistake(f"Temporal's client configuration cannot be read: {err}") from None
        tls = profile.tls
        tls_options = {
            "server_name": self.tls_server_name,
            "server_root_ca_cert": self.tls_ca,
            "client_cert": self.tls_cert,
            "client_private_key": self.tls_key,
        }
        if self.tls is not None or any(tls_options.values()):
            tls = dataclasses.replace(
                tls or ClientConfigTLS(),
                disabled=self.tls is False,
                **{name: value for name, value in tls_options.items() if value is not None},  # type: ignore[arg-type]
            )
        return dataclasses.replace(
            profile,
            address=self.address or profile.address or DEFAULT_ADDRESS,
            namespace=self.namespace or profile.namespace or "default",
            api_key=self.api_key or profile.api_key,
            tls=tls,
        )

    def described(self) -> list[tuple[str, str, str]]:
        """Return each setting's name, its value (secrets are masked), and its source.

        Raises:
            Mistake: The configuration is not valid.
        """
        profile = self._profile()
        name = self.profile or os.environ.get("TEMPORAL_PROFILE") or "default"
        tls = profile.to_client_connect_config().get("tls")
        in_file = _profile_of_file(self.profile)
        shown = {
            "profile": name,
            "address": profile.address,
            "namespace": profile.namespace,
            "api_key": MASK if profile.api_key else "none",
            "tls": "on" if tls else "off",
        }

        def source(setting: str) -> str:
            if getattr(self, setting) is not None or (setting == "tls" and self._has_tls_flags()):
                return f"--{setting.replace('_', '-')}"
            variables = sorted(v for v in os.environ if v.startswith(f"TEMPORAL_{setting.upper()}") and os.environ[v])
            if variables:
                return ", ".join(variables)
            return f"profile {name}" if getattr(in_file, setting, None) else "default"

        return [(setting, str(value), source(setting)) for setting, value in shown.items()]

    def _has_tls_flags(self) -> bool:
        return any((self.tls_cert, self.tls_key, self.tls_ca, self.tls_server_name))

    def converter(self, base: temporalio.converter.DataConverter | None = None) -> temporalio.converter.DataConverter:
        """Return a data converter that also encrypts if keys are set.

        Raises:
            DefinitionError: The base converter already encrypts, with other keys.
        """
        from temporalio.converter import DataConverter

        base = base or DataConverter.default
        if not (self.encryption_keys or self.decryption_keys):
            return base
        from steporal.encryption import Keys, data_converter  # imports `cryptography`, so only if keys are set

        return data_converter(Keys.of(self.encryption_keys or (), self.decryption_keys or ()), base)

    async def connect(
        self,
        data_converter: temporalio.converter.DataConverter | None = None,
        plugins: Sequence[temporalio.client.Plugin] = (),
    ) -> temporalio.client.Client:
        """Return a client that is connected to an existing namespace.

        Raises:
            Mistake: The configuration is not valid, or the namespace does not exist.
            Failure: No Temporal server answers.
        """
        client = await self.reach(data_converter, plugins)
        await _check_namespace(client, client.service_client.config.target_host)
        return client

    async def reach(
        self,
        data_converter: temporalio.converter.DataConverter | None = None,
        plugins: Sequence[temporalio.client.Plugin] = (),
    ) -> temporalio.client.Client:
        """Return a client that is connected to a server, whether or not the namespace exists.

        Raises:
            Mistake: The configuration is not valid.
            Failure: No Temporal server answers.
        """
        from temporalio.client import Client

        profile, converter = self._profile(), self.converter(data_converter)
        set_up_runtime()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await Client.connect(
                    **profile.to_client_connect_config(),
                    data_converter=converter,
                    plugins=plugins,
                )
        except (RuntimeError, ValueError, TimeoutError) as err:
            raise Failure(
                f"no Temporal server answers at {profile.address!r} ({_reason(err)}); start one with `steporal dev`, "
                "or set its address: --address HOST:PORT, TEMPORAL_ADDRESS, or --profile"
            ) from None
        except OSError as err:
            raise Mistake(f"a TLS file cannot be read: {err}") from None


def _variables() -> dict[str, str]:
    """Return Temporal's variables. Without this, the SDK ends the process if any variable is not valid UTF-8."""
    return {name: value for name, value in os.environ.items() if name.startswith("TEMPORAL_")}


def _profile_of_file(name: str | None) -> ClientConfigProfile:
    """Return the profile in the file, without the variables that override it."""
    from temporalio.envconfig import ClientConfigProfile

    places = {name: value for name, value in _variables().items() if name in _PLACES_OF_PROFILES}
    return ClientConfigProfile.load(name, override_env_vars=places)


_PLACES_OF_PROFILES = ("TEMPORAL_CONFIG_FILE", "TEMPORAL_PROFILE")


async def _check_namespace(client: temporalio.client.Client, address: str) -> None:
    from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
    from temporalio.service import RPCError, RPCStatusCode

    try:
        await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=client.namespace), timeout=timedelta(seconds=CONNECT_SECONDS)
        )
    except RPCError as err:
        if err.status == RPCStatusCode.NOT_FOUND:
            raise Mistake(
                f"there is no namespace {client.namespace!r} at {address!r}; "
                "choose one: --namespace NAME or TEMPORAL_NAMESPACE"
            ) from None
        if err.status == RPCStatusCode.UNAUTHENTICATED:
            raise Mistake(f"{address!r} does not accept the credentials: {err.message}") from None
        if err.status != RPCStatusCode.PERMISSION_DENIED:  # an API key may be allowed to work, but not to describe
            raise Failure(f"{address!r} answers with an error: {err.message}") from None


def _reason(error: Exception) -> str:
    """Return the cause from an error message of the SDK's transport."""
    if isinstance(error, TimeoutError):
        return f"no answer in {CONNECT_SECONDS:g} seconds"
    text = str(error)
    quoted = re.search(r'(?:message|error): "([^"]+)"', text)
    if quoted:
        return quoted[1].lower()
    return text.removeprefix("Failed client connect: ").splitlines()[0]
