"""OpenTelemetry's variables: when something is sent, and what is refused."""

import pytest

from web.settings import Settings, SettingsError, forget
from web.telemetry_settings import Telemetry

COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


def load(**environ: str) -> Telemetry:
    return Settings.load(environ, {}).telemetry


def problem(**environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(**environ)
    (told,) = str(caught.value).splitlines()
    return told


@pytest.mark.parametrize(
    ("environ", "traces", "metrics"),
    [
        ({}, False, False),
        ({"OTEL_SERVICE_NAME": "ours", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False, False),
        (COLLECTOR, True, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False, False),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://otel.example/v1/traces"}, True, False),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "https://otel.example/v1/metrics"}, False, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True, False),
        ({**COLLECTOR, "OTEL_METRICS_EXPORTER": "none"}, True, False),
        ({**COLLECTOR, "OTEL_METRICS_EXPORTER": "none", "OTEL_TRACES_EXPORTER": "none"}, False, False),
        ({**COLLECTOR, "OTEL_SDK_DISABLED": "True"}, False, False),
    ],
    ids=str,
)
def test_a_signal_is_sent_when_its_exporter_or_an_endpoint_is_named(
    environ: dict[str, str], *, traces: bool, metrics: bool
) -> None:
    telemetry = load(**environ)
    assert (telemetry.traces, telemetry.metrics) == (traces, metrics)
    assert bool(telemetry.variables) == (traces or metrics)


def test_the_sdk_gets_all_of_its_variables_and_no_other() -> None:
    given = {**COLLECTOR, "OTEL_SERVICE_NAME": "ours", "OTEL_WHAT_WILL_BE": "x"}
    assert load(**given, PATH="/bin").variables == given


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_METRICS_EXPORTER", "prometheus"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://user:c4n4ry@otel.example"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://otel.example/v1/traces?key=c4n4ry"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "c4n4ry"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_TRACES_SAMPLER", "xray"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "-1"),
    ],
)
def test_a_value_that_is_not_supported_stops_the_start_and_is_not_quoted(variable: str, value: str) -> None:
    told = problem(**{**COLLECTOR, variable: value})
    assert told.startswith(f"{variable}: ")
    assert "c4n4ry" not in told


def test_a_queue_has_room_for_a_batch() -> None:
    assert problem(**COLLECTOR, OTEL_BSP_MAX_QUEUE_SIZE="100").startswith("OTEL_BSP_MAX_EXPORT_BATCH_SIZE: ")
    load(**COLLECTOR, OTEL_BSP_MAX_QUEUE_SIZE="100", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="100")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=abc, x-team=a%20b"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://otel.example:4318/below/"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2.5"),
    ],
)
def test_values_of_the_standard_are_taken(variable: str, value: str) -> None:
    assert load(**{**COLLECTOR, variable: value}).variables[variable] == value


def test_it_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.telemetry_settings.is_installed", lambda package: package != "opentelemetry.sdk")
    assert "the extra `otel`" in problem(**COLLECTOR)
    assert load() == Telemetry()


def test_nothing_shows_the_variables_and_no_child_inherits_them() -> None:
    environ = {**COLLECTOR, "OTEL_EXPORTER_OTLP_HEADERS": "api-key=c4n4ry", "PATH": "/bin"}
    settings = Settings.load(environ, {})
    assert "c4n4ry" not in f"{settings!r} {settings.telemetry!r}"
    forget(environ)
    assert environ == {"PATH": "/bin"}
