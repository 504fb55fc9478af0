"""Check of the gateway's keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from steporal.operations.doctor.verdicts import Verdict, bad, good, warning

from ..gateway.keys import MIN_KEY_LENGTH


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """Settings of a gateway that are checked.

    Attributes:
        event_keys: The event keys.
        api_keys: The API keys.
        insecure_any_key: Whether the gateway is open where it has no keys.
    """

    event_keys: Sequence[str]
    api_keys: Sequence[str]
    insecure_any_key: bool


async def gateway_keys(gateway: GatewaySettings) -> Verdict:
    """Check that the keys that a gateway with these settings needs are set, and hard to guess."""
    keys: Mapping[str, Iterable[str]] = {"event_keys": gateway.event_keys, "api_keys": gateway.api_keys}
    count = f"{len(gateway.event_keys)} event keys, {len(gateway.api_keys)} API keys"
    if gateway.insecure_any_key and not (gateway.event_keys and gateway.api_keys):
        return warning(
            f"{count}; an API without keys is open to everybody", "set STEPORAL_EVENT_KEYS and STEPORAL_API_KEYS"
        )
    if not gateway.event_keys and not gateway.api_keys:
        return warning(
            "no keys are set here: a gateway does not start with these settings",
            "if you run a gateway, set STEPORAL_EVENT_KEYS and STEPORAL_API_KEYS",
        )
    if short := [name for name, values in keys.items() if any(len(key) < MIN_KEY_LENGTH for key in values)]:
        return bad(
            f"{' and '.join(short)} have a key of fewer than {MIN_KEY_LENGTH} characters: no gateway starts with it",
            "generate keys that cannot be guessed: openssl rand -hex 32",
        )
    if set(gateway.event_keys) & set(gateway.api_keys):
        return warning(
            "an event key is also an API key", "event keys appear in paths and browsers: use different keys for the two"
        )
    return good(count)
