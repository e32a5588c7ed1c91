"""Which fields of KubeRay's resources our manifests use, and whether the operator knows them.

An operator drops a field that it does not know, in silence. Its definitions have 17,000 lines, so tests have what the
manifests use of them, in `tests/unit/kuberay_fields.yaml`. It is made from a release of KubeRay (1.7.0; 1.6.2 gives the
same), of its file `ray-operator/config/crd/bases/ray.io_rayservices.yaml`, whenever a manifest takes a new field:

    python -m tests.tools.kuberay_fields ray.io_rayservices.yaml >tests/unit/kuberay_fields.yaml
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from tests.tools.manifests import documents

ANY = "*"  #: in the place of a name: any
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "int-or-string": (int, str),
}


def used_fields(value: Any, schema: dict[str, Any]) -> Any:
    """Return the fields of ``value`` with their types in ``schema``. Raises KeyError for one that is unknown there."""
    if schema.get("x-kubernetes-int-or-string"):
        return "int-or-string"
    if isinstance(value, list):
        return [merged([used_fields(each, schema["items"]) for each in value])]
    if not isinstance(value, dict):
        return schema["type"]
    if "properties" in schema:
        return {name: used_fields(each, schema["properties"][name]) for name, each in value.items()}
    return {ANY: merged([used_fields(each, schema["additionalProperties"]) for each in value.values()] or ["string"])}


def unknown_fields(value: Any, known: Any, where: str = "spec") -> list[str]:
    """Return the places where ``value`` has a field that ``known`` has not, or another type."""
    if isinstance(value, list) and isinstance(known, list):
        return [place for each in value for place in unknown_fields(each, known[0], f"{where}[]")]
    if not (isinstance(value, dict) and isinstance(known, dict)):
        is_right = isinstance(known, str) and type(value) in _TYPES[known]
        return [] if is_right else [f"{where}: {value!r}"]
    missing = [f"{where}.{name}" for name in value if name not in known and ANY not in known]
    return missing + [
        place
        for name, each in value.items()
        if name in known or ANY in known
        for place in unknown_fields(each, known.get(name, known.get(ANY)), f"{where}.{name}")
    ]


def merged(found: list[Any]) -> Any:
    """Return the fields of several values together."""
    if isinstance(found[0], list):
        return [merged([each for several in found for each in several])]
    if not isinstance(found[0], dict):
        return found[0]
    names = dict.fromkeys(name for each in found for name in each)
    return {name: merged([each[name] for each in found if name in each]) for name in names}


def _spec_of(definition: Path) -> dict[str, Any]:
    versions = yaml.safe_load(definition.read_text(encoding="utf-8"))["spec"]["versions"]
    (schema,) = [version["schema"]["openAPIV3Schema"] for version in versions if version["name"] == "v1"]
    spec: dict[str, Any] = schema["properties"]["spec"]
    return spec


if __name__ == "__main__":
    (service,) = documents("rayservice.yaml")
    print(yaml.safe_dump(used_fields(service["spec"], _spec_of(Path(sys.argv[1])))), end="")
