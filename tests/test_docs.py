"""The manuals are true: commands, settings and paths that they name exist, and the README's five minutes run."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from bench import gateway
from gateway import config
from gateway.__main__ import cli

ROOT = Path(__file__).parents[1]
READMES = [p for p in ROOT.rglob("README.md") if not {".venv", "node_modules", ".pytest_cache"} & set(p.parts)]


def test_every_folder_of_the_map_has_its_manual() -> None:
    """The root README's map names folders that exist, and each manual that it links is there."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", readme)
    assert links and [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("readme", READMES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_manuals_lead_somewhere(readme: Path) -> None:
    """A relative link of a manual points to a file or folder that is there."""
    links = re.findall(r"\]\(([^)#:\s]+)\)", readme.read_text(encoding="utf-8"))
    assert [link for link in links if not (readme.parent / link).exists()] == []


def test_every_setting_has_its_line_in_the_manual() -> None:
    """Each field of Settings stands in gateway/README.md by its variable, and no variable there is unknown."""
    manual = (ROOT / "gateway" / "README.md").read_text(encoding="utf-8")
    known = {config.PREFIX + f.name.upper() for f in fields(config.Settings)} - {"HUREN_DEMO"}
    named = set(re.findall(r"\bHUREN_[A-Z0-9_]+\b", manual))
    assert known - named == set()
    assert {n for n in named - known if not n.startswith("HUREN_TEST") and not n.endswith("_")} == set()


def test_every_command_has_its_line_in_the_manual() -> None:
    """Each command of the command line stands in gateway/README.md."""
    manual = (ROOT / "gateway" / "README.md").read_text(encoding="utf-8")
    assert [name for name in cli.commands if f"huren {name}" not in manual] == []


def test_every_rule_of_the_suite_has_its_line_in_the_manual() -> None:
    """Each conformance rule stands in adapters/README.md."""
    from gateway.conformance import RULES

    manual = (ROOT / "adapters" / "README.md").read_text(encoding="utf-8")
    assert [name for name in RULES if f"`{name}`" not in manual] == []


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gateway.Gateway]:
    """`huren serve --demo` on free ports, its examples sent."""
    with gateway.demo(tmp_path_factory.mktemp("demo")) as g:
        yield g


def _lines() -> list[str]:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    part = readme.partition("## Five minutes by hand")[2].partition("\n## ")[0]
    return [line for block in re.findall(r"```sh\n(.*?)```", part, re.S) for line in block.splitlines()
            if line and not line.startswith(". ")]


@pytest.mark.long
@pytest.mark.parametrize("line", _lines())
def test_the_five_minutes_of_the_readme_run(demo: gateway.Gateway, line: str) -> None:
    """Each command of the README's five minutes does what the text around it says."""
    for default, port in (("8080", demo.http), ("2575", demo.mllp), ("11112", demo.dimse)):
        line = line.replace(f"127.0.0.1:{default}", f"127.0.0.1:{port}")
    env = {k: v for k, v in os.environ.items() if not k.startswith("HUREN_")} | {"HUREN_DATA": str(demo.data)}
    env["PATH"] = f"{gateway.BIN}:{env['PATH']}"
    done = subprocess.run(["bash", "-ec", line], env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    for command, said in (("_sort=-date", "血常规"), ("_summary=count", '"total":2'), ("|| echo", "refused"),
                          ("inbox list", "OBR-4")):
        if command in line:
            assert said in done.stdout.replace('"total": 2', '"total":2'), done.stdout


@pytest.mark.long
def test_the_reports_of_the_five_minutes_come_from_three_hospitals(demo: gateway.Gateway) -> None:
    """The README's first question is answered by all three demo hospitals."""
    import json
    import urllib.request

    url = f"http://127.0.0.1:{demo.http}/fhir/DiagnosticReport?patient.identifier=330101195803129010"
    with urllib.request.urlopen(url) as answer:
        sources = {e["resource"]["meta"]["source"] for e in json.load(answer)["entry"]}
    assert sources == {f"urn:huren:hz-demo-{n}" for n in (1, 2, 3)}
