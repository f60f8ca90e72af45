"""The JSON schema that editors use: the types' own, and what a file may say beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phaselaw.study.tr121_names import BACKENDS, MODELS, SCENARIOS


def editor_schema(schema: Mapping[str, Any], *, version: int) -> dict[str, Any]:
    """The schema of a study file from that of the types, with its version, bare names and ``gen_tokens_list``."""
    properties = dict(schema["properties"])
    definitions = dict(schema["$defs"])
    definitions["Scenario"] = {**definitions["Scenario"], "oneOf": [_text("prompt"), _count("prompt_tokens")]}
    for key, known in (("scenarios", SCENARIOS), ("backends", BACKENDS), ("models", MODELS)):
        entry = properties[key]["items"]
        by_name = {"enum": sorted(known), "description": "A name of TR121's scaling study."}
        properties[key] = {**properties[key], "items": {"anyOf": [entry, by_name]}}
    properties["gen_tokens_list"] = {
        "type": "array",
        "items": {"type": "integer", "minimum": 1, "maximum": 1_000_000},
        "minItems": 1,
        "maxItems": definitions["Axes"]["properties"]["gen_tokens"]["anyOf"][0]["maxItems"],
        "uniqueItems": True,
        "description": "TR121's name for axes.gen_tokens; give one of the two.",
    }
    both_names_of_the_axis = {
        "required": ["gen_tokens_list", "axes"],
        "properties": {"axes": {"type": "object", "required": ["gen_tokens"]}},
    }
    swept_prompts = {
        "required": ["axes"],
        "properties": {"axes": {"required": ["prompt_tokens"], "properties": {"prompt_tokens": {"type": "array"}}}},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:phaselaw:study:{version}",
        "x-version": version,
        **schema,
        "title": "phaselaw study",
        "properties": properties,
        "$defs": definitions,
        "not": both_names_of_the_axis,
        "required": [key for key in schema["required"] if key != "scenarios"],
        "anyOf": [{"required": ["scenarios"]}, swept_prompts],
    }


def _text(key: str) -> dict[str, Any]:
    return {"required": [key], "properties": {key: {"type": "string"}}}


def _count(key: str) -> dict[str, Any]:
    return {"required": [key], "properties": {key: {"type": "integer"}}}
