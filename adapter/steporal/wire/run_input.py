"""Input of a run: JSON that any program can write, and the exact value beside it where JSON cannot express it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import pydantic

from ..errors import InvalidInputError, UnencryptedSecretError, UnserializableError
from ..types import JSON
from ..values.annotated import same
from ..values.converter import copied, issues, to_json, validate
from ..values.decoding import decode, validated
from ..values.encoding import always, encode, is_unchanged, never
from ..values.fitting import fits
from ..values.readable import is_plain, outward, plain, readable
from ..values.type_names import TypeNotFoundError


@dataclass(frozen=True, slots=True)
class InputPayload:
    """An input to send.

    Attributes:
        data: The input as plain JSON, as pydantic writes it for other programs.
        exact: The input as :func:`~steporal.values.encoding.encode` writes it; None if ``data`` is sufficient.
    """

    data: JSON
    exact: JSON = None

    def both(self) -> JSON:
        """Return all parts that are sent; together they must fit Temporal's size limit."""
        return self.data if self.exact is None else [self.data, self.exact]


def encode_input(
    workflow_id: str,
    schema: Any,
    value: Any,
    *,
    secrets: Callable[[], bool] = never,
    packages: Collection[str] | None = None,
) -> InputPayload:
    """Return the input of a workflow of this app: an instance of its schema, or a value that the schema converts.

    Args:
        workflow_id: The workflow, for messages.
        schema: The workflow's ``input_schema``.
        value: The input.
        secrets: Returns whether payloads are encrypted.
        packages: The app's packages, which may define the classes in the input.

    Raises:
        InvalidInputError: The input does not fit the schema, or cannot be sent.
    """
    try:
        encoded = encode(value, secrets=secrets, packages=packages)
    except UnencryptedSecretError as err:
        raise _refused(workflow_id, err) from None
    except UnserializableError as err:
        return _faithful(workflow_id, schema, value, err)
    if is_unchanged(encoded, value):
        return _plain_input(workflow_id, schema, encoded, secrets, packages)
    if schema is None or fits(value, schema, trusts_metadata=False):
        return InputPayload(readable(value, encoded), encoded)
    return _converted_input(workflow_id, schema, value, encoded, secrets, packages)


def encode_foreign_input(workflow_id: str, value: Any) -> InputPayload:
    """Return the input of a workflow of another app, whose classes this app does not have: plain JSON.

    Raises:
        InvalidInputError: The input cannot be sent as plain JSON.
    """
    try:
        return InputPayload(outward(value))
    except UnserializableError as err:
        raise _refused(workflow_id, err) from None


def decode_input(workflow_id: str, schema: Any, data: JSON, exact: JSON = None, packages: Collection[str] = ()) -> Any:
    """Return the input of a run as its handler receives it.

    Args:
        workflow_id: The workflow, for messages.
        schema: The workflow's ``input_schema``.
        data: Plain JSON.
        exact: The exact value, encoded, if the sender sent it.
        packages: The app's packages, which may define the classes in the input.

    Raises:
        InvalidInputError: The input does not fit the schema.
    """
    if exact is None:
        return validated_input(workflow_id, schema, data)
    try:
        try:
            value = decode(exact, packages=packages)
        except TypeNotFoundError:
            if schema is None:
                raise
            value = _plain(exact)  # the class was moved or renamed
        return value if schema is None or fits(value, schema) else validated(value, exact, schema)
    except TypeNotFoundError as err:
        raise InvalidInputError(f"the input of workflow {workflow_id!r} cannot be read: {err}") from None
    except pydantic.ValidationError as err:
        raise _unfit(workflow_id, err) from None


def _plain(exact: JSON) -> JSON:
    try:
        return plain(exact, reveal=True)
    except Exception as err:
        raise TypeNotFoundError(f"it is not in Steporal's format: {type(err).__name__}") from None


def check_received(
    workflow_id: str, schema: Any, data: JSON, exact: JSON = None, packages: Collection[str] = ()
) -> None:
    """Check the input of a run: the input fits the schema, and the schema makes the same value of it each time.

    A run reads its input again in each replay, and in each attempt of its body. A field whose default factory is
    ``uuid4`` or ``datetime.now`` would have another value each time.

    Raises:
        InvalidInputError: The input does not fit, or becomes another value each time.
    """
    value = decode_input(workflow_id, schema, data, exact, packages)
    if schema is None or exact is not None:
        return
    fields = fields_made_anew(value, validated_input(workflow_id, schema, data))
    if fields:
        names = ", ".join(fields)
        raise InvalidInputError(
            f"the input_schema of workflow {workflow_id!r} fills in {names} with a new value each time it reads the "
            f"input, and a run reads its input again whenever it is replayed; send {names} with the input, or make it "
            "in the handler with ctx.uuid4(), ctx.now() or ctx.random"
        )


def validated_input(workflow_id: str, schema: Any, data: JSON) -> Any:
    """Return plain JSON as ``schema`` converts it; without a schema, a copy of it.

    Raises:
        InvalidInputError: The data does not fit.
    """
    if schema is None:
        return copied(data)
    try:
        return validate(data, schema)
    except pydantic.ValidationError as err:
        raise _unfit(workflow_id, err) from None


def fields_made_anew(value: Any, other: Any) -> list[str]:
    """Return the fields in which two values that a type made from the same data differ, quoted for a message.

    The list is empty if the values are equal or cannot be compared.
    """
    try:
        if _shown(value) == _shown(other):
            return []
        fields, others = getattr(value, "__dict__", {}), getattr(other, "__dict__", {})
        names = [repr(name) for name in fields if _shown(fields[name]) != _shown(others.get(name))]
        return names or ["a default"]
    except UnserializableError:
        return []


def _shown(value: Any) -> JSON:
    return encode(value, secrets=always)


def _unfit(workflow_id: str, error: pydantic.ValidationError) -> InvalidInputError:
    return InvalidInputError(f"the input of workflow {workflow_id!r} does not fit its input_schema: {issues(error)}")


def _refused(workflow_id: str, why: object) -> InvalidInputError:
    return InvalidInputError(f"the input of workflow {workflow_id!r} cannot be sent: {why}")


def _plain_input(
    workflow_id: str, schema: Any, data: JSON, secrets: Callable[[], bool], packages: Collection[str] | None
) -> InputPayload:
    """Return plain JSON, which the run validates; or the schema's value, if the schema makes another one each time.

    Raises:
        InvalidInputError: The data does not fit, or the schema finds a secret in it.
    """
    if schema is None:
        return InputPayload(data)
    try:
        value = validated_input(workflow_id, schema, data)
        encoded = encode(value, secrets=secrets, packages=packages)
        again = encode(validated_input(workflow_id, schema, data), secrets=secrets, packages=packages)
    except UnencryptedSecretError as err:
        raise _refused(workflow_id, err) from None
    except UnserializableError:
        return InputPayload(data)  # only the schema's validator can make this value, in the run
    return InputPayload(data) if encoded == again else InputPayload(readable(value, encoded), encoded)


def _faithful(workflow_id: str, schema: Any, value: Any, error: UnserializableError) -> InputPayload:
    """Return an instance of a class without a name as plain JSON, if the JSON expresses all of it."""
    if schema is None:
        raise _refused(workflow_id, error) from None
    try:
        data = to_json(value)
        if is_plain(data) and same(validate(data, schema), value):
            return InputPayload(data)
    except Exception:  # for example from a validator or an __eq__
        pass
    raise _refused(workflow_id, error) from None


def _converted_input(
    workflow_id: str,
    schema: Any,
    value: Any,
    exact: JSON,
    secrets: Callable[[], bool],
    packages: Collection[str] | None,
) -> InputPayload:
    """Return the value that the schema makes of a value that is neither plain JSON nor an instance of it."""
    data = readable(value, exact)
    try:
        converted = validated(value, data, schema)
    except pydantic.ValidationError as err:
        raise _unfit(workflow_id, err) from None
    try:
        encoded = encode(converted, secrets=secrets, packages=packages)
    except UnencryptedSecretError as err:
        raise _refused(workflow_id, err) from None
    except UnserializableError:
        return InputPayload(data)
    # The run makes the value anew from plain JSON. So it is sent the data that this value was made from.
    return (
        InputPayload(data) if is_unchanged(encoded, converted) else InputPayload(readable(converted, encoded), encoded)
    )
