"""`steporal setup` registers search attributes."""

from __future__ import annotations

import pytest
import temporalio.client
from commands import Steporal
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.service import RPCError, RPCStatusCode

from steporal.operations import setup
from steporal.operations.errors import OperationError
from steporal_workers.devserver import DevServer, dev_server


async def test_what_is_missing_is_registered(run: Steporal) -> None:
    async with dev_server() as server:
        run.environment["TEMPORAL_ADDRESS"] = server.address
        names = [f"Steporal{name}" for name in ("App", "Workflow", "EventId", "EventName", "WaitingFor")]
        ended = await run("setup", "--json")
        assert (ended.status, ended.data) == (0, {"namespace": "default", "added": names, "there": []})
        ended = await run("setup")
        assert (ended.status, "nothing to do" in ended.err) == (0, True)
        assert "SteporalWaitingFor (KeywordList) was registered already" in ended.err


async def test_an_attribute_of_another_type_is_told() -> None:
    async with dev_server() as server:
        types = {"SteporalApp": IndexedValueType.INDEXED_VALUE_TYPE_TEXT}
        request = AddSearchAttributesRequest(namespace="default", search_attributes=types)
        await server.client.operator_service.add_search_attributes(request)
        with pytest.raises(OperationError, match="'SteporalApp' of type Text, but Steporal needs Keyword"):
            await setup.register_search_attributes(server.client)


async def test_where_it_is_refused_it_says_what_to_do(server: DevServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(temporal: temporalio.client.Client) -> None:
        raise RPCError("not here", RPCStatusCode.PERMISSION_DENIED, b"")

    monkeypatch.setattr(setup, "registered", refused)
    with pytest.raises(OperationError) as failure:
        await setup.register_search_attributes(server.client)
    said = str(failure.value)
    assert "tcld namespace search-attributes add --namespace default " in said
    assert '--sa "SteporalApp=Keyword"' in said
    assert '--sa "SteporalWaitingFor=KeywordList"' in said
