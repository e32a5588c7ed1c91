"""Which fields of Kubernetes' own resources our manifests use, and their types.

`kubectl apply` says too late that a cluster does not know a field. Tests have what the manifests use in
`tests/unit/kubernetes_fields.yaml`. It is made from the models of Kubernetes' Python client, 37.0 (of Kubernetes 1.37),
whenever a manifest takes a new field:

    pip install kubernetes && python -m tests.tools.kubernetes_fields >tests/unit/kubernetes_fields.yaml
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import yaml

from tests.tools.kuberay_fields import ANY, merged
from tests.tools.manifests import DEPLOY, RAY_MANIFESTS, documents

FILES = sorted({path.name for path in DEPLOY.glob("*.yaml")} - set(RAY_MANIFESTS))
_TYPES = {"str": "string", "int": "integer", "bool": "boolean", "object": "int-or-string"}


def used_fields(value: Any, kind: str, models: Any) -> Any:
    """Return the fields of ``value`` with their types, as a model of that name has them. Raises KeyError otherwise."""
    if kind.startswith("List["):
        return [merged([used_fields(each, kind[5:-1], models) for each in value])]
    if kind.startswith("Dict["):
        of = kind[:-1].split(", ")[1]
        return {ANY: merged([used_fields(each, of, models) for each in value.values()])}
    if kind in _TYPES:
        return _TYPES[kind]
    model = getattr(models, kind)
    types = {name: model.openapi_types[attribute] for attribute, name in model.attribute_map.items()}
    return {name: used_fields(each, types[name], models) for name, each in value.items()}


def _all_used() -> dict[str, Any]:
    models = import_module("kubernetes.client")
    found: dict[str, list[Any]] = {}
    for resource in (resource for name in FILES for resource in documents(name)):
        kind = resource["kind"]
        found.setdefault(kind, []).append(used_fields(resource, f"V1{kind}", models))
    return {kind: merged(each) for kind, each in sorted(found.items())}


if __name__ == "__main__":
    print(yaml.safe_dump(_all_used()), end="")
