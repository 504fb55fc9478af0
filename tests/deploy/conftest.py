"""The manifests as they would be applied, and the schemas that they have to fit."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from kustomizing import DEPLOY, ROOT, Resource, rendered

OVERLAYS = ("dev", "production", "versioned")


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each overlay's folder; ``versioned`` is production with the component, as docs/deploy.md has it."""
    copied = tmp_path_factory.mktemp("versioned") / "kubernetes"
    shutil.copytree(DEPLOY / "kubernetes", copied)
    with (copied / "overlays/production/kustomization.yaml").open("a") as file:
        file.write("components: [../../components/versioned]\n")
    own = {name: DEPLOY / "kubernetes/overlays" / name for name in ("dev", "production")}
    return own | {"versioned": copied / "overlays/production"}


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, folders: dict[str, Path]) -> list[Resource]:
    """The resources of each overlay."""
    return rendered(folders[request.param])


@pytest.fixture(scope="session")
def mistakes() -> Callable[[Resource], list[str]]:
    """Says what of a resource does not fit the schema of its kind."""
    definitions: dict[str, Any] = {}
    for path in (ROOT / "tests/deploy/schemas").glob("*.json"):
        definitions |= json.loads(path.read_text())["definitions"]

    def check(resource: Resource) -> list[str]:
        schema = {"$ref": f"#/definitions/{resource['kind']}", "definitions": definitions}
        return [f"{resource['kind']} {error}" for error in jsonschema_rs.iter_errors(schema, resource)]

    return check


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Finds a program of the extra ``test``; the test is skipped where it is not installed."""

    def find(name: str) -> str:
        found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not installed")
        return found

    return find
