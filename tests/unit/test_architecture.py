"""The import rule beyond what the linter's contract can say."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"


def calls_of(module: Path, *names: str) -> set[str]:
    """The functions among `names` that a module calls, under any prefix."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            found |= {name} & set(names)
    return found


def test_only_the_ledger_decides() -> None:
    deciding = {
        str(module.relative_to(SOURCE))
        for module in SOURCE.rglob("*.py")
        if calls_of(module, "decide") and not module.is_relative_to(SOURCE / "domain")
    }
    assert deciding == {"application/ledger.py"}


def test_only_the_event_store_appends() -> None:
    appending = {
        str(module.relative_to(SOURCE))
        for module in SOURCE.rglob("*.py")
        if "ledger_append(" in module.read_text()
    }
    assert appending == {"infrastructure/event_store.py"}


def test_the_domain_imports_the_standard_library_and_msgspec_alone() -> None:
    import sys

    allowed = {*sys.stdlib_module_names, "msgspec", "domain"}
    for module in (SOURCE / "domain").glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            match node:
                case ast.Import(names=names):
                    imported = {name.name.partition(".")[0] for name in names}
                case ast.ImportFrom(module=str(name)):
                    imported = {name.partition(".")[0]}
                case _:
                    continue
            assert imported <= allowed, module
    assert {"asyncio", "random", "time", "secrets", "socket"}.isdisjoint(domain_imports())


def domain_imports() -> set[str]:
    """Everything that the domain imports at the top."""
    return {
        name.name
        for module in (SOURCE / "domain").glob("*.py")
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Import)
        for name in node.names
    }
