"""Takes the schemas that the manifests need out of packages; run by hand, when a kind or a version is added.

``pip install kubernetes-validate cloudcoil-models-keda``, then ``python tests/deploy/schemas/make.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes_validate
from cloudcoil.models.keda import v1alpha1 as keda

HERE = Path(__file__).parent
KUBERNETES = "1.34.0"
KINDS = {
    "ConfigMap": "configmap-v1",
    "Deployment": "deployment-apps-v1",
    "HorizontalPodAutoscaler": "horizontalpodautoscaler-autoscaling-v2",
    "Ingress": "ingress-networking-v1",
    "Job": "job-batch-v1",
    "Namespace": "namespace-v1",
    "NetworkPolicy": "networkpolicy-networking-v1",
    "PodDisruptionBudget": "poddisruptionbudget-policy-v1",
    "Service": "service-v1",
    "ServiceAccount": "serviceaccount-v1",
}


def kubernetes() -> dict[str, Any]:
    """The definitions of the kinds and of all that they refer to; what they do not name is a mistake."""
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{KUBERNETES}-local-strict"
    known = json.loads((folder / "_definitions.json").read_text())["$defs"]
    kinds = {kind: json.loads((folder / f"{file}.json").read_text()) for kind, file in KINDS.items()}
    for schema in kinds.values():
        schema["properties"].pop("status", None)
    return closure(kinds, known)


def scaling() -> dict[str, Any]:
    """The definitions of KEDA's kinds."""
    kinds, known = {}, {}
    for model in (keda.ScaledObject, keda.TriggerAuthentication):
        schema = model.model_json_schema(by_alias=True)
        known |= schema.pop("$defs")
        schema["properties"].pop("status")
        schema["properties"]["metadata"] = {"type": "object"}
        kinds[model.__name__] = schema
    found = closure(kinds, known)
    for definition in found.values():
        if "properties" in definition:
            definition["additionalProperties"] = False
    return found


def closure(kinds: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """The kinds and all definitions that they refer to, each without its texts."""
    found = {kind: bare(schema) for kind, schema in kinds.items()}
    left = list(references(list(found.values())))
    while left:
        name = left.pop()
        if name not in found:
            found[name] = bare(known[name])
            left += references(found[name])
    return found


def references(schema: Any) -> Iterator[str]:
    """The names of the definitions that a schema refers to."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str):
                yield value.rpartition("/")[2]
            else:
                yield from references(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from references(item)


def bare(schema: Any) -> Any:
    """A schema without its texts, whose references are to definitions in the same file."""
    if isinstance(schema, list):
        return [bare(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    texts = ("description", "title", "examples", "default", "$id", "$schema")
    return {
        key: f"#/definitions/{value.rpartition('/')[2]}" if key == "$ref" and isinstance(value, str) else bare(value)
        for key, value in schema.items()
        if not (key in texts and not isinstance(value, dict)) and not key.startswith("x-kubernetes")
    }


def write(name: str, comment: str, definitions: dict[str, Any]) -> None:
    """Write one file, a definition a line, so that a later version is read as a diff."""
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(definitions[key])}" for key in sorted(definitions))
    (HERE / name).write_text(f'{{"$comment": {json.dumps(comment)}, "definitions": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    write(
        "kubernetes.json",
        f"Kubernetes {KUBERNETES}, Apache-2.0, from kubernetes-validate {version('kubernetes-validate')}, without text",
        kubernetes(),
    )
    write(
        "keda.json",
        f"KEDA 2.16.1, Apache-2.0, from cloudcoil-models-keda {version('cloudcoil-models-keda')}, without text",
        scaling(),
    )
