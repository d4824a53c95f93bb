"""The locks of the dependencies, and that nothing in the tree names the registry that they came from."""

import json
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
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


def requirements() -> dict[str, str]:
    """The lock's requirements by name, each with its hashes."""
    return {found["name"]: found["hashes"] for found in REQUIREMENT.finditer(LOCK)}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted() -> set[str]:
    """The names of all that pyproject.toml asks for, extras and groups included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lists = [
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    ]
    return {normal(re.split(r"[^\w.-]", text)[0]) for each in lists for text in each}


def test_every_requirement_is_pinned_and_has_hashes() -> None:
    left = REQUIREMENT.sub("", LOCK).split()
    assert left == [], "what is no pinned requirement with hashes"
    assert len(requirements()) > 50


def test_the_lock_holds_all_that_the_project_asks_for() -> None:
    assert wanted() - requirements().keys() == set()
    assert "litestar" in wanted()


def test_the_lock_names_no_address() -> None:
    assert ADDRESS.search(LOCK) is None
    assert [host for host in REGISTRIES if host in LOCK] == []


def test_locks_of_the_browsers_packages_name_no_address_and_have_hashes() -> None:
    names = ("package-lock.json", "npm-shrinkwrap.json")
    locks = {path: text for path, text in committed().items() if path.endswith(names)}
    assert list(locks) == ["src/web/ui/package-lock.json"]
    for path, text in locks.items():
        packages = json.loads(text)["packages"]
        for name, package in packages.items():
            assert "resolved" not in package, (path, name)
            assert not name or package.get("link") or package["integrity"].startswith("sha512-"), (path, name)


def test_nothing_in_the_tree_names_a_registry() -> None:
    named = {
        (path, host)
        for path, content in committed().items()
        for host in REGISTRIES
        if host.encode() in content
    }
    assert named == set()
