"""What an address, an id and a reason may be."""

import pytest
from scenario import told

from domain.errors import InvalidInput
from domain.values import REASON_LIMIT, Origin, parse_endpoint, parse_model_id, parse_reason

# Addresses

ORIGIN_OF = {
    "https://north.openai.azure.com": "https://north.openai.azure.com",
    "https://north.openai.azure.com/": "https://north.openai.azure.com",
    "https://NORTH.OpenAI.Azure.COM": "https://north.openai.azure.com",
    "https://north.openai.azure.com.": "https://north.openai.azure.com",
    "https://north.openai.azure.com:443": "https://north.openai.azure.com",
    "https://north.openai.azure.com:8443/x": "https://north.openai.azure.com:8443",
    "http://north.openai.azure.com:443": "http://north.openai.azure.com:443",
    "http://localhost": "http://localhost",
    "http://localhost:80/v1/": "http://localhost",
    "http://localhost:11434/v1": "http://localhost:11434",
    "http://127.0.0.1:1": "http://127.0.0.1:1",
    "http://10.0.0.1:65535": "http://10.0.0.1:65535",
    "http://192.168.1.20/a/b": "http://192.168.1.20",
    "http://[::1]:8080": "http://[::1]:8080",
    "http://[0:0:0:0:0:0:0:1]:80/": "http://[::1]",
    "https://[2001:DB8::1]": "https://[2001:db8::1]",
    "https://xn--mnchen-3ya.example": "https://xn--mnchen-3ya.example",
    "http://model_server:9000": "http://model_server:9000",
    "https://a.example/v1/;x=1,2/~b/!$&'()*+": "https://a.example",
    "https://a.example/@home": "https://a.example",
    "https://1password.example": "https://1password.example",
    "https://" + ".".join(["a" * 63] * 3): "https://" + ".".join(["a" * 63] * 3),
}


@pytest.mark.parametrize(("url", "origin"), ORIGIN_OF.items())
def test_an_address_has_an_origin(url: str, origin: str) -> None:
    endpoint = parse_endpoint(url)
    assert (endpoint.url, endpoint.origin) == (url, Origin(origin))


def test_the_path_of_an_address_ends_without_a_slash() -> None:
    assert parse_endpoint("https://a.example/v1//").path == "/v1"
    assert parse_endpoint("https://a.example/").path == ""


REFUSED = {
    "no address": ["", " ", "a", "a.example", "//a.example", "/v1", "https:", "https:/a.example", "https://"],
    "another scheme": [
        "ftp://a.example",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "ws://a.example",
        "unix:///run/s",
        "HTTPS://a.example",
        "https:a.example",
    ],
    "a user name": [
        "https://user@a.example",
        "https://user:key@a.example",
        "https://a.example:443@evil.example",
        "https://@a.example",
        "https://a.example%40evil.example",
    ],
    "a query or a fragment": [
        "https://a.example?",
        "https://a.example?api-version=1",
        "https://a.example/#",
        "https://a.example#@evil.example",
        "https://a.example/v1?x#y",
    ],
    "characters that parsers disagree about": [
        "https://a.example\\@evil.example",
        "https:\\\\a.example",
        "https://a.example\\.evil.example",
        " https://a.example",
        "https://a.example ",
        "https://a. example",
        "https://a.example/\t",
        "https://a.exa\nmple",
        "https://a.example\r\nHost: evil.example",
        "https://a.example/%0d%0aX: y",
        "https://a.example/\x00",
        "https://a.example/\x7f",
        "https://a.example/\u2028",
        'https://a.example/"',
        "https://a.example/<x>",
        "https://a.example/{x}",
        "https://a.example/`",
        "https://a.example/|",
        "https://a.example/^",
    ],
    "a name that is no ASCII": [
        "https://münchen.example",
        "https://ａ.example",
        "https://a。example",
        "https://аpi.openai.com",  # a Cyrillic a
        "https://a.example\u202e",
        "https://a℀.example",
    ],
    "a path with dots or escapes": [
        "https://a.example/../v1",
        "https://a.example/v1/..",
        "https://a.example/./v1",
        "https://a.example/%2e%2e/v1",
        "https://a.example/v1%2Fx",
        "https://a.example/%41",
    ],
    "a bad port": [
        "https://a.example:0",
        "https://a.example:00",
        "https://a.example:",
        "https://a.example:/v1",
        "https://a.example:65536",
        "https://a.example:99999",
        "https://a.example:-1",
        "https://a.example:+1",
        "https://a.example:8o",
        "https://a.example:80:80",
        "https://a.example:٤٤٣",
        "https://a.example:" + "9" * 1_900,
    ],
    "a bad host": [
        "https://.",
        "https://..",
        "https:///v1",
        "https://:443",
        "https://.a.example",
        "https://a..example",
        "https://a.example..",
        "https://-a.example",
        "https://a-.example",
        "https://a.example%00",
        "https://a%2eexample",
        "https://*.example",
        "https://" + "a" * 64 + ".example",
        "https://" + ".".join(["a" * 63] * 4),
        "https://a.example/" + "a" * 2_000,
    ],
    "brackets without an IPv6 address": [
        "https://[a.example]",
        "https://[127.0.0.1]",
        "https://[::1",
        "https://::1]",
        "https://::1",
        "https://[]",
        "https://[v1.api.openai.com]",
        "https://[v7.x]:443",
        "https://evil.example[::1]",
        "https://[::1]evil.example",
        "https://[::1]8080",
        "https://[::1].",
        "https://[[::1]]",
        "https://[::1][::2]",
        "https://[:::1]",
        "https://[::12345]",
    ],
    "a zone": ["http://[fe80::1%eth0]", "http://[::1%25lo]", "http://[2001:db8::1%251]"],
    "an IPv4 address in another writing": [
        "http://2130706433",
        "http://0x7f000001",
        "http://0x7f.0.0.1",
        "http://127.1",
        "http://127.0.1",
        "http://0177.0.0.1",
        "http://127.0.0.01",
        "http://127.0.0.0x1",
        "http://127.0.0.1.1",
        "http://256.1.1.1",
        "http://a.0x",
    ],
    "link-local and metadata": [
        "http://169.254.169.254",
        "http://169.254.169.254.",
        "http://169.254.169.254/latest/meta-data",
        "http://169.254.0.1:8080",
        "http://[fe80::1]",
        "http://[febf::1]",
        "http://[fd00:ec2::254]",
        "http://[FD00:0EC2:0:0::254]",
        "http://100.100.100.200",
        "http://metadata.google.internal",
        "http://METADATA.google.internal.",
        "http://metadata",
        "http://instance-data",
    ],
    "an IPv4 address in IPv6 that is refused by itself": [
        "http://[::ffff:169.254.169.254]",
        "http://[::ffff:a9fe:a9fe]",
        "http://[::169.254.169.254]",
        "http://[64:ff9b::169.254.169.254]",
        "http://[64:ff9b::a9fe:a9fe]",
        "http://[2002:a9fe:a9fe::1]",
        "http://[::ffff:0.0.0.0]",
        "http://[::ffff:100.100.100.200]",
        "http://[::ffff:255.255.255.255]",
    ],
    "an address that nobody lives at": [
        "http://0.0.0.0",
        "http://[::]",
        "http://224.0.0.1",
        "http://239.255.255.255",
        "http://255.255.255.255",
        "http://[ff02::1]",
    ],
}


@pytest.mark.parametrize(
    "url",
    [pytest.param(url, id=f"{why}: {url[:60]!a}") for why, urls in REFUSED.items() for url in urls],
)
def test_what_is_no_providers_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_endpoint(url)


def test_the_corpus_of_addresses_is_large() -> None:
    assert len({url for urls in REFUSED.values() for url in urls}) >= 120


@pytest.mark.parametrize(
    "url",
    ["http://[::ffff:10.0.0.1]", "http://[64:ff9b::10.0.0.1]", "http://[2002:a00:1::1]", "http://[::1]"],
)
def test_an_ipv6_address_that_means_a_plain_ipv4_one_is_accepted(url: str) -> None:
    assert parse_endpoint(url).origin.startswith("http://[")


# Ids


@pytest.mark.parametrize(
    "text", ["a", "A", "0", "gpt-4", "gpt-4.1-mini", "o3", "qwen2.5:7b", "a_b", "a.", "a..b", "x" * 128]
)
def test_an_id_is_a_plain_word(text: str) -> None:
    assert parse_model_id(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ".",
        "..",
        "-a",
        "_a",
        ":a",
        "a b",
        " a",
        "a ",
        "a\n",
        "a\r\nb",
        "a\x00",
        "a/b",
        "a\\b",
        "a%2Fb",
        "a?b",
        "a#b",
        "a@b",
        "a+b",
        "é",
        "ａ",
        "٤",
        "模型",
        "a\u200b",
        "x" * 129,
    ],
)
def test_what_is_no_plain_word_is_no_id(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_model_id(text)
    assert told(refused.value.problems) == ["/model_id invalid_id"]


def test_a_refused_id_is_told_where_it_stood() -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_model_id("a/b", "/new_default")
    assert told(refused.value.problems) == ["/new_default invalid_id"]


# Reasons


@pytest.mark.parametrize("text", [None, "", "  ", "\u3000"])
def test_a_blank_reason_is_none(text: str | None) -> None:
    assert parse_reason(text) is None


def test_a_reason_is_kept_as_it_was_written() -> None:
    assert parse_reason(" Kosten – siehe #12 👍 ") == " Kosten – siehe #12 👍 "
    assert parse_reason("x" * REASON_LIMIT) == "x" * REASON_LIMIT


@pytest.mark.parametrize("text", ["a\nb", "a\x00", "\x1b[0m x", "a\ud800", "x" * (REASON_LIMIT + 1)])
def test_a_reason_has_no_control_characters_and_a_limit(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_reason(text)
    assert told(refused.value.problems) == ["/reason invalid_text"]
