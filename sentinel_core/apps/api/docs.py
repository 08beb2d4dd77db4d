"""GET /v1/docs: the OpenAPI document as a page one can read, print and link into; no script, nothing foreign."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import jinja2
from markupsafe import Markup, escape

JSON = "application/json"
METHODS = ("get", "post", "put", "patch", "delete")
_MAX_DEPTH = 4  # of examples; a schema may hold itself

_NEEDED = {  # permissions, in the words of keys and roles
    "ingest": "a key with scope ingest",
    "read": "scope read, or role viewer",
    "operate": "scope admin, or role operator",
    "administer": "scope admin, or role admin",
    "govern": "role admin in every project",
}

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Type:
    """A schema in a few words; `name` is the component to link to, if it is one."""

    text: str
    name: str | None = None


@dataclass(frozen=True)
class Field:
    """One line of a table: a parameter, or a member of an object."""

    name: str
    type: Type
    required: bool
    description: str
    limits: str
    place: str = ""


@dataclass(frozen=True)
class Reply:
    """One documented status."""

    status: str
    description: str
    type: Type | None
    headers: tuple[str, ...]


@dataclass(frozen=True)
class Operation:
    """One method of one path."""

    id: str
    method: str
    path: str
    summary: str
    description: str
    needs: str
    parameters: tuple[Field, ...]
    body: tuple[tuple[str, Type], ...]  # media type and schema
    members: tuple[Field, ...]  # of the body
    replies: tuple[Reply, ...]
    curl: str
    answer: str | None  # an example of what the good reply holds


class Docs:
    """The page of one OpenAPI document; `url` is where the API is reached."""

    def __init__(self, document: Mapping[str, Any], url: str) -> None:
        self._document = document
        self._url = url
        self._schemas: Mapping[str, Schema] = document["components"]["schemas"]

    def render(self) -> str:
        """The whole page."""
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("sentinel_core.apps"), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters["prose"] = prose
        tags = {tag["name"]: tag.get("description", "") for tag in self._document.get("tags", ())}
        groups: dict[str, list[Operation]] = {tag: [] for tag in tags}
        for tag, operation in self._operations():
            groups.setdefault(tag, []).append(operation)
        return environment.get_template("api.html").render(
            info=self._document["info"],
            groups=[(tag, tags.get(tag, ""), operations) for tag, operations in groups.items() if operations],
            schemas=[
                (name, schema.get("description", ""), list(self._members(schema)))
                for name, schema in sorted(self._schemas.items())
            ],
            url=self._url,
        )

    def _operations(self) -> Iterator[tuple[str, Operation]]:
        for path, item in self._document["paths"].items():
            for method in METHODS:
                if method in item:
                    operation = item[method]
                    yield operation.get("tags", ["Other"])[0], self._operation(path, method, operation)

    def _operation(self, path: str, method: str, operation: Mapping[str, Any]) -> Operation:
        body = operation.get("requestBody", {}).get("content", {})
        good: Mapping[str, Any] = next(
            (reply for status, reply in operation["responses"].items() if status.startswith("2")), {}
        )
        answered = good.get("content", {}).get(JSON, {}).get("schema")
        return Operation(
            id=operation["operationId"],
            method=method.upper(),
            path=path,
            summary=operation.get("summary", ""),
            description=operation.get("description", ""),
            needs=_NEEDED[operation["x-permission"]],
            parameters=tuple(self._parameter(one) for one in operation.get("parameters", ())),
            body=tuple((media, self.type_of(content["schema"])) for media, content in body.items()),
            members=tuple(self._members(body[JSON]["schema"])) if JSON in body else (),
            replies=tuple(self._reply(status, reply) for status, reply in operation["responses"].items()),
            curl=self._curl(path, method, operation),
            answer=_pretty(self.example(answered)) if answered else None,
        )

    def _parameter(self, parameter: Mapping[str, Any]) -> Field:
        schema = parameter["schema"]
        return Field(
            name=parameter["name"],
            type=self.type_of(schema),
            required=parameter.get("required", False),
            description=parameter.get("description", ""),
            limits=_limits(schema),
            place=parameter["in"],
        )

    def _reply(self, status: str, reply: Mapping[str, Any]) -> Reply:
        content = next(iter(reply.get("content", {}).values()), None)
        return Reply(
            status=f"{status} {HTTPStatus(int(status)).phrase}",
            description=reply.get("description", ""),
            type=self.type_of(content["schema"]) if content else None,
            headers=tuple(reply.get("headers", {})),
        )

    def _members(self, schema: Schema) -> Iterator[Field]:
        """The members of an object, of the items of an array, or of the first option that has any."""
        if "$ref" in schema:
            schema = self._schemas[schema["$ref"].rpartition("/")[2]]
        for inner in (*schema.get("anyOf", ()), schema.get("items")):
            if inner:
                yield from self._members(inner)
        required = schema.get("required", ())
        for name, member in schema.get("properties", {}).items():
            yield Field(name, self.type_of(member), name in required, member.get("description", ""), _limits(member))

    def type_of(self, schema: Schema) -> Type:
        """A schema in words, as `array of Model` or `string or null`."""
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return Type(name, name)
        if options := schema.get("anyOf") or schema.get("oneOf"):
            types = [self.type_of(option) for option in options]
            return Type(" or ".join(one.text for one in types), next((one.name for one in types if one.name), None))
        if "enum" in schema:
            return Type(" | ".join(json.dumps(value) for value in schema["enum"]))
        if "const" in schema:
            return Type(json.dumps(schema["const"]))
        if schema.get("type") == "array":
            items = self.type_of(schema.get("items", {}))
            return Type(f"array of {items.text}", items.name)
        if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), Mapping):
            values = self.type_of(schema["additionalProperties"])
            return Type(f"object of {values.text}", values.name)
        form = f" ({schema['format']})" if "format" in schema else ""
        return Type(f"{schema.get('type', 'any')}{form}")

    def example(self, schema: Schema, *, whole: bool = True, depth: int = 0) -> Any:
        """A value that the schema allows, for people to start from; not `whole`: with what has to be there alone."""
        if "$ref" in schema:
            return self.example(self._schemas[schema["$ref"].rpartition("/")[2]], whole=whole, depth=depth)
        if examples := schema.get("examples"):
            return examples[0]
        for known in ("example", "const", "default"):
            if schema.get(known) is not None:
                return schema[known]
        if "enum" in schema:
            return schema["enum"][0]
        if options := schema.get("anyOf") or schema.get("oneOf"):
            return self.example(options[0], whole=whole, depth=depth)
        match schema.get("type"):
            case "object":
                return {
                    name: self.example(member, whole=whole, depth=depth + 1)
                    for name, member in schema.get("properties", {}).items()
                    if depth < _MAX_DEPTH and (whole or name in schema.get("required", ()))
                }
            case "array":
                items = schema.get("items", {})
                return [self.example(items, whole=whole, depth=depth + 1)] if depth < _MAX_DEPTH else []
            case "integer" | "number":
                return schema.get("minimum", 1)
            case "boolean":
                return True
            case "string":
                return "text"
            case _:
                return None

    def _curl(self, path: str, method: str, operation: Mapping[str, Any]) -> str:
        address = f"{self._url}{path}"
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "path":
                address = address.replace(f"{{{parameter['name']}}}", str(self.example(parameter["schema"])))
        lines = [f"curl {'' if method == 'get' else f'-X {method.upper()} '}'{address}'"]
        if operation.get("security") != []:
            lines.append('-H "Authorization: Bearer $SENTINEL_KEY"')
        if content := operation.get("requestBody", {}).get("content", {}).get(JSON):
            value = content.get("example") or self.example(content["schema"], whole=False)
            text = json.dumps(value, indent=2, ensure_ascii=False).replace("'", "'\\''")
            lines += [f"-H 'Content-Type: {JSON}'", f"-d '{text}'"]
        return " \\\n  ".join(lines)


def prose(text: str) -> Markup:
    """A sentence of the document with its `code` as such.

    >>> prose("send `next` & go on")
    Markup('send <code>next</code> &amp; go on')
    """
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _limits(schema: Schema) -> str:
    """What bounds a value, as `1 … 1000` or `at most 64 characters`, and what it is by default.

    >>> _limits({"type": "integer", "minimum": 1, "maximum": 1000, "default": 100})
    '1 … 1,000; default 100'
    """
    options = [schema, *schema.get("anyOf", ())]
    found = []
    for one in options:
        least = one.get("minimum", one.get("exclusiveMinimum"))
        most = one.get("maximum", one.get("exclusiveMaximum"))
        if least is not None or most is not None:
            found.append(f"{'' if least is None else f'{least:,} '}…{'' if most is None else f' {most:,}'}")
        if "maxLength" in one:
            found.append(f"at most {one['maxLength']} characters")
        if "maxItems" in one:
            found.append(f"at most {one['maxItems']} items")
    if schema.get("default") is not None:
        found.append(f"default {json.dumps(schema['default'])}")
    return "; ".join(found)
