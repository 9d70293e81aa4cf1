"""`huren inbox show`: a message beside what became of each of its fields, for people and for programs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.config import SHIPPED_ADAPTERS, Settings
from gateway.pipeline import Pipeline
from gateway.store import open_store

RENMIN = SHIPPED_ADAPTERS / "renmin" / "examples"
Show = Callable[..., str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of a report, one without a code, bytes that are no message, a stranger's, a wrong status."""
    folder = tmp_path_factory.mktemp("inbox")
    store = open_store(Settings(data=folder), migrate=True)
    try:
        pipeline = Pipeline(Settings(data=folder), store)
        report = (RENMIN / "01-cbc-final.hl7").read_bytes()
        for raw in (report, (RENMIN / "09-no-order-code.hl7").read_bytes(), b"no message",
                    report.replace(b"DEMO1", b"OTHER"), report.replace(b"||||F|||", b"||||?|||", 1)):
            pipeline.receive_hl7(raw, "127.0.0.1:4000")
    finally:
        store.close()
    return folder


@pytest.fixture(scope="module")
def show(data: Path) -> Show:
    """Run `huren inbox show` and return what it prints."""
    def run(*arguments: object, columns: int = 0) -> str:
        terminal = {"COLUMNS": str(columns), "FORCE_COLOR": "1"} if columns else {}
        environment = {**os.environ, "HUREN_DATA": str(data), **terminal}
        done = subprocess.run([sys.executable, "-m", "gateway", "inbox", "show", *map(str, arguments)], check=True,
                              capture_output=True, env=environment)
        return done.stdout.decode()

    return run


def rows(text: str) -> dict[str, str]:
    """Place → what became of it."""
    return dict(line.split("\t", 1) for line in text.splitlines() if "\t" in line)


def test_each_field_stands_beside_what_became_of_it(show: Show) -> None:
    """Fields of all segments, equal ones of a repeated segment in one line, without a value of the message."""
    text = show(1)
    told = rows(text)
    assert told["OBX[1-23]-5"] == "→ Observation[1-23].valueQuantity.value"
    assert told["PID-7"] == "→ Patient.birthDate"
    assert told["PID-3.1"].startswith("→ Patient.id") and told["PID-3.1"].endswith("(required)")
    assert told["PV1-3.1"].startswith("kept: ")
    assert "which version is newer" in told["OBR-22"]
    raw = (RENMIN / "01-cbc-final.hl7").read_bytes().decode("gb18030")
    pid = next(line for line in raw.splitlines() if line.startswith("PID")).split("|")
    assert pid[5] not in text and pid[3].split("^")[0] not in text and pid[7] not in text
    assert "status:       stored" in text


@pytest.mark.parametrize("columns", [48, 80, 160])
def test_a_terminal_of_any_width_shows_all(show: Show, columns: int) -> None:
    """On a terminal the lines are folded to its width, and nothing is cut off."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", show(1, columns=columns))
    account = text[text.index("place"):text.index(" values: ")]
    assert max(map(len, account.splitlines())) <= columns
    squeezed = re.sub(r"\s", "", account)
    assert "Observation[1-23].valueQuantity.value" in squeezed and "DiagnosticReport.issued" in squeezed


def test_values_are_shown_on_request(show: Show) -> None:
    """With --values each field stands by itself with what was sent."""
    text = show(1, "--values")
    assert "OBX[1]-5\t" in text and "OBX[23]-5\t" in text
    raw = (RENMIN / "01-cbc-final.hl7").read_bytes().decode("gb18030")
    pid = next(line for line in raw.splitlines() if line.startswith("PID")).split("|")
    assert pid[7] in text


def test_fields_and_references_are_listed(show: Show) -> None:
    """With --fields nothing is put together, and each resource has its reference."""
    told = rows(show(1, "--fields"))
    assert told["OBX[2]-5"] == "→ Observation[2].valueQuantity.value"
    assert told["Observation[2]"].startswith("Observation/")


def test_facts_alone(show: Show) -> None:
    """With --facts it is quick: nothing is converted."""
    text = show(1, "--facts")
    assert "control id:" in text and "OBX" not in text


def test_a_program_reads_json(show: Show) -> None:
    """The same as JSON; values only on request."""
    made = json.loads(show(1, "--json"))
    assert made["status"] == "stored" and made["counts"]["used"] > 100
    one = next(field for field in made["fields"] if field["place"] == "OBX[3]-5")
    assert one == {"place": "OBX[3]-5", "fate": "used", "required": False,
                   "paths": ["Observation[3].valueQuantity.value"], "reason": ""}
    assert sum(made["counts"].values()) == len(made["fields"])
    assert made["resources"]["Observation[3]"].startswith("Observation/")
    assert "value" in json.loads(show(1, "--json", "--values"))["fields"][0]


def test_a_refused_message_shows_what_was_refused_and_where(show: Show) -> None:
    """A missing field is told as missing, a wrong one as refused; the rest is counted."""
    told = rows(show(2))
    assert told["OBR-4"].startswith("REFUSED: nothing was sent")
    assert "A refused message stays as it came" in show(2)
    assert [place for place, fate in rows(show(5)).items() if fate.startswith("REFUSED")] == ["OBX[1]-11"]
    assert json.loads(show(2, "--json"))["refusal"]["place"] == "OBR-4"


def test_what_cannot_be_read_says_why(show: Show) -> None:
    """Bytes that are no message, and a sender that no manifest names, have no account but a sentence."""
    assert "its fields are not told: MSH" in show(3)
    assert "its fields are not told: MSH-4" in show(4)


def test_the_original_is_what_was_sent(show: Show, data: Path) -> None:
    """What is kept nowhere else is kept here: the bytes of every message, stored or refused, are those that came."""
    store = open_store(Settings(data=data))
    try:
        for at, name in ((1, "01-cbc-final.hl7"), (2, "09-no-order-code.hl7")):
            row = store.inbox_show(at)
            assert row is not None and row.raw == (RENMIN / name).read_bytes()
    finally:
        store.close()
