"""OpenTelemetry's standard variables: whether they ask for anything, and what they may be here."""

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from web.extras import is_installed

PREFIX: Final = "OTEL_"
SIGNALS: Final = ("TRACES", "METRICS")
OF_SIGNAL: Final = "(TRACES_|METRICS_)?"
COUNT: Final = (r"[1-9]\d{0,8}", "a whole number above 0")
QUEUE: Final = "OTEL_BSP_MAX_QUEUE_SIZE"
BATCH: Final = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
PACKAGES: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")

FORMS: Final = tuple(
    (re.compile(variable), re.compile(form, re.ASCII), allowed)
    for variable, form, allowed in (
        ("OTEL_(TRACES|METRICS)_EXPORTER", "otlp|none", "otlp or none"),
        (f"OTEL_EXPORTER_OTLP_{OF_SIGNAL}PROTOCOL", "http/protobuf", "http/protobuf"),
        (
            f"OTEL_EXPORTER_OTLP_{OF_SIGNAL}ENDPOINT",
            r"https?://[^\s/?#@]+(/[^\s?#]*)?",
            "a collector's address such as http://127.0.0.1:4318, without a password or a query",
        ),
        (
            f"OTEL_EXPORTER_OTLP_{OF_SIGNAL}HEADERS",
            r"[^\s=,]+=[^,]*(,\s*[^\s=,]+=[^,]*)*",
            "headers as name=value, separated by commas",
        ),
        (f"OTEL_EXPORTER_OTLP_{OF_SIGNAL}COMPRESSION", "none|gzip|deflate", "none, gzip or deflate"),
        (f"OTEL_EXPORTER_OTLP_{OF_SIGNAL}TIMEOUT", r"\d{1,6}(\.\d+)?", "a number of seconds"),
        (
            "OTEL_TRACES_SAMPLER",
            "(parentbased_)?(always_on|always_off|traceidratio)",
            "always_on, always_off or traceidratio, each also after parentbased_",
        ),
        ("OTEL_TRACES_SAMPLER_ARG", r"0(\.\d+)?|1(\.0+)?", "a number from 0 to 1"),
        (f"{QUEUE}|{BATCH}|OTEL_BSP_(SCHEDULE_DELAY|EXPORT_TIMEOUT)", *COUNT),
        ("OTEL_METRIC_EXPORT_(INTERVAL|TIMEOUT)", *COUNT),
    )
)
"""By variable: its form, and that in words. All others are the SDK's own matter."""


class Telemetry(Struct, frozen=True):
    """What goes to a collector; nothing, as a rule."""

    traces: bool = False
    metrics: bool = False
    variables: Mapping[str, str] = {}
    """All of OpenTelemetry's, for the SDK. They may hold a secret."""

    def __repr__(self) -> str:
        """Without the variables."""
        return f"Telemetry(traces={self.traces}, metrics={self.metrics})"


def read_telemetry(environ: Mapping[str, str]) -> Telemetry:
    """Read the variables, unchecked.

    A signal is sent when its exporter is named, or none is and there is an endpoint for it.
    """
    given = {
        name: text for name, value in environ.items() if name.startswith(PREFIX) and (text := value.strip())
    }
    traces, metrics = (_is_sent(signal, given) for signal in SIGNALS)
    return Telemetry(traces, metrics, given) if traces or metrics else Telemetry()


def telemetry_problems(telemetry: Telemetry) -> list[str]:
    """All that does not allow a start, by variable; none when nothing is to be sent."""
    given = telemetry.variables
    problems = [
        f"{name}: {allowed}"
        for name in sorted(given)
        for variable, form, allowed in FORMS
        if variable.fullmatch(name) and not form.fullmatch(given[name])
    ]
    if not problems and int(given.get(BATCH, 512)) > int(given.get(QUEUE, 2_048)):
        problems.append(f"{BATCH}: at most {QUEUE}; 512 and 2048 unless they are set")
    if given and not all(map(is_installed, PACKAGES)):
        problems.append("OTEL_EXPORTER_OTLP_ENDPOINT: needs the extra `otel`, which is not installed")
    return problems


def _is_sent(signal: str, given: Mapping[str, str]) -> bool:
    if given.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    default = "otlp" if any(name in given for name in endpoints) else "none"
    return given.get(f"OTEL_{signal}_EXPORTER", default) != "none"
