"""`huren catalogue`: load, diff and show."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest

from bench import catalogue as bench
from gateway.__main__ import main
from gateway.recognition import library
from gateway.recognition.tables import HEAD, Head
from gateway.recognition.versions import shipped
from tests.catalogue_samples import head, small

Run = Callable[..., tuple[int, str, str]]
SOON = date.today() + timedelta(days=2)


@pytest.fixture
def huren(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command in this process: exit status, standard output, standard error."""
    for name in [n for n in os.environ if n.startswith("HUREN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HUREN_DATA", str(tmp_path / "data"))

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    run("migrate")
    return run


def folder(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir(exist_ok=True)
    for name, raw in files.items():
        (path / name).write_bytes(raw)
    return path


def rows(out: str) -> list[list[str]]:
    return [line.split("\t") for line in out.splitlines()[1:]]


def test_a_folder_is_loaded_and_shown(huren: Run, tmp_path: Path) -> None:
    """443 items beside 427; other files of the folder are left alone; again, nothing changes."""
    path = folder(tmp_path / "new", bench.tables(SOON) | {"README.md": b"x"})
    status, out, _ = huren("catalogue", "load", path)
    assert (status, "443-items is loaded: 443 items" in out) == (0, True)
    assert "was loaded before" in huren("catalogue", "load", path)[1]
    _, out, _ = huren("catalogue", "show")
    assert [(r[0], r[1], r[2], r[3]) for r in rows(out)] == [
        (shipped().version, str(shipped().effective), "holds", "427"), ("443-items", str(SOON), "", "443")]


def test_the_command_s_own_generator_makes_a_version(huren: Run, tmp_path: Path) -> None:
    """``python -m bench.catalogue FOLDER`` and then ``huren catalogue load FOLDER``."""
    assert bench.main([str(tmp_path / "made"), SOON.isoformat()]) == 0
    assert huren("catalogue", "load", tmp_path / "made")[0] == 0


def test_a_dry_run_writes_nothing(huren: Run, tmp_path: Path) -> None:
    """It says what would be, and refuses what would be refused."""
    path = folder(tmp_path / "new", bench.tables(SOON))
    status, out, _ = huren("catalogue", "load", path, "--dry-run")
    assert (status, "can be loaded" in out) == (0, True)
    assert len(rows(huren("catalogue", "show")[1])) == 1
    bad = folder(tmp_path / "bad", small(catalogue=head("x", SOON), windows="*|30=>*|0"))
    assert huren("catalogue", "load", bad, "--dry-run")[0] == 1


def test_each_fault_is_a_line_on_standard_error(huren: Run, tmp_path: Path) -> None:
    """Table, line and sentence, all of them; nothing is loaded."""
    bad = folder(tmp_path / "bad", small(catalogue=head("x", SOON), windows="*|30=>*|0", prices="320.00=>NaN",
                                         coverage_edges="none=>full"))
    status, out, err = huren("catalogue", "load", bad)
    assert (status, out) == (1, "")
    assert [line.split(": ")[0] for line in err.splitlines()] == ["windows.tsv:2", "prices.tsv:2",
                                                                  "coverage-edges.tsv:2"]
    assert "ECT0149 → ECT0165 → ECT0149" in err
    assert huren("catalogue", "show", "x")[0] == 1


def test_one_table_is_enough(huren: Run, tmp_path: Path) -> None:
    """A file and options: everything else is the base's."""
    table = folder(tmp_path / "one", {"windows.tsv": b"scope\titem\tdays\n330100\t*\t14\n"}) / "windows.tsv"
    status, out, err = huren("catalogue", "load", table, "--version", "w14", "--effective", SOON, "--base",
                             shipped().version)
    assert (status, err) == (0, ""), err
    status, out, _ = huren("catalogue", "diff", shipped().version, "w14")
    assert (status, rows(out)) == (1, [["windows", "changed", "330100 *", "", "length 30 d → 14 d"]])
    status, _, err = huren("catalogue", "load", table)
    assert status == 1 and "there is no catalogue.toml" in err


def test_an_effective_day_on_the_command_line_wins(huren: Run, tmp_path: Path) -> None:
    """``--effective`` in place of the folder's own day."""
    path = folder(tmp_path / "new", bench.tables(SOON))
    later = SOON + timedelta(days=7)
    assert str(later) in huren("catalogue", "load", path, "--effective", later)[1]


def test_a_library_as_json_is_loaded(huren: Run, tmp_path: Path) -> None:
    """What the FHIR API takes, the command takes."""
    files = bench.tables(SOON)
    resource = library.library(Head("lib", SOON, "", shipped().version), files)
    (tmp_path / "lib.json").write_text(json.dumps(resource))
    assert huren("catalogue", "load", tmp_path / "lib.json")[0] == 0
    (tmp_path / "other.json").write_text('{"resourceType": "Patient"}')
    status, _, err = huren("catalogue", "load", tmp_path / "other.json")
    assert status == 1 and "no version of the catalogue" in err


def test_a_version_s_tables_can_be_written_out_and_loaded_again(huren: Run, tmp_path: Path) -> None:
    """The way of an editor: write out, change, load under another name; unchanged, nothing differs."""
    assert huren("catalogue", "show", shipped().version, "--tables", tmp_path / "out")[0] == 0
    assert huren("catalogue", "load", tmp_path / "out", "--version", "copy", "--effective", SOON)[0] == 0
    assert huren("catalogue", "diff", shipped().version, "copy")[:2] == (0, "table\tchange\tkey\tname\twhat\n")
    (tmp_path / "out" / HEAD).write_text(f'version = "copy2"\neffective = {SOON}\nbase = "copy"\n')
    assert huren("catalogue", "load", tmp_path / "out" / HEAD)[0] == 0
    assert huren("catalogue", "show", "copy2", "--tables", tmp_path / "again")[0] == 0
    for table in (tmp_path / "out").glob("*.tsv"):
        assert (tmp_path / "again" / table.name).read_bytes() == table.read_bytes()


def test_diff_names_what_changed(huren: Run, tmp_path: Path) -> None:
    """Added, removed and changed rows with their columns; folders and versions alike."""
    one = folder(tmp_path / "one", small())
    two = folder(tmp_path / "two", small(
        catalogue=head("t2", SOON), items="CT whole abdomen|30=>CT whole abdomen|14", negative="ECT0157|d=>ECT0149|d",
        prices="300|0.7=>310|0.7", institutions="b|乙||3301|\n=>b|乙|B|3301|2\n"))
    status, out, _ = huren("catalogue", "diff", one, two)
    assert (status, rows(out)) == (1, [
        ["items", "changed", "ECT0149", "全腹部CT平扫", "validity_days 30 → 14"],
        ["institutions", "changed", "b", "", "name_en (empty) → B, level 0 → 2"],
        ["negative", "added", "3301 * ECT0149", "全腹部CT平扫", ""],
        ["negative", "removed", "3301 * ECT0157", "全腹部CT平扫+增强", ""],
        ["prices", "changed", "3301 CT from 2026-07-01", "", "price 300 → 310"]])
    assert huren("catalogue", "diff", one, one)[0] == 0
    assert huren("catalogue", "diff", one, "nowhere")[0] == 1


def test_show_says_all_of_an_item(huren: Run) -> None:
    """Names, coverage, windows, prices and qualifications, of the version that holds or of another."""
    _, out, _ = huren("catalogue", "show", "--item", "ECT0165")
    said = {row[0]: row[1] for row in rows(out)}
    assert said["name zh"] == "上腹部CT平扫"
    assert said["windows"] == "scope 330100, item *, length 30 d"
    assert any(row[0] == "covered (full)" and "ECT0149" in row[1] for row in rows(out))
    assert any(row[0] == "prices" and "item CT" in row[1] for row in rows(out))
    assert any(row[0] == "qualifications" and "hz-demo-1" in row[1] for row in rows(out))
    assert "P-CBC" in huren("catalogue", "show", shipped().version, "--item", "P-CBC")[1]
    status, _, err = huren("catalogue", "show", "--item", "ECT9999")
    assert status == 1 and "no item or panel ECT9999" in err


def test_wrong_usage(huren: Run, tmp_path: Path) -> None:
    """A file that is no table, a Library with options: said before anything is opened."""
    (tmp_path / "x.tsv").write_text("a\n")
    assert "no table of the catalogue" in huren("catalogue", "load", tmp_path / "x.tsv")[2]
    assert huren("catalogue", "load", tmp_path / "missing")[0] == 2
    assert huren("catalogue", "load")[0] == 2
    (tmp_path / "l.json").write_text(json.dumps(library.library(Head("l", SOON), {})))
    assert huren("catalogue", "load", tmp_path / "l.json", "--version", "m")[0] == 2
