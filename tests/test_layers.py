"""Arrows point inward: a walk over every import of the project."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("gateway", "profiles")

#: What each part of ``gateway`` may import of the others. A part that is not here fails the test: say where it stands.
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "source": set(),
    "config": {"errors"},
    "caller": {"errors"},
    "identity": {"errors", "source"},
    "terminology": {"errors", "source"},
    "hl7v2": {"errors", "source", "terminology", "identity"},
    "imaging": {"errors", "source", "terminology", "identity"},
    "indexing": {"errors", "source", "terminology"},
    "fhir": {"errors", "source", "terminology"},
    "recognition": {"errors", "source", "terminology", "caller", "search", "store", "fhir", "config", "identity",
                    "indexing", "adapter"},
    "store": {"errors", "source", "config", "caller", "indexing", "fhir", "identity"},
    "search": {"errors", "source", "caller", "indexing", "fhir", "store", "terminology", "config"},
    "adapter": {"errors", "source", "terminology", "hl7v2", "imaging"},
    "conformance": {"errors", "source", "terminology", "hl7v2", "imaging", "adapter", "fhir"},
    "onboarding": {"errors", "source", "terminology", "identity", "hl7v2", "imaging", "adapter", "conformance"},
    "ordering": {"errors", "source", "config", "caller", "hl7v2", "adapter", "fhir", "store", "search", "recognition"},
    "pipeline": {"errors", "source", "config", "caller", "hl7v2", "imaging", "adapter", "fhir", "store", "recognition",
                 "ordering", "amending", "joining"},
    "joining": {"errors", "source", "caller", "terminology", "hl7v2", "fhir", "store", "search"},
    "amending": {"errors", "source", "fhir", "store"},
    "edges": {"errors", "source", "config", "caller", "hl7v2", "imaging", "adapter", "fhir", "store", "pipeline",
              "search", "recognition", "terminology", "identity", "indexing"},
    "supervisor": {"errors", "config", "store", "edges", "recognition"},
    "commands": {"errors", "source", "config", "caller", "hl7v2", "imaging", "adapter", "conformance", "fhir", "store",
                 "onboarding", "search", "pipeline", "edges", "supervisor", "terminology", "recognition"},
    "__main__": {"errors", "config", "commands"},
}
#: Only here may a library of a protocol or a database be named.
HOMES = {"flask": "edges", "werkzeug": "edges", "jinja2": "edges", "granian": "edges", "pynetdicom": "edges",
         "sqlalchemy": "store search", "sqlite3": "store", "psycopg": "store", "obstore": "store",
         "click": "commands __main__", "rich": "commands", "hl7apy": "conformance onboarding",
         "rapidfuzz": "onboarding", "pypinyin": "onboarding", "opencc": "onboarding"}
PURE = ("errors", "source", "caller", "identity", "terminology", "hl7v2", "imaging", "indexing", "adapter")
#: Files of other parts that are pure: what the map in the part's docstring says (``verdict.py   judge() …   pure``).
MAPPED = ("recognition", "onboarding")
IMPURE = {"socket", "time", "random", "secrets", "sqlalchemy", "sqlite3", "subprocess", "asyncio", "threading",
          "multiprocessing", "http", "requests", "httpx", "tempfile", "shutil", "signal", "select", "selectors"}
#: Calls that take a clock or a random, by the end of their name.
CLOCKS = ("datetime.now", "datetime.utcnow", "datetime.today", "date.today", "uuid.uuid4", "uuid.uuid1", "uuid4",
          "uuid1", "os.urandom")


@cache
def modules() -> dict[str, Path]:
    """Module name → file, of everything that is ours."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


@cache
def tree(name: str) -> ast.Module:
    """The module's syntax tree."""
    return ast.parse(modules()[name].read_text(encoding="utf-8"))


def imports(name: str) -> Iterator[str]:
    """Every module that one imports anywhere, also inside functions: ours by its exact name, others as written."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno} imports relatively; write the whole name"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in modules() else str(node.module)


def part(name: str) -> str:
    """``gateway.store.sqlite`` → ``store``."""
    return (name.split(".") + ["__init__"])[1]


OURS = [n for n in modules() if n.startswith("gateway.")]


def test_every_part_has_its_place() -> None:
    """A new module or folder of ``gateway`` names the arrows that it has."""
    assert {part(n) for n in OURS} - set(ARROWS) == set()


@pytest.mark.parametrize("name", OURS)
def test_arrows_point_inward(name: str) -> None:
    """A module imports only the parts that its own part may know, and never an adapter's folder."""
    known = ARROWS[part(name)] | {part(name), "__init__"}
    seen = [i for i in imports(name) if i == "gateway" or i.startswith(("gateway.", "adapters"))]
    outside = [i for i in seen if i.startswith("adapters") or part(i) not in known]
    assert outside == []


@pytest.mark.parametrize("name", OURS)
def test_each_library_has_its_home(name: str) -> None:
    """flask, granian and pynetdicom in edges, SQL in store and search, the command line's libraries in commands."""
    strange = [i for i in imports(name) if part(name) not in HOMES.get(i.split(".")[0], part(name)).split()]
    assert strange == []


def mapped(package: str) -> set[str]:
    """The modules of a part that the map in its docstring calls pure."""
    text = ast.get_docstring(tree(f"gateway.{package}")) or ""
    files = {line.split()[0] for line in text.splitlines() if line.strip() and line.split()[-1] == "pure"}
    return {f"gateway.{package}.{file.removesuffix('.py')}" for file in files}


PURE_FILES = set().union(*(mapped(package) for package in MAPPED)) & set(OURS)


def test_the_map_of_a_part_says_what_is_pure() -> None:
    """The maps are read at all: the rules of a verdict are among the pure files."""
    assert {f"gateway.recognition.{file}" for file in ("model", "rules", "coverage", "verdict", "orders")} <= PURE_FILES


@pytest.mark.parametrize("name", [n for n in OURS if part(n) in PURE or n in PURE_FILES])
def test_pure_parts_take_no_clock_no_random_and_no_socket(name: str) -> None:
    """Same input, same output: whatever such a part needs of the world comes in as a value."""
    assert [i for i in imports(name) if i.split(".")[0] in IMPURE] == []
    calls = [ast.unparse(n.func) for n in ast.walk(tree(name)) if isinstance(n, ast.Call)]
    assert [c for c in calls if c.endswith(CLOCKS)] == []


def test_no_module_imports_itself_by_a_detour() -> None:
    """There is no cycle, not even through an import inside a function; only the type checker may look back."""
    edges = {name: {i for i in _running_imports(name) if i in modules()} for name in modules()}
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> None:
        assert name not in path, " → ".join([*path[path.index(name):], name])
        if name in done:
            return
        path.append(name)
        for other in sorted(edges[name]):
            visit(other)
        path.pop()
        done.add(name)

    for name in sorted(edges):
        visit(name)


def _running_imports(name: str) -> Iterator[str]:
    checked = {id(inner) for node in ast.walk(tree(name)) if isinstance(node, ast.If)
               and ast.unparse(node.test).endswith("TYPE_CHECKING") for inner in ast.walk(node)}
    for node in ast.walk(tree(name)):
        if id(node) in checked or not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        for alias in node.names:
            inner = f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
            yield inner if inner in modules() or isinstance(node, ast.Import) else str(node.module)


@pytest.mark.parametrize("path", sorted((ROOT / "adapters").rglob("*.py")), ids=lambda p: "/".join(p.parts[-2:]))
def test_an_adapter_sees_gateway_adapter_only(path: Path) -> None:
    """A hospital's hooks know no HTTP, SQL, socket or file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else \
            [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name.split(".")[0] not in IMPURE | {"flask", "os", "pathlib", "pynetdicom", "granian"}
            assert not name.startswith("gateway") or name == "gateway.adapter"
