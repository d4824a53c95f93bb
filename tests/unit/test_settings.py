"""The settings: what is read from where, what is refused and how that is told, what is forgotten."""

import subprocess
import sys

import pytest

from web.settings import ALLOWED, Settings, SettingsError, forget

CANARY = "c4n4ry-" + "x" * 40
AZURE = {
    "AZURE_OPENAI_API_KEY": CANARY,
    "AZURE_OPENAI_ENDPOINT": "https://contoso.openai.azure.com/",
    "AZURE_OPENAI_DEPLOYMENT_NAME": "gpt-4o",
}


def load(environ: dict[str, str] | None = None, /, **arguments: str | None) -> Settings:
    return Settings.load(environ or {}, arguments)


def refusal(environ: dict[str, str], /, **arguments: str | None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(environ, **arguments)
    return str(caught.value).splitlines()


# What is read


def test_without_any_variable_it_serves_on_loopback_with_one_worker_and_data_in_var() -> None:
    settings = load()
    assert (settings.host, settings.port, settings.workers, settings.data_dir) == (
        "127.0.0.1",
        8000,
        1,
        "var",
    )
    assert (settings.database_url, settings.admin_token, settings.azure()) == (None, None, None)
    assert settings.allowed_origins() == frozenset()


def test_the_public_address_is_an_origin() -> None:
    assert load().public_origin() is None
    told = {"https://Ledger.example.com/": "https://ledger.example.com", "http://[::1]:80": "http://[::1]"}
    for address, origin in told.items():
        assert load({"MODEL_LEDGER_PUBLIC_URL": address}).public_origin() == origin
    for address in (
        "ledger.example.com",
        "https://ledger.example.com/path",
        "https://user@ledger",
        "ftp://x",
    ):
        [problem] = refusal({"MODEL_LEDGER_PUBLIC_URL": address})
        assert problem.startswith("MODEL_LEDGER_PUBLIC_URL: the address that browsers use")


def test_every_setting_has_a_variable_of_its_own() -> None:
    of_opentelemetry = {"telemetry"}
    assert set(ALLOWED) == set(Settings.__struct_fields__) - of_opentelemetry
    assert len({variable for variable, _ in ALLOWED.values()}) == len(ALLOWED)


def test_every_variable_is_read() -> None:
    settings = load(
        {
            "MODEL_LEDGER_HOST": "::1",
            "MODEL_LEDGER_PORT": "1",
            "MODEL_LEDGER_WORKERS": "64",
            "MODEL_LEDGER_DATA_DIR": "/data",
            "DATABASE_URL": "postgresql://app:secret@db:5432/ledger",
            "MODEL_LEDGER_OWNER_DATABASE_URL": "postgres://owner@db/ledger",
            "MODEL_LEDGER_ADMIN_TOKEN": "t" * 32,
            **AZURE,
            "AZURE_OPENAI_API_VERSION": "2026-01-01",
            "O_SERIES_MAX_RETRIES": "0",
            "MODEL_LEDGER_KEY_ORIGINS": "https://a.example:8443/path, http://b.example",
            "MODEL_LEDGER_REQUIRE_IF_MATCH": "true",
            "MODEL_LEDGER_SNAPSHOT_HOURS": "72",
        }
    )
    assert (settings.host, settings.port, settings.workers, settings.data_dir) == ("::1", 1, 64, "/data")
    assert settings.database_url == "postgresql://app:secret@db:5432/ledger"
    assert settings.owner_database_url == "postgres://owner@db/ledger"
    assert settings.admin_token == "t" * 32
    assert settings.azure_api_key == CANARY
    assert (settings.azure_deployment, settings.azure_api_version) == ("gpt-4o", "2026-01-01")
    assert (settings.o_series_max_retries, settings.require_if_match) == (0, True)
    assert settings.snapshot_hours == 72
    azure = settings.azure()
    assert azure is not None
    assert azure.origin == "https://contoso.openai.azure.com"
    assert settings.allowed_origins() == {
        "https://a.example:8443",
        "http://b.example",
        "https://contoso.openai.azure.com",
    }


def test_the_api_version_and_the_retries_have_defaults() -> None:
    assert (load(AZURE).azure_api_version, load(AZURE).o_series_max_retries) == ("2025-01-01-preview", 3)


def test_a_snapshot_is_served_for_a_day_unless_told_otherwise() -> None:
    assert load().snapshot_hours == 24


def test_an_argument_wins_over_its_variable() -> None:
    given = {"MODEL_LEDGER_HOST": "0.0.0.0", "MODEL_LEDGER_PORT": "9000", "MODEL_LEDGER_WORKERS": "3"}
    settings = load(given, host="::1", port="9001", workers=None, data_dir="/elsewhere")
    assert (settings.host, settings.port, settings.workers, settings.data_dir) == (
        "::1",
        9001,
        3,
        "/elsewhere",
    )


def test_an_empty_or_blank_variable_counts_as_none() -> None:
    assert load(dict.fromkeys((variable for variable, _ in ALLOWED.values()), " ")) == load()


@pytest.mark.parametrize("word", ["null", "none", "true", "1"])
def test_a_text_that_looks_like_a_value_stays_a_text(word: str) -> None:
    assert load({**AZURE, "AZURE_OPENAI_DEPLOYMENT_NAME": word}).azure_deployment == word


@pytest.mark.parametrize(
    "token", ["x" * 32, "".join(map(chr, range(0x21, 0x7F))), "x" * 500], ids=["32", "printable", "500"]
)
def test_any_32_printable_characters_are_a_token(token: str) -> None:
    assert load({"MODEL_LEDGER_ADMIN_TOKEN": token}).admin_token == token


@pytest.mark.parametrize(
    "url",
    [
        "postgres://db",
        "postgresql:///ledger?host=/run/postgresql&port=5433",
        "postgresql://user@/ledger?host=/run/postgresql",
        "postgresql://user:p%2Fw%23%40:@db:5432/ledger?sslmode=verify-full",
        "postgresql://user@[::1]:5432/ledger",
        "postgresql://user@one:1,two:2/ledger?target_session_attrs=read-write",
        "postgresql://%2Frun%2Fpostgresql/ledger",
    ],
)
def test_every_way_to_name_a_database_is_taken(url: str) -> None:
    assert load({"DATABASE_URL": url}).database_url == url


# What is refused


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("MODEL_LEDGER_PORT", "0", "a port from 1 to 65535"),
        ("MODEL_LEDGER_PORT", "65536", "a port from 1 to 65535"),
        ("MODEL_LEDGER_PORT", "http", "a port from 1 to 65535"),
        ("MODEL_LEDGER_WORKERS", "0", "from 1 to 64"),
        ("MODEL_LEDGER_WORKERS", "65", "from 1 to 64"),
        ("MODEL_LEDGER_WORKERS", "two", "from 1 to 64"),
        ("MODEL_LEDGER_ADMIN_TOKEN", "x" * 31, "at least 32"),
        ("MODEL_LEDGER_ADMIN_TOKEN", "x" * 501, "at most 500"),
        ("MODEL_LEDGER_ADMIN_TOKEN", "x" * 31 + " x", "without spaces"),
        ("MODEL_LEDGER_ADMIN_TOKEN", "ü" * 32, "ASCII"),
        ("MODEL_LEDGER_ADMIN_TOKEN", "x" * 32 + "\ny", "printable"),
        ("DATABASE_URL", "mysql://user@db/ledger", "postgresql://"),
        ("DATABASE_URL", "db.example", "postgresql://"),
        ("DATABASE_URL", "postgresql://user@db:port/ledger", "postgresql://"),
        ("MODEL_LEDGER_KEY_ORIGINS", "contoso.openai.azure.com", "separated by commas"),
        ("MODEL_LEDGER_KEY_ORIGINS", "https://a.example;https://b.example", "separated by commas"),
        ("O_SERIES_MAX_RETRIES", "-1", "from 0 to 10"),
        ("O_SERIES_MAX_RETRIES", "11", "from 0 to 10"),
        ("AZURE_OPENAI_API_VERSION", "2025/01", "such as 2025-01-01-preview"),
        ("MODEL_LEDGER_REQUIRE_IF_MATCH", "perhaps", "true or false"),
        ("MODEL_LEDGER_SNAPSHOT_HOURS", "8761", "from 0 to 8760"),
        ("MODEL_LEDGER_SNAPSHOT_HOURS", "0.5", "from 0 to 8760"),
        ("MODEL_LEDGER_USAGE_DAYS", "-1", "from 0 to 3650"),
        ("MODEL_LEDGER_USAGE_DAYS", "3651", "from 0 to 3650"),
        ("MODEL_LEDGER_USAGE_DAYS", "1.5", "from 0 to 3650"),
    ],
)
def test_a_wrong_value_is_told_by_the_name_of_its_variable_and_what_is_allowed(
    variable: str, value: str, allowed: str
) -> None:
    (problem,) = refusal({variable: value})
    assert problem.startswith(f"{variable}: ")
    assert allowed in problem


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AZURE_OPENAI_ENDPOINT", "contoso.openai.azure.com"),
        ("AZURE_OPENAI_ENDPOINT", "https://user:password@contoso.openai.azure.com"),
        ("AZURE_OPENAI_ENDPOINT", "http://169.254.169.254"),
        ("AZURE_OPENAI_DEPLOYMENT_NAME", "gpt/4"),
        ("AZURE_OPENAI_API_KEY", "with a space"),
    ],
)
def test_a_wrong_azure_value_is_told_likewise(variable: str, value: str) -> None:
    (problem,) = refusal({**AZURE, variable: value})
    assert problem.startswith(f"{variable}: ")


def test_a_wrong_argument_is_told_like_its_variable() -> None:
    assert refusal({}, port="http") == ["MODEL_LEDGER_PORT: a port from 1 to 65535"]


def test_everything_that_is_wrong_is_told_at_once() -> None:
    problems = refusal({"MODEL_LEDGER_PORT": "x", "MODEL_LEDGER_WORKERS": "x", "DATABASE_URL": "x"})
    assert [problem.partition(":")[0] for problem in problems] == [
        "MODEL_LEDGER_PORT",
        "MODEL_LEDGER_WORKERS",
        "DATABASE_URL",
    ]


@pytest.mark.parametrize("missing", AZURE)
def test_an_incomplete_set_of_azure_variables_is_told_by_what_is_missing(missing: str) -> None:
    (problem,) = refusal({variable: value for variable, value in AZURE.items() if variable != missing})
    assert problem.endswith(f"{missing} missing")


def test_a_single_azure_variable_is_told_by_the_two_that_are_missing() -> None:
    (problem,) = refusal({"AZURE_OPENAI_API_KEY": CANARY})
    assert problem.endswith("AZURE_OPENAI_ENDPOINT, AZURE_OPENAI_DEPLOYMENT_NAME missing")


def test_the_owners_address_alone_is_not_enough() -> None:
    (problem,) = refusal({"MODEL_LEDGER_OWNER_DATABASE_URL": "postgresql://owner@db/ledger"})
    assert problem.startswith("MODEL_LEDGER_OWNER_DATABASE_URL: ")
    assert "DATABASE_URL" in problem.removeprefix("MODEL_LEDGER_OWNER_DATABASE_URL")


# What is never shown


@pytest.mark.parametrize(
    "environ",
    [
        {"MODEL_LEDGER_ADMIN_TOKEN": CANARY + " with a space"},
        {"AZURE_OPENAI_API_KEY": CANARY},
        {**AZURE, "AZURE_OPENAI_API_KEY": CANARY + "ü"},
        {**AZURE, "AZURE_OPENAI_ENDPOINT": CANARY},
        {**AZURE, "AZURE_OPENAI_ENDPOINT": f"https://user:{CANARY}@contoso.openai.azure.com"},
        {"DATABASE_URL": f"mysql://user:{CANARY}@db/ledger"},
        {"DATABASE_URL": f"postgresql://user:{CANARY}@db:port/ledger"},
        # A password that is not percent-encoded is taken for a host, a port, a database or an option.
        {"DATABASE_URL": f"postgresql://user:{CANARY}/half@db/ledger"},
        {"DATABASE_URL": f"postgresql://user:{CANARY}#half@db/ledger"},
        {"DATABASE_URL": f"postgresql://user:{CANARY}@half:x@db/ledger"},
        {"DATABASE_URL": f"postgresql://user:half@{CANARY}@db/ledger"},
        {"DATABASE_URL": f"postgresql://user:{CANARY}?half@db/ledger"},
        {"DATABASE_URL": f"postgresql://user:1/{CANARY}@db/ledger"},
        {"DATABASE_URL": f"postgresql://user:1?{CANARY}@db/ledger"},
        {"DATABASE_URL": f"postgresql://user:1?{CANARY}=1@db/ledger"},
        {"DATABASE_URL": f"postgresql://user:[{CANARY}@db/ledger"},
        {"MODEL_LEDGER_OWNER_DATABASE_URL": f"postgresql://user:{CANARY}@db/ledger"},
    ],
    ids=str,
)
def test_a_refusal_quotes_no_secret(environ: dict[str, str]) -> None:
    assert "c4n4ry" not in "\n".join(refusal(environ))


def test_the_settings_show_no_secret() -> None:
    secrets = {"DATABASE_URL": f"postgresql://user:{CANARY}@db/ledger", "MODEL_LEDGER_ADMIN_TOKEN": CANARY}
    settings = load({**AZURE, **secrets})
    assert CANARY not in repr(settings)
    assert CANARY not in f"{settings}"


# What is forgotten


def test_every_variable_of_ours_and_of_the_sdk_is_forgotten() -> None:
    environ = dict.fromkeys((variable for variable, _ in ALLOWED.values()), CANARY)
    environ |= {"OPENAI_API_KEY": CANARY, "OPENAI_ORG_ID": CANARY, "AZURE_OPENAI_AD_TOKEN": CANARY}
    environ["PATH"] = "/bin"
    forget(environ)
    assert environ == {"PATH": "/bin"}


def test_the_place_of_postgresqls_programs_is_kept_for_the_embedded_server() -> None:
    environ = {"MODEL_LEDGER_PG_BIN": "/opt/pg/bin"}
    forget(environ)
    assert environ == {"MODEL_LEDGER_PG_BIN": "/opt/pg/bin"}


def test_reading_the_settings_imports_none_of_the_application() -> None:
    code = "import sys, web.cli, web.settings; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "web.settings" in modules.split()
    assert {"litestar", "sqlalchemy", "openai", "uvicorn", "asyncpg"}.isdisjoint(modules.split())
