"""What `kubectl kustomize` makes of a folder, as far as the manifests in `deploy/` use it.

A test compares it with kubectl's own, where there is one; what it does not know is an error.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

Resource = dict[str, Any]

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"

_KNOWN = {
    "apiVersion", "kind", "resources", "components", "configMapGenerator", "configurations", "patches", "images",
    "namespace",
}  # fmt: skip
_DIGITS = str.maketrans("013ae", "ghkmt")
"""Kustomize writes digests without the characters that make words."""


def rendered(folder: Path) -> list[Resource]:
    """The resources of an overlay, as they would be applied."""
    resources: list[Resource] = []
    _accumulate(folder, resources)
    for resource in resources:
        if resource.pop("_generated", False):
            name = resource["metadata"]["name"]
            _rename(resources, name, f"{name}-{_digest(resource)}")
    return resources


def _accumulate(folder: Path, resources: list[Resource]) -> None:
    instructions = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert instructions.keys() <= _KNOWN, instructions.keys() - _KNOWN
    for name in instructions.get("resources", ()):
        if (folder / name).is_dir():
            _accumulate((folder / name).resolve(), resources)
        else:
            resources += yaml.safe_load_all((folder / name).read_text())
    for name in instructions.get("components", ()):
        _accumulate((folder / name).resolve(), resources)
    for generator in instructions.get("configMapGenerator", ()):
        _generate(generator, resources)
    for patch in instructions.get("patches", ()):
        _patch(patch, resources)
    for image in instructions.get("images", ()):
        _set_image(image, resources)
    if namespace := instructions.get("namespace"):
        for resource in resources:
            if resource["kind"] != "Namespace":
                resource["metadata"]["namespace"] = namespace


def _generate(generator: dict[str, Any], resources: list[Resource]) -> None:
    data = dict(literal.split("=", 1) for literal in generator["literals"])
    if generator.get("behavior") == "merge":
        _named(resources, "ConfigMap", generator["name"])["data"].update(data)
        return
    metadata = {"name": generator["name"], "labels": generator["options"]["labels"]}
    resources.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data, "_generated": True})


def _named(resources: Iterable[Resource], kind: str, name: str) -> Resource:
    [found] = [it for it in resources if (it["kind"], it["metadata"]["name"]) == (kind, name)]
    return found


def _patch(patch: dict[str, Any], resources: list[Resource]) -> None:
    change = yaml.safe_load(patch["patch"])
    if isinstance(change, dict):
        assert change["$patch"] == "delete"
        resources.remove(_named(resources, change["kind"], change["metadata"]["name"]))
        return
    assert patch["target"].keys() == {"kind"}
    for resource in resources:
        if resource["kind"] == patch["target"]["kind"]:
            for operation in change:
                _apply(operation, resource)


def _apply(operation: dict[str, Any], resource: Resource) -> None:
    *path, last = operation["path"].strip("/").split("/")
    place: Any = resource
    for key in path:
        place = place[int(key) if isinstance(place, list) else key]
    key = int(last) if isinstance(place, list) else last
    assert isinstance(place, list) or key in place, operation
    match operation["op"]:
        case "replace":
            place[key] = operation["value"]
        case "remove":
            del place[key]
        case other:
            raise NotImplementedError(other)


def _set_image(image: dict[str, str], resources: list[Resource]) -> None:
    for pod in pods(resources):
        for container in pod["containers"]:
            if container["image"].partition(":")[0] == image["name"]:
                container["image"] = f"{image.get('newName', image['name'])}:{image['newTag']}"


def pods(resources: Iterable[Resource]) -> Iterator[dict[str, Any]]:
    """The specifications of the pods that the resources make."""
    for resource in resources:
        spec = resource.get("spec", {}).get("template", {}).get("spec", {})
        if "containers" in spec:
            yield spec


def _digest(config: Resource) -> str:
    content = {"data": config["data"], "kind": "ConfigMap", "name": ""}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10].translate(_DIGITS)


def _rename(resources: list[Resource], old: str, new: str) -> None:
    _named(resources, "ConfigMap", old)["metadata"]["name"] = new
    for pod in pods(resources):
        for container in pod["containers"]:
            for source in container.get("envFrom", ()):
                if source.get("configMapRef", {}).get("name") == old:
                    source["configMapRef"]["name"] = new


def by_name(resources: Iterable[Resource]) -> dict[tuple[str, str], Resource]:
    """The resources by kind and name."""
    return {(it["kind"], it["metadata"]["name"]): copy.deepcopy(it) for it in resources}
