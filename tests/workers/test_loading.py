"""From module:client to a client: what each mistake is answered with."""

from __future__ import annotations

import pytest
from commands import Steporal

CLIENT = """
    import steporal

    client = steporal.Client("shop")
    other = {}
    """


async def load(offline: Steporal, target: str) -> str:
    """The message about a target; nothing is connected before a client is loaded."""
    ended = await offline("sync", target)
    assert ended.status == 2
    assert "steporal_workers" not in ended.err
    assert "Traceback (most recent call last):" not in ended.err
    return ended.err


async def test_a_module_that_is_missing_is_named_with_the_folder_and_a_near_one(offline: Steporal) -> None:
    offline.write("orders.py", CLIENT)
    message = await load(offline, "order:client")
    assert f"there is no module 'order' in {offline.folder}" in message
    assert "did you mean 'orders'?" in message


async def test_a_submodule_that_is_missing_is_named(offline: Steporal) -> None:
    offline.write("shop/__init__.py", "")
    assert "there is no module 'shop.app'" in await load(offline, "shop.app:client")


async def test_a_path_instead_of_a_module_is_answered_with_the_modules_name(offline: Steporal) -> None:
    offline.write("shop/app.py", CLIENT)
    assert "is a file path; name the module instead: shop.app:client" in await load(offline, "shop/app.py:client")


async def test_no_module_at_all_is_answered_with_an_example(offline: Steporal) -> None:
    assert "write MODULE:CLIENT, such as shop.app:client" in await load(offline, ":client")


async def test_an_import_that_fails_shows_the_users_own_lines_alone(offline: Steporal) -> None:
    offline.write("prices.py", "raise KeyError('TAX_RATE')\n")
    offline.write("app.py", "import prices\n")
    message = await load(offline, "app:client")
    assert "importing 'app' failed: KeyError: 'TAX_RATE'" in message
    assert 'app.py", line 1, in <module>' in message
    assert 'prices.py", line 1, in <module>' in message
    assert "importlib" not in message


async def test_a_wrong_definition_is_shown_where_the_user_wrote_it(offline: Steporal) -> None:
    offline.write("app.py", CLIENT + "\n    client.workflow(id='')(lambda ctx, step: None)\n")
    message = await load(offline, "app:client")
    assert "DefinitionError" in message
    assert 'app.py", line 7' in message
    assert "client.py" not in message


async def test_a_dependency_that_is_missing_is_told_from_a_missing_module(offline: Steporal) -> None:
    offline.write("app.py", "import no_such_library\n")
    assert "importing 'app' failed: ModuleNotFoundError: No module named 'no_such_library'" in await load(
        offline, "app:client"
    )


async def test_a_syntax_error_is_shown_with_its_line(offline: Steporal) -> None:
    offline.write("app.py", "x = = 1\n")
    message = await load(offline, "app:client")
    assert "SyntaxError: invalid syntax" in message
    assert 'app.py", line 1' in message


async def test_a_module_that_exits_when_it_is_imported_is_told_so(offline: Steporal) -> None:
    offline.write("app.py", "import sys\nsys.exit(3)\n")
    assert "it called sys.exit(3)" in await load(offline, "app")


async def test_a_module_without_a_client_is_told_what_it_has(offline: Steporal) -> None:
    offline.write("app.py", "orders = []\n")
    assert (
        "module 'app' has no steporal.Client, such as client = steporal.Client('shop'); it has: orders"
        in await load(offline, "app")
    )


async def test_a_module_with_several_clients_needs_one_to_be_named(offline: Steporal) -> None:
    offline.write("app.py", CLIENT + "\n    second = steporal.Client('second')\n")
    assert "has 2 clients; name one: app:client, app:second" in await load(offline, "app")


async def test_an_attribute_that_is_missing_is_answered_with_the_clients(offline: Steporal) -> None:
    offline.write("app.py", CLIENT)
    assert "module 'app' has no 'cliemt'; its clients are: client" in await load(offline, "app:cliemt")


async def test_an_attribute_that_is_no_client_is_told_its_type(offline: Steporal) -> None:
    offline.write("app.py", CLIENT)
    assert "app:other is of type 'dict', not a steporal.Client" in await load(offline, "app:other")


@pytest.mark.parametrize("target", ["app", "app:client", "app:Holder.client"])
async def test_a_client_that_is_there_is_loaded(offline: Steporal, target: str) -> None:
    offline.write("app.py", CLIENT + "\n    class Holder:\n        client = client\n")
    ended = await offline("sync", target)
    assert "no Temporal server answers" in ended.err


async def test_a_client_that_is_left_out_is_found_in_the_folder(offline: Steporal) -> None:
    offline.write("shop.py", "import steporal\nsales = steporal.Client('shop')\n")
    ended = await offline("worker")
    assert (ended.status, "Missing argument 'MODULE:CLIENT'. Found here: shop:sales" in ended.err) == (2, True)


async def test_help_lists_the_flags_of_the_connection_last(offline: Steporal) -> None:
    text = (await offline("start", "--help")).out
    assert text.index("--input") < text.index("Connection to Temporal:") < text.index("--tls-server-name")


async def test_without_the_extra_the_command_says_what_to_install(offline: Steporal) -> None:
    offline.write("rich/__init__.py", "raise ModuleNotFoundError(\"No module named 'rich'\", name='rich')\n")
    ended = await offline.python("-m", "steporal_workers", "catalog")
    assert ended.status == 1
    assert ended.err == "error: the command needs 'rich', which is not installed: pip install 'steporal[cli]'\n"
