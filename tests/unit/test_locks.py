"""The locks of the dependencies, and that nothing in the tree names the registry that they came from."""

import json
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLIENTS = "tests/e2e/clients"
LOCKS = ["requirements.lock", f"{CLIENTS}/requirements.lock"]
# In pieces, so that this file does not name them itself.
REGISTRIES = [
    ".".join(labels)
    for labels in (
        ("pypi", "org"),
        ("pypi", "python", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("yarnpkg", "com"),
        ("anaconda", "org"),
        ("pkg", "dev"),
    )
]
ADDRESS = re.compile(
    r"[a-z][a-z0-9+.-]*://|--(extra-)?index-url|--find-links|--trusted-host| @ ", re.IGNORECASE
)
REQUIREMENT = re.compile(
    r"(?P<name>[a-z0-9-]+)==[^ ;]+( ; [^\\]+)?(?P<hashes>( \\\n    --hash=sha256:[0-9a-f]{64})+)"
)


@cache
def committed() -> dict[str, bytes]:
    """What a commit of the tree as it is would hold, by path."""
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    kinds = ("--cached", "--others", "--exclude-standard")
    listed = subprocess.run([*command, *kinds], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = [path for path in listed.split("\0") if (ROOT / path).is_file()]
    assert {"pyproject.toml", "requirements.lock", "Makefile", "tests/unit/test_locks.py"} <= {*paths}
    return {path: (ROOT / path).read_bytes() for path in paths}


def requirements(lock: str) -> set[str]:
    """The names of all that a lock pins, with hashes."""
    return {found["name"] for found in REQUIREMENT.finditer((ROOT / lock).read_text())}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted() -> dict[str, set[str]]:
    """The names that each lock is made from; of pyproject.toml with all extras and groups."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lists = [
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    ]
    of_clients = (ROOT / CLIENTS / "requirements.in").read_text().splitlines()
    texts = [[text for each in lists for text in each], of_clients]
    return {
        lock: {normal(re.split(r"[^\w.-]", text)[0]) for text in each}
        for lock, each in zip(LOCKS, texts, strict=True)
    }


def test_there_is_no_lock_that_is_not_looked_at() -> None:
    assert {path for path in committed() if path.endswith(".lock")} == {*LOCKS}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_pinned_and_has_hashes(lock: str) -> None:
    left = REQUIREMENT.sub("", (ROOT / lock).read_text()).split()
    assert left == [], "what is no pinned requirement with hashes"
    assert len(requirements(lock)) > 20


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_all_that_it_was_made_from(lock: str) -> None:
    assert wanted()[lock]
    assert wanted()[lock] - requirements(lock) == set()


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert ADDRESS.search(text) is None
    assert [host for host in REGISTRIES if host in text] == []


def test_locks_of_npm_name_no_address_and_have_hashes() -> None:
    names = ("package-lock.json", "npm-shrinkwrap.json")
    locks = {path: text for path, text in committed().items() if path.endswith(names)}
    assert {*locks} == {f"{CLIENTS}/package-lock.json", "src/web/ui/package-lock.json"}
    for path, text in locks.items():
        packages = json.loads(text)["packages"]
        for name, package in packages.items():
            assert "resolved" not in package, (path, name)
            assert not name or package.get("link") or package["integrity"].startswith("sha512-"), (path, name)
        manifest = json.loads((ROOT / path).with_name("package.json").read_text())
        assert packages[""]["dependencies"] == manifest["dependencies"], "made from another package.json"


def test_nothing_in_the_tree_names_a_registry() -> None:
    named = {
        (path, host)
        for path, content in committed().items()
        for host in REGISTRIES
        if host.encode() in content
    }
    assert named == set()
