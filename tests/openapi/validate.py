"""Holds a document to OpenAPI 3.1, and values to schemas of it; prints what is wrong.

Reads {"document": ..., "cases": [{"what": ..., "schema": ..., "value": ...}]} from its input.
"""

import json
import sys
from pathlib import Path

import jsonschema_rs

OPENAPI = Path(jsonschema_rs.__file__).parents[1] / "openapi_spec_validator/resources/schemas/v3.1/schema.json"


def faults(what, schema, value):
    for error in jsonschema_rs.validator_for(schema).iter_errors(value):
        yield f"{what}: {error.message} (at {error.instance_path})"


def main():
    given = json.load(sys.stdin)
    document = given["document"]
    found = list(faults("the document", json.loads(OPENAPI.read_text()), document))
    for case in given["cases"]:
        # References in a schema are to the components of the document.
        schema = {**case["schema"], "components": document["components"]}
        found += faults(case["what"], schema, case["value"])
    print("\n".join(found))
    print(f"{len(given['cases'])} cases, {len(found)} faults", file=sys.stderr)


main()
