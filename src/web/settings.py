"""The settings: one checked Struct, read from the environment once."""

from collections.abc import Mapping, MutableMapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from domain.values import Endpoint, Origin, parse_endpoint
from web.extras import is_installed
from web.telemetry_settings import Telemetry, read_telemetry, telemetry_problems

Text = Annotated[str, Meta(min_length=1)]
PRINTABLE: Final = r"^[\x21-\x7e]+$"
# What a password has of / ? # @ [ ] must be percent-encoded: else the driver takes half of it for a host, a
# port or a database, and would tell it in an error.
HOST: Final = r"(\[[0-9A-Fa-f:.]+\]|[^\[\]/?#@:,]*)(:\d{1,5})?"
DATABASE_URL: Final = (
    rf"^postgres(ql)?://([^/?#@\[\]]*@)?{HOST}(,{HOST})*(/[^/?#@]*)?(\?\w+=[^&#@]*(&\w+=[^&#@]*)*)?$"
)

ALLOWED: Final[Mapping[str, tuple[str, str]]] = {
    "host": ("MODEL_LEDGER_HOST", "a host name or address to listen on"),
    "port": ("MODEL_LEDGER_PORT", "a port from 1 to 65535"),
    "public_url": (
        "MODEL_LEDGER_PUBLIC_URL",
        "the address that browsers use, such as https://ledger.example.com, without a path",
    ),
    "workers": ("MODEL_LEDGER_WORKERS", "a number of worker processes from 1 to 64"),
    "data_dir": ("MODEL_LEDGER_DATA_DIR", "a directory"),
    "database_url": (
        "DATABASE_URL",
        "postgresql://user:password@host:port/database, in user and password / ? # @ [ ] percent-encoded",
    ),
    "owner_database_url": (
        "MODEL_LEDGER_OWNER_DATABASE_URL",
        "an address like that of DATABASE_URL, and together with it",
    ),
    "admin_token": (
        "MODEL_LEDGER_ADMIN_TOKEN",
        "at least 32 and at most 500 printable ASCII characters, without spaces",
    ),
    "azure_api_key": ("AZURE_OPENAI_API_KEY", "a key of printable ASCII characters"),
    "entra_scope": (
        "MODEL_LEDGER_ENTRA_SCOPE",
        "a scope such as https://cognitiveservices.azure.com/.default, instead of AZURE_OPENAI_API_KEY",
    ),
    "azure_endpoint": ("AZURE_OPENAI_ENDPOINT", "an address such as https://name.openai.azure.com"),
    "azure_deployment": (
        "AZURE_OPENAI_DEPLOYMENT_NAME",
        "the name of a deployment: letters, digits, . _ : -",
    ),
    "azure_api_version": ("AZURE_OPENAI_API_VERSION", "an api version such as 2025-01-01-preview"),
    "o_series_max_retries": ("O_SERIES_MAX_RETRIES", "a number from 0 to 10"),
    "key_origins": (
        "MODEL_LEDGER_KEY_ORIGINS",
        "origins such as https://name.openai.azure.com, separated by commas",
    ),
    "require_if_match": ("MODEL_LEDGER_REQUIRE_IF_MATCH", "true or false"),
    "local_metrics": ("MODEL_LEDGER_LOCAL_METRICS", "true or false"),
    "snapshot_hours": (
        "MODEL_LEDGER_SNAPSHOT_HOURS",
        "a number of hours from 0 to 8760; 0 keeps no local snapshot",
    ),
    "stop_delay": ("MODEL_LEDGER_STOP_DELAY_SECONDS", "a number of seconds from 0 to 300"),
    "drain": ("MODEL_LEDGER_DRAIN_SECONDS", "a number of seconds from 0 to 3600"),
    "usage_days": ("MODEL_LEDGER_USAGE_DAYS", "a number of days from 0 to 3650"),
}
"""By field: its variable, and what it may be."""

SECRET_PREFIXES: Final = ("AZURE_OPENAI_", "OPENAI_", "MODEL_LEDGER_", "OTEL_")
"""Variables that neither the process nor its children keep; the SDK would send some of them out."""
KEPT: Final = "MODEL_LEDGER_PG_BIN"
"""No secret, and read only when the embedded database starts."""
DATABASE_VARIABLES: Final = ("DATABASE_URL", "MODEL_LEDGER_OWNER_DATABASE_URL", "MODEL_LEDGER_DATA_DIR")
"""All that `verify` and `rebuild` look at."""


class SettingsError(Exception):
    """Settings that do not allow a start; each problem names its variable."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))


class Settings(Struct, frozen=True, kw_only=True):
    """How this installation runs. Its representation shows no secret."""

    host: Text = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65_535)] = 8_000
    public_url: Text | None = None
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    data_dir: Text = "var"
    database_url: Annotated[str, Meta(pattern=DATABASE_URL)] | None = None
    owner_database_url: Annotated[str, Meta(pattern=DATABASE_URL)] | None = None
    admin_token: Annotated[str, Meta(min_length=32, max_length=500, pattern=PRINTABLE)] | None = None
    azure_api_key: Annotated[str, Meta(max_length=500, pattern=PRINTABLE)] | None = None
    entra_scope: Annotated[str, Meta(max_length=500, pattern=PRINTABLE)] | None = None
    """Set, tokens of Entra ID stand where the key would."""
    azure_endpoint: Text | None = None
    azure_deployment: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")] | None = None
    azure_api_version: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = (
        "2025-01-01-preview"
    )
    o_series_max_retries: Annotated[int, Meta(ge=0, le=10)] = 3
    key_origins: str = ""
    require_if_match: bool = False
    local_metrics: bool = False
    """Whether programs of this machine read the metrics without a token."""
    snapshot_hours: Annotated[int, Meta(ge=0, le=8_760)] = 24
    stop_delay: Annotated[int, Meta(ge=0, le=300)] = 0
    drain: Annotated[int, Meta(ge=0, le=3_600)] = 20
    usage_days: Annotated[int, Meta(ge=0, le=3_650)] = 30
    telemetry: Telemetry = Telemetry()
    """From OpenTelemetry's own variables."""

    def __repr__(self) -> str:
        """The settings that are no secret."""
        return f"Settings(host={self.host!r}, port={self.port}, workers={self.workers})"

    @classmethod
    def load(cls, environ: Mapping[str, str], arguments: Mapping[str, str | None]) -> "Settings":
        """Read the settings; an argument wins over its variable, an empty variable counts as none.

        Raises:
            SettingsError: every value that is not allowed, and variables that belong together.
        """
        given: dict[str, str] = {}
        for field, (variable, _) in ALLOWED.items():
            value = arguments.get(field) or environ.get(variable, "").strip()
            if value:
                given[field] = value
        problems = []
        values = {}
        for info in msgspec.structs.fields(cls):
            if info.name in given:
                is_number = isinstance(info.default, int)  # else the text "null" would be none
                try:
                    values[info.name] = msgspec.convert(given[info.name], info.type, strict=not is_number)
                except msgspec.ValidationError:
                    problems.append(_not_allowed(info.name))
        if not problems:
            settings = cls(**values, telemetry=read_telemetry(environ))
            problems = [
                *_address_problems(settings),
                *_together_problems(settings),
                *telemetry_problems(settings.telemetry),
            ]
        if problems:
            raise SettingsError(problems)
        return settings

    def public_origin(self) -> Origin | None:
        """Where browsers find the service, if that is another address than the one it listens on."""
        if self.public_url is None:
            return None
        endpoint = parse_endpoint(self.public_url)
        if endpoint.path:
            raise ValueError("it has a path")
        return endpoint.origin

    def azure(self) -> Endpoint | None:
        """The Azure OpenAI resource of the environment, if there is one."""
        return parse_endpoint(self.azure_endpoint) if self.azure_endpoint else None

    def allowed_origins(self) -> frozenset[Origin]:
        """Where the environment's key may go: its own resource, and what the operator added."""
        texts = [text.strip() for text in self.key_origins.split(",") if text.strip()]
        own = [self.azure_endpoint] if self.azure_endpoint else []
        return frozenset(parse_endpoint(text).origin for text in (*texts, *own))


def forget(environ: MutableMapping[str, str]) -> None:
    """Drop every variable that may hold a secret, so that neither the SDK nor a child finds one."""
    for variable in [*environ]:
        ours = variable.startswith(SECRET_PREFIXES) or variable in {"DATABASE_URL", "O_SERIES_MAX_RETRIES"}
        if ours and variable != KEPT:
            del environ[variable]


def _not_allowed(field: str) -> str:
    variable, allowed = ALLOWED[field]
    return f"{variable}: {allowed}"


def _address_problems(settings: Settings) -> list[str]:
    problems = []
    addresses = (
        ("public_url", settings.public_origin),
        ("azure_endpoint", settings.azure),
        ("key_origins", settings.allowed_origins),
    )
    for field, read in addresses:
        try:
            read()
        except ValueError as error:
            problems.append(f"{_not_allowed(field)} ({error})")
            break
    return problems


def _together_problems(settings: Settings) -> list[str]:
    problems = []
    if settings.entra_scope and settings.azure_api_key:
        problems.append(_not_allowed("entra_scope"))
    if settings.entra_scope and not is_installed("azure.identity"):
        problems.append("MODEL_LEDGER_ENTRA_SCOPE: needs the extra `entra`, which is not installed")
    key = "entra_scope" if settings.entra_scope else "azure_api_key"
    azure = (key, "azure_endpoint", "azure_deployment")
    missing = [ALLOWED[field][0] for field in azure if getattr(settings, field) is None]
    if 0 < len(missing) < len(azure):
        given = [ALLOWED[field][0] for field in azure if getattr(settings, field) is not None]
        belong = f"{ALLOWED[key][0]}, AZURE_OPENAI_ENDPOINT and AZURE_OPENAI_DEPLOYMENT_NAME belong together"
        problems.append(f"{belong}: {', '.join(given)} given, {', '.join(missing)} missing")
    if settings.owner_database_url and not settings.database_url:
        problems.append(_not_allowed("owner_database_url"))
    return problems
