"""The input of a run: JSON that any program can write, and the exact value beside it where JSON cannot express it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import pydantic

from .annotated import same
from .converter import issues, to_json, validate
from .decoding import decode, validated
from .encoding import encode, never
from .errors import InvalidInputError, UnencryptedSecretError, UnserializableError
from .fitting import fits
from .readable import is_plain, outward, plain
from .type_names import TypeNotFoundError
from .types import JSON


@dataclass(frozen=True, slots=True)
class Given:
    """An input to send.

    Attributes:
        data: It as plain JSON, as pydantic writes it for other programs.
        exact: It as :func:`~steporal.encoding.encode` writes it; None where ``data`` says it all.
    """

    data: JSON
    exact: JSON = None

    def both(self) -> JSON:
        """Return all that is sent of it, which must be of a size that Temporal takes."""
        return self.data if self.exact is None else [self.data, self.exact]


def given(workflow_id: str, schema: Any, value: Any, *, secrets: Callable[[], bool] = never) -> Given:
    """Return the input of a workflow of this app: an instance of its schema, or what the schema makes one of.

    Raises:
        InvalidInputError: It does not fit the schema, or cannot be sent.
    """
    try:
        encoded = encode(value, secrets=secrets)
    except UnencryptedSecretError as err:
        raise _refused(workflow_id, err) from None
    except UnserializableError as err:
        return _faithful(workflow_id, schema, value, err)
    if encoded == value:
        _check_plain(workflow_id, schema, encoded, secrets)
        return Given(encoded)
    if schema is None or fits(value, schema, trusts_metadata=False):
        return Given(_readable(value, encoded), encoded)
    return _made(workflow_id, schema, value, secrets)


def given_to_other_app(workflow_id: str, value: Any) -> Given:
    """Return the input of a workflow of another app, whose classes are not ours: plain JSON.

    Raises:
        InvalidInputError: It cannot be sent as plain JSON.
    """
    try:
        return Given(outward(value))
    except UnserializableError as err:
        raise _refused(workflow_id, err) from None


def received(workflow_id: str, schema: Any, data: JSON, exact: JSON = None, packages: Collection[str] = ()) -> Any:
    """Return the input of a run as its handler is given it.

    Args:
        workflow_id: The workflow, for messages.
        schema: Its ``input_schema``.
        data: Plain JSON.
        exact: The exact value, encoded, where the sender has sent it.
        packages: Top-level packages from which its class may be imported.

    Raises:
        InvalidInputError: It does not fit the schema.
    """
    if exact is None:
        return validated_input(workflow_id, schema, data)
    try:
        try:
            value = decode(exact, packages=packages)
        except TypeNotFoundError:
            if schema is None:
                raise
            value = plain(exact, reveal=True)  # the class was moved or renamed
        return value if schema is None or fits(value, schema) else validated(value, exact, schema)
    except TypeNotFoundError as err:
        raise InvalidInputError(f"the input of workflow {workflow_id!r} cannot be read: {err}") from None
    except pydantic.ValidationError as err:
        raise _unfit(workflow_id, err) from None


def validated_input(workflow_id: str, schema: Any, data: JSON) -> Any:
    """Return plain JSON as ``schema`` has it; as it is without a schema.

    Raises:
        InvalidInputError: It does not fit.
    """
    if schema is None:
        return data
    try:
        return validate(data, schema)
    except pydantic.ValidationError as err:
        raise _unfit(workflow_id, err) from None


def _unfit(workflow_id: str, error: pydantic.ValidationError) -> InvalidInputError:
    return InvalidInputError(f"the input of workflow {workflow_id!r} does not fit its input_schema: {issues(error)}")


def _refused(workflow_id: str, why: object) -> InvalidInputError:
    return InvalidInputError(f"the input of workflow {workflow_id!r} cannot be sent: {why}")


def _readable(value: Any, encoded: JSON) -> JSON:
    try:
        data = to_json(value)
        return data if is_plain(data) else plain(encoded)
    except Exception:  # a serializer of the user's own may raise anything
        return plain(encoded)


def _check_plain(workflow_id: str, schema: Any, data: JSON, secrets: Callable[[], bool]) -> None:
    """Check that plain JSON fits, and that the schema finds no secret in it."""
    if schema is None:
        return
    try:
        encode(validated_input(workflow_id, schema, data), secrets=secrets)
    except UnencryptedSecretError as err:
        raise _refused(workflow_id, err) from None
    except UnserializableError:
        return  # a value of the schema that only its validator makes, in the run


def _faithful(workflow_id: str, schema: Any, value: Any, error: UnserializableError) -> Given:
    """An instance of a class that has no name, if its plain JSON says all of it."""
    if schema is None:
        raise _refused(workflow_id, error) from None
    try:
        data = to_json(value)
        if is_plain(data) and same(validate(data, schema), value):
            return Given(data)
    except Exception:  # such as of a validator, or of an __eq__
        pass
    raise _refused(workflow_id, error) from None


def _made(workflow_id: str, schema: Any, value: Any, secrets: Callable[[], bool]) -> Given:
    """What the schema makes of a value that is neither plain JSON nor an instance of it."""
    data: JSON = None
    try:
        data = to_json(value)
        made = validated(value, data, schema)
    except pydantic.ValidationError as err:
        raise _unfit(workflow_id, err) from None
    except UnserializableError as err:
        raise _refused(workflow_id, err) from None
    try:
        encoded = encode(made, secrets=secrets)
    except UnencryptedSecretError as err:
        raise _refused(workflow_id, err) from None
    except UnserializableError:
        return Given(data)
    # Of plain JSON the run makes the value anew, so it is sent what this one was made of.
    return Given(data) if encoded == made else Given(_readable(made, encoded), encoded)
