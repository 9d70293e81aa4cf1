"""The conformance suite: every rule over every hospital folder found. A new hospital adds no test file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway import conformance
from gateway.adapter import hospital_folders, load
from gateway.config import SHIPPED_ADAPTERS

FOLDERS = [folder for parent in [SHIPPED_ADAPTERS, Path(__file__).parent / "dialects",
                                 *filter(None, os.environ.get("HUREN_ADAPTERS", "").split(":"))]
           for folder in hospital_folders(Path(parent))]
EXAMPLES = [(folder, example) for folder in FOLDERS for example in conformance.examples(folder)]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_a_hospital_keeps_every_rule_or_says_why_not(folder: Path) -> None:
    """Each rule of the suite holds, or the manifest's [exempt] names it with a reason."""
    findings = [f for f in conformance.check(folder) if not f.exempt]
    assert findings == []


def test_no_two_hospitals_claim_one_sender() -> None:
    """A facility, application or AE title belongs to one folder."""
    assert conformance.check_together({f.parent for f in FOLDERS}) == []


@pytest.mark.parametrize(("folder", "example"), EXAMPLES, ids=lambda v: v.name if isinstance(v, Path) else v.path.name)
def test_the_official_models_accept_what_an_adapter_makes(folder: Path, example: conformance.Example) -> None:
    """fhir.resources reads every resource of an accepted example."""
    if not example.accepted:
        pytest.skip("this example is to be refused")
    from gateway.fhir import check

    for change in conformance.convert_example(load(folder), example.path).changes:
        assert check.judge(change.resource) == []


def test_a_scaffolded_hospital_loads_and_says_what_is_missing(tmp_path: Path) -> None:
    """`adapter new` gives a folder whose only findings are excused by its own manifest."""
    conformance.new(tmp_path / "tiantai")
    findings = conformance.check(tmp_path / "tiantai")
    assert findings and all(f.exempt for f in findings)


def test_a_wrong_golden_is_found(tmp_path: Path) -> None:
    """An expected file that differs in one character is a finding of examples-convert-as-written."""
    import shutil

    folder = tmp_path / "renmin"
    shutil.copytree(SHIPPED_ADAPTERS / "renmin", folder)
    expected = next(e.expected for e in conformance.examples(folder) if e.accepted)
    expected.write_text(expected.read_text(encoding="utf-8").replace("final", "amended", 1), encoding="utf-8")
    assert {f.rule for f in conformance.check(folder)} == {"examples-convert-as-written"}


def test_an_unknown_manifest_key_is_refused_with_its_nearest_name(tmp_path: Path) -> None:
    """A typo in a manifest stops the load and names the key that was meant."""
    conformance.new(tmp_path / "x1")
    manifest = tmp_path / "x1" / "manifest.toml"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace("sending_facility", "sending_facilty"), encoding="utf-8")
    [finding] = conformance.check(tmp_path / "x1")
    assert "did you mean 'sending_facility'?" in finding.message


def test_hooks_may_not_reach_outside(tmp_path: Path) -> None:
    """A hook that imports sockets or SQL is a finding with its line."""
    conformance.new(tmp_path / "x2")
    (tmp_path / "x2" / "hooks.py").write_text("import socket\n", encoding="utf-8")
    assert ("hooks-stay-inside", "hooks.py:1") in {(f.rule, f.where) for f in conformance.check(tmp_path / "x2")}
