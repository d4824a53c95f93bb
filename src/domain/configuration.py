"""A model's configuration: its fields, and all the rules that they must keep."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Final, Literal, cast

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from domain.changes import Fields, Value
from domain.errors import InvalidInput, Problem
from domain.values import Endpoint, ModelId, Origin, parse_endpoint, parse_model_id, text_problem

DAY: Final = 86_400
"""Seconds; no call may take longer."""

Seconds = Annotated[int, Meta(gt=0, le=DAY)] | Annotated[float, Meta(gt=0, le=DAY)]
Factor = Annotated[int, Meta(ge=0, le=DAY)] | Annotated[float, Meta(ge=0, le=DAY)]
Name = Annotated[str, Meta(min_length=1, max_length=128)]
UNIQUE: Final = {"uniqueItems": True}
KeyOrigins = frozenset[Origin]
"""The origins that the environment's key may be sent to."""

ENVIRONMENT: Final = "environment"
"""The credential made from AZURE_OPENAI_API_KEY."""

API_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
DEPLOYMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,255}", re.ASCII)
ALIAS: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}", re.ASCII)
ITEM: Final = re.compile(r" - at `\$\[([0-9]+)\]`$")
"""Where in a list something is wrong, as msgspec words it."""


class ModelConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the gateway needs to call a deployment. Kept as it was sent; nothing is normalised.

    The types alone hold for every configuration that was ever recorded; `check` holds a new one to
    today's rules, `CONSTRAINTS` and `RULES`.
    """

    name: str
    max_tokens: int
    supports_streaming: bool
    supports_temperature: bool
    provider: Literal["azure", "openai"] = "azure"
    api_version: str | UnsetType = UNSET
    azure_endpoint: str | UnsetType = UNSET
    base_url: str | UnsetType = UNSET
    deployment: str | UnsetType = UNSET
    description: str = ""
    base_timeout: int | float = 120
    max_timeout: int | float = 300
    token_factor: int | float = 0.05
    credential: str | None = ENVIRONMENT
    reasoning: bool | UnsetType = UNSET
    max_retries: int | UnsetType = UNSET
    enabled: bool = True
    aliases: tuple[str, ...] | UnsetType = UNSET
    fallbacks: tuple[ModelId, ...] | UnsetType = UNSET

    def fields(self) -> dict[str, Value]:
        """The configuration as plain values, without the fields that are not set."""
        values = msgspec.structs.asdict(self).items()
        return {field: _as_json(value) for field, value in values if value is not UNSET}

    def endpoint(self) -> Endpoint:
        """Where calls go. The one place that decides it, for saving and for sending.

        Raises:
            ValueError: the address breaks a rule of `parse_endpoint`.
        """
        address = self.azure_endpoint if self.provider == "azure" else self.base_url
        return parse_endpoint(address or "")


CONSTRAINTS: Final[Mapping[str, object]] = {
    "name": Annotated[str, Meta(min_length=1, max_length=200, description="A label; the id identifies.")],
    "max_tokens": Annotated[
        int, Meta(ge=1, le=10_000_000, description="The most tokens that a call may ask for.")
    ],
    "supports_streaming": Annotated[bool, Meta(description="Off: a stream is answered whole.")],
    "supports_temperature": Annotated[bool, Meta(description="Off: temperature and its kin are dropped.")],
    "provider": Annotated[
        Literal["azure", "openai"], Meta(description="`openai` is any OpenAI-compatible server.")
    ],
    "api_version": Annotated[str, Meta(max_length=64, description="Required for `azure`.")],
    "azure_endpoint": Annotated[str, Meta(max_length=2_000, description="Required for `azure`.")],
    "base_url": Annotated[str, Meta(max_length=2_000, description="Required for `openai`.")],
    "deployment": Annotated[
        str, Meta(max_length=256, description="The provider's name for it; the id when left out.")
    ],
    "description": Annotated[str, Meta(max_length=2_000)],
    "base_timeout": Annotated[Seconds, Meta(description="Seconds that every call gets.")],
    "max_timeout": Annotated[Seconds, Meta(description="Seconds; no call gets more.")],
    "token_factor": Annotated[Factor, Meta(description="Seconds added for each token of a call.")],
    "credential": Annotated[str | None, Meta(description="`environment`, or null to send no key.")],
    "reasoning": Annotated[bool, Meta(description="Takes `max_completion_tokens`; derived when left out.")],
    "max_retries": Annotated[
        int, Meta(ge=0, le=10, description="Tries after the first; derived when left out.")
    ],
    "enabled": Annotated[bool, Meta(description="A disabled model answers callers 404.")],
    "aliases": Annotated[
        list[Name], Meta(max_length=20, description="Other names for callers.", extra_json_schema=UNIQUE)
    ],
    "fallbacks": Annotated[
        list[Name],
        Meta(max_length=10, description="Models to try after it, in order.", extra_json_schema=UNIQUE),
    ],
}
"""The type of each field as a request may send it, with its limits and what it means."""

FIELDS: Final = {field.name: field for field in msgspec.structs.fields(ModelConfig)}
NULLABLE: Final = frozenset({"credential"})
"""The fields for which null is a value."""
READ_ONLY: Final = frozenset(
    {"version", "position", "is_default", "updated_at", "updated_by", "model_id", "id", "hash"}
)


def check(raw: Mapping[str, object], origins: KeyOrigins) -> tuple[ModelConfig | None, list[Problem]]:
    """Read a configuration from plain values; all that is wrong is told at once.

    The configuration is None when there is any problem.
    """
    values: dict[str, Value] = {}
    problems = [_unknown(field) for field in raw if field not in FIELDS]
    for name, field in FIELDS.items():
        if name in raw:
            try:
                values[name] = msgspec.convert(raw[name], CONSTRAINTS[name])
            except msgspec.ValidationError as error:
                problems.append(_invalid(f"/{name}", error))
        elif field.required:
            problems.append(Problem(f"/{name}", "required", "this field is required"))
        elif field.default is not UNSET:
            values[name] = cast("Value", field.default)
    told = {problem.pointer for problem in problems}  # a field of the wrong type is not missing as well
    for rule in RULES:
        problems.extend(problem for problem in rule(values, origins) if problem.pointer not in told)
    if problems:
        return None, problems
    return msgspec.convert(values, ModelConfig), []


def _texts(values: Fields, _: KeyOrigins) -> Iterator[Problem]:
    for field in ("name", "description"):
        text = values.get(field)
        if isinstance(text, str):
            problem = text_problem(text, 2_000)
            if not problem and field == "name" and not text.strip():
                problem = "a name is not blank"
            if problem:
                yield Problem(f"/{field}", "invalid_text", problem)


def _timeouts(values: Fields, _: KeyOrigins) -> Iterator[Problem]:
    base, limit = values.get("base_timeout"), values.get("max_timeout")
    if isinstance(base, int | float) and isinstance(limit, int | float) and base > limit:
        detail = f"base_timeout ({base} s) is not above max_timeout ({limit} s)"
        yield Problem("/base_timeout", "above_max_timeout", detail)


def _address(values: Fields, _: KeyOrigins) -> Iterator[Problem]:
    provider = values.get("provider")
    if provider is None:
        return
    wanted = {"azure": ("azure_endpoint", "api_version"), "openai": ("base_url",)}[str(provider)]
    foreign = {"azure": ("base_url",), "openai": ("azure_endpoint",)}[str(provider)]
    for field in wanted:
        if field not in values:
            yield Problem(f"/{field}", "required", f"required when provider is {provider!r}")
    for field in foreign:
        if field in values:
            yield Problem(f"/{field}", "not_for_provider", f"not used when provider is {provider!r}")
    address = values.get(wanted[0])
    if isinstance(address, str):
        try:
            parse_endpoint(address)
        except ValueError as error:
            yield Problem(f"/{wanted[0]}", "invalid_url", str(error))


def _names(values: Fields, _: KeyOrigins) -> Iterator[Problem]:
    version, deployment = values.get("api_version"), values.get("deployment")
    if isinstance(version, str) and not API_VERSION.fullmatch(version):
        yield Problem("/api_version", "invalid_value", "letters, digits, '.', '_' and '-', at most 64")
    if not isinstance(deployment, str):
        return
    parts = deployment.split("/")
    if not DEPLOYMENT.fullmatch(deployment) or any(part in {"", ".", ".."} for part in parts):
        detail = "1 to 256 letters, digits and '. _ : / @ + -', beginning with a letter or digit"
        yield Problem("/deployment", "invalid_value", detail)
    elif values.get("provider") == "azure" and len(parts) > 1:
        yield Problem("/deployment", "invalid_value", "an Azure deployment's name has no '/'")


def _aliases(values: Fields, _: KeyOrigins) -> Iterator[Problem]:
    aliases = _list(values, "aliases")
    for place, alias in enumerate(aliases):
        if not ALIAS.fullmatch(alias) or any(part in {"", ".", ".."} for part in alias.split("/")):
            detail = (
                "an alias has 1 to 128 letters, digits, '.', '_', ':', '/' or '-', begins with a letter or "
                "digit, and has no empty, '.' or '..' part between slashes"
            )
            yield Problem(f"/aliases/{place}", "invalid_value", detail)
        elif alias in aliases[:place]:
            yield Problem(f"/aliases/{place}", "doubled", f"{alias!r} stands in this list already")


def _fallbacks(values: Fields, _: KeyOrigins) -> Iterator[Problem]:
    fallbacks = _list(values, "fallbacks")
    for place, fallback in enumerate(fallbacks):
        try:
            parse_model_id(fallback, f"/fallbacks/{place}")
        except InvalidInput as error:
            yield from error.problems
        else:
            if fallback in fallbacks[:place]:
                yield Problem(f"/fallbacks/{place}", "doubled", f"{fallback!r} stands in this list already")


def _list(values: Fields, field: str) -> list[str]:
    value = values.get(field)
    return value if isinstance(value, list) else []


def _credential(values: Fields, origins: KeyOrigins) -> Iterator[Problem]:
    credential = values.get("credential")
    if credential not in {None, ENVIRONMENT}:
        detail = f"{ENVIRONMENT!r}, or null to send no key"
        yield Problem("/credential", "unknown_credential", detail)
    field = {"azure": "azure_endpoint", "openai": "base_url"}.get(str(values.get("provider")), "")
    address = values.get(field)
    if credential != ENVIRONMENT or not isinstance(address, str):
        return
    try:
        origin = parse_endpoint(address).origin
    except ValueError:
        return  # told by the rule for addresses
    if origin not in origins:
        detail = (
            f"the environment's key is not sent to {origin}; an operator can allow it in "
            "MODEL_LEDGER_KEY_ORIGINS, or set credential to null to send no key"
        )
        yield Problem(f"/{field}", "credential_not_bound", detail)


Rule = Callable[[Fields, KeyOrigins], Iterator[Problem]]
RULES: Final[tuple[Rule, ...]] = (_texts, _timeouts, _address, _names, _aliases, _fallbacks, _credential)


def _unknown(field: str) -> Problem:
    pointer = "/" + field[:200].replace("~", "~0").replace("/", "~1")
    if field in READ_ONLY:
        return Problem(pointer, "read_only", "the ledger sets this field; leave it out")
    return Problem(pointer, "unknown_field", "there is no such field")


def _invalid(pointer: str, error: msgspec.ValidationError) -> Problem:
    item = ITEM.search(str(error))
    detail = str(error).replace("`", "'").partition(" - at ")[0]
    return Problem(f"{pointer}/{item[1]}" if item else pointer, "invalid_value", detail)


def _as_json(value: Value | tuple[str, ...]) -> Value:
    return list(value) if isinstance(value, tuple) else value
