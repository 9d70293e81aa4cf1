"""The command line: exit status, one sentence for an error, sending, adapter folders."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pynetdicom import AE, AllStoragePresentationContexts, evt

from gateway.__main__ import _COMMANDS, main
from gateway.commands.send import find, kind_of
from gateway.config import SHIPPED_ADAPTERS, Settings, load
from gateway.edges.mllp import Listener
from gateway.pipeline import Pipeline
from gateway.store import open_store
from gateway.store.model import Receipt
from tests.mllp_peers import Whole

Run = Callable[..., tuple[int, str, str]]
ORU = "MSH|^~\\&|LIS|LAB1|||20260101||ORU^R01|{}|P|2.5.1\rOBX|1|NM|K||4.1\r"


@pytest.fixture
def huren(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command in this process: exit status, standard output, standard error."""
    for name in [n for n in os.environ if n.startswith("HUREN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HUREN_DATA", str(tmp_path / "data"))

    def run(*arguments: object, **environ: str) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            for name, value in environ.items():
                patch.setenv(name, value)
            capsys.readouterr()
            with pytest.raises(SystemExit) as end:
                main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return run


@contextmanager
def mllp(receive: Pipeline | Callable[[bytes, str], Receipt]) -> Iterator[str]:
    """A receiver of HL7v2; its address."""
    listener = Listener(Settings(mllp="127.0.0.1:0"), receive if isinstance(receive, Pipeline) else Whole(receive))
    listener.start()
    try:
        yield "{}:{}".format(*listener.address)
    finally:
        listener.drain(5)


# -------------------------------------------------------------------------------------------------- usage

def test_help_names_every_command_and_imports_none_of_them() -> None:
    """`huren --help` is quick: no command's module, no Flask, no SQL, no DICOM is imported."""
    script = ("import sys\nfrom gateway.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
              "print(sorted(m for m in sys.modules if m.split('.')[0] in "
              "('flask','sqlalchemy','pydicom','pynetdicom','granian','rich') or m.startswith('gateway.commands')))")
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.endswith("[]\n") and all(f"  {name} " in run.stdout for name in _COMMANDS)


@pytest.mark.parametrize("command", _COMMANDS)
def test_every_command_has_help(huren: Run, command: str) -> None:
    """`huren COMMAND --help` says what it does."""
    status, out, _ = huren(command, "--help")
    assert status == 0 and out.startswith(f"Usage: huren {command}")


def test_version(huren: Run) -> None:
    """`huren --version` names program and version."""
    from gateway import __version__

    assert huren("--version") == (0, f"huren {__version__}\n", "")


@pytest.mark.parametrize("arguments", [("sreve",), ("send",), ("serve", "ftp"), ("inbox", "replay"),
                                       ("send", "/no/such/file"), ("serve", "mllp", "--demo")])
def test_wrong_usage_is_status_2_and_one_sentence(huren: Run, arguments: tuple[str, ...]) -> None:
    """Nothing on standard output, the sentence and where to look on standard error."""
    status, out, err = huren(*arguments)
    assert (status, out) == (2, "") and err.startswith("huren: ") and "Traceback" not in err


def test_a_misspelt_setting_stops_every_command(huren: Run) -> None:
    """The nearest known name is in the sentence."""
    status, _, err = huren("adapter", "check", HUREN_MLP="127.0.0.1:1")
    assert status == 2 and "unknown setting HUREN_MLP; did you mean HUREN_MLLP?" in err


def test_the_demo_refuses_an_open_address(huren: Run) -> None:
    """--demo asks nobody who they are, so it listens on loopback only."""
    for address in ("0.0.0.0:8080", "192.0.2.1:8080", ":8080", "gateway.example:8080"):
        status, out, err = huren("serve", "--demo", HUREN_HTTP=address)
        assert (status, out) == (1, "") and "loopback" in err and "HUREN_HTTP" in err


# -------------------------------------------------------------------------------------------------- send

def test_send_takes_files_folders_and_batches(huren: Run, tmp_path: Path) -> None:
    """One message, several in a file, a batch, and a folder with other files in it: each message goes out as it is."""
    (tmp_path / "one.hl7").write_text(ORU.format("S1"), newline="")
    inside = tmp_path / "day" / "night"
    inside.mkdir(parents=True)
    (inside / "two.hl7").write_text(ORU.format("S2") + ORU.format("S3"), newline="")
    (inside / "batch.txt").write_text("FHS|^~\\&\rBHS|^~\\&\r" + ORU.format("S4") + "BTS|1\rFTS|1\r", newline="")
    (inside / "readme.md").write_text("not for sending")
    got: list[bytes] = []

    def receive(raw: bytes, peer: str) -> Receipt:
        got.append(raw)
        return Receipt(len(got))

    with mllp(receive) as address:
        status, out, err = huren("send", tmp_path / "one.hl7", tmp_path / "day", "--mllp", address)
    assert (status, err) == (0, "") and out.startswith("4 sent, 4 accepted, 0 refused")
    assert [raw.split(b"|")[9] for raw in got] == [b"S1", b"S4", b"S2", b"S3"]
    assert got[0] == ORU.format("S1").encode().strip()


def test_a_refusal_is_a_line_and_the_exit_status(huren: Run, tmp_path: Path) -> None:
    """File, number in the file, code, place and sentence; what was accepted with a remark is counted."""
    (tmp_path / "three.hl7").write_text("".join(ORU.format(i) for i in ("T1", "T2", "T3")), newline="")

    def receive(raw: bytes, peer: str) -> Receipt:
        if b"|T2|" in raw:
            return Receipt(2, "invalid", "send a code", "OBR[2]-4.1", "required")
        return Receipt(1, remark="1 code is not mapped" if b"|T3|" in raw else "", remark_where="OBX-3")

    with mllp(receive) as address:
        status, out, err = huren("send", tmp_path / "three.hl7", "--mllp", address)
    assert status == 1 and out.startswith("3 sent, 2 accepted (1 with a remark), 1 refused")
    assert err == f"{tmp_path}/three.hl7[2]: AE 101 OBR[2]-4.1: send a code\n"


def test_an_old_receivers_refusal_is_read_too(huren: Run, tmp_path: Path) -> None:
    """v2.3.1 has its place and code in ERR-1 and the sentence in MSA-3."""
    (tmp_path / "old.hl7").write_text(ORU.format("O1").replace("2.5.1", "2.3.1"), newline="")
    with mllp(lambda raw, peer: Receipt(1, "invalid", "send a code", "OBR-4", "required")) as address:
        status, _, err = huren("send", tmp_path / "old.hl7", "--mllp", address)
    assert status == 1 and err == f"{tmp_path}/old.hl7: AE 101 OBR-4: send a code\n"


def test_busy_is_tried_again_until_it_is_taken(huren: Run, tmp_path: Path) -> None:
    """AR 206 means later: the sender waits and sends the same message again."""
    (tmp_path / "one.hl7").write_text(ORU.format("U1"), newline="")
    calls: list[bytes] = []

    def receive(raw: bytes, peer: str) -> Receipt:
        calls.append(raw)
        return Receipt(1, "busy", "later") if len(calls) < 3 else Receipt(1)

    with mllp(receive) as address:
        status, out, _ = huren("send", tmp_path / "one.hl7", "--mllp", address)
    assert status == 0 and out.startswith("1 sent, 1 accepted") and len(calls) == 3


def test_nobody_listens_is_one_sentence(huren: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 1, the address and what to do."""
    monkeypatch.setattr("gateway.edges.mllp_sender._PAUSES", ())
    (tmp_path / "one.hl7").write_text(ORU.format("V1"), newline="")
    with mllp(lambda raw, peer: Receipt(1)) as address:
        pass
    status, out, err = huren("send", tmp_path / "one.hl7", "--mllp", address)
    assert (status, out) == (1, "") and f"{address} did not answer (nothing listens there)" in err


def test_several_connections_send_each_message_once(huren: Run, tmp_path: Path) -> None:
    """--connections shares the files among so many connections."""
    for n in range(40):
        (tmp_path / f"{n:02}.hl7").write_text(ORU.format(f"W{n}"), newline="")
    got: list[bytes] = []
    threads: set[int] = set()

    def receive(raw: bytes, peer: str) -> Receipt:
        got.append(raw)
        threads.add(threading.get_ident())
        threading.Event().wait(0.01)
        return Receipt(1)

    with mllp(receive) as address:
        status, out, _ = huren("send", tmp_path, "--mllp", address, "--connections", 4)
    assert status == 0 and out.startswith("40 sent, 40 accepted") and len(set(got)) == 40 and len(threads) == 4


@pytest.fixture
def pacs() -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    """A foreign C-STORE receiver that knows only one calling title: its address, and what it got."""
    got: list[tuple[str, str, bytes]] = []

    def store(event: evt.Event) -> int:
        data = event.request.DataSet.getvalue()
        got.append((event.assoc.requestor.ae_title, str(event.dataset.SOPInstanceUID), data))
        return 0xA900 if event.dataset.get("PatientID") == "REFUSE" else 0x0000

    ae = AE(ae_title="PACS")
    ae.supported_contexts = AllStoragePresentationContexts
    ae.require_called_aet, ae.require_calling_aet = True, ["DEMO3_CT"]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    assert server is not None
    try:
        yield "{}:{}".format(*server.server_address), got
    finally:
        server.shutdown()


def test_send_stores_dicom_files_and_dicom_json(huren: Run, tmp_path: Path,
                                                pacs: tuple[str, list[tuple[str, str, bytes]]]) -> None:
    """Part 10 files (by content, whatever their name) and DICOM JSON examples arrive under the given AE titles."""
    from gateway.imaging.part10 import part10_from_json

    address, got = pacs
    example = SHIPPED_ADAPTERS / "qiantang" / "examples" / "01-chest-ct.dcm.json"
    files = part10_from_json(example.read_text(encoding="utf-8"))
    (tmp_path / "IM000001").write_bytes(files[0])
    shutil.copy(example, tmp_path)
    status, out, err = huren("send", tmp_path, "--dimse", address, "--called", "PACS", "--calling", "DEMO3_CT")
    assert (status, err) == (0, "") and out.startswith(f"{len(files) + 1} sent, {len(files) + 1} accepted")
    assert {aet for aet, _, _ in got} == {"DEMO3_CT"} and len({uid for _, uid, _ in got}) == len(files)
    assert all(data in file for (_, _, data), file in zip(got, [*files, files[0]], strict=True))  # bytes as they were


def test_a_refused_object_is_a_line(huren: Run, tmp_path: Path,
                                    pacs: tuple[str, list[tuple[str, str, bytes]]]) -> None:
    """The status as PS3.4 writes it; the others still go out."""
    import pydicom
    from pydicom.data import get_testdata_file

    address, got = pacs
    ds = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    ds.save_as(tmp_path / "good.dcm")
    ds.PatientID = "REFUSE"
    ds.save_as(tmp_path / "bad.dcm")
    (tmp_path / "broken.dcm").write_bytes(b"no DICOM")
    status, out, err = huren("send", tmp_path, "--dimse", address, "--called", "PACS", "--calling", "DEMO3_CT")
    assert status == 1 and out.startswith("3 sent, 1 accepted, 2 refused") and len(got) == 2
    lines = err.splitlines()
    assert lines[0].startswith(f"{tmp_path}/broken.dcm: -") and lines[1] == f"{tmp_path}/bad.dcm: A900"


def test_a_rejected_association_is_one_sentence(huren: Run, pacs: tuple[str, list[tuple[str, str, bytes]]]) -> None:
    """An unknown calling title: status 1 and what to check."""
    address, got = pacs
    example = SHIPPED_ADAPTERS / "qiantang" / "examples" / "01-chest-ct.dcm.json"
    status, _, err = huren("send", example, "--dimse", address, "--called", "PACS", "--calling", "NOBODY")
    assert status == 1 and "rejected the association" in err and "--calling" in err and got == []


def test_dicom_without_a_calling_title_is_wrong_usage(huren: Run) -> None:
    """A receiver knows its senders by title, so there is no default."""
    status, _, err = huren("send", SHIPPED_ADAPTERS / "qiantang" / "examples")
    assert status == 2 and "--calling" in err


def test_kinds_of_files(tmp_path: Path) -> None:
    """Content decides before the name; expected files and texts are not sent."""
    for name, content, kind in [("a.bin", b"\0" * 128 + b"DICM", "dicom"), ("b.txt", b"\xef\xbb\xbfMSH|", "hl7"),
                                ("c.dat", b"\x0bMSH|^~", "hl7"), ("d.hl7", b"junk", "hl7"), ("e.json", b"{}", ""),
                                ("f.refused", b"invalid OBR-4", ""), ("g.dcm", b"short", "dicom"), ("h", b"", "")]:
        (tmp_path / name).write_bytes(content)
        assert kind_of(tmp_path / name) == kind, name
    assert [p.name for p, _ in find([tmp_path])] == ["a.bin", "b.txt", "c.dat", "d.hl7", "g.dcm"]


# -------------------------------------------------------------------------------------------------- adapter

def test_new_check_and_golden(huren: Run, tmp_path: Path) -> None:
    """A scaffolded folder keeps every rule but the excused one; an example without expectation is a finding; golden
    writes it."""
    status, out, _ = huren("adapter", "new", f"{tmp_path}/tiantai")
    assert status == 0 and str(tmp_path / "tiantai" / "manifest.toml") in out.splitlines()
    status, out, _ = huren("adapter", "check", tmp_path)
    assert status == 0 and out.startswith("tiantai: keeps every rule but 2 excused")
    status, _, err = huren("adapter", "new", f"{tmp_path}/tiantai")
    assert status == 1 and "is there already" in err
    example = (SHIPPED_ADAPTERS / "renmin" / "examples" / "09-no-order-code.hl7").read_bytes()
    (tmp_path / "tiantai" / "examples" / "01.hl7").write_bytes(example)
    status, out, _ = huren("adapter", "check", tmp_path / "tiantai")
    assert status == 1 and "examples-convert-as-written: 01.hl7" in out
    status, out, _ = huren("adapter", "golden", tmp_path / "tiantai")
    assert status == 0 and out == f"{tmp_path}/tiantai/examples/01.refused\n"
    assert (tmp_path / "tiantai" / "examples" / "01.refused").read_text() == "invalid OBR-4\n"


def test_new_without_a_path_goes_into_the_first_adapter_folder(huren: Run, tmp_path: Path) -> None:
    """NAME alone is a folder of HUREN_ADAPTERS."""
    status, out, _ = huren("adapter", "new", "tiantai", HUREN_ADAPTERS=f"{tmp_path}:{SHIPPED_ADAPTERS}")
    assert status == 0 and (tmp_path / "tiantai" / "codes.csv").exists() and out.count("\n") == 3


def test_check_says_when_there_is_nothing(huren: Run, tmp_path: Path) -> None:
    """An empty folder is no success."""
    status, _, err = huren("adapter", "check", tmp_path)
    assert status == 1 and "no folder with a manifest.toml" in err




# -------------------------------------------------------------------------------------------------- operating

GENERIC = SHIPPED_ADAPTERS / "generic" / "examples" / "01-electrolytes.hl7"


@pytest.fixture
def arrived(huren: Run, tmp_path: Path) -> tuple[int, str]:
    """A migrated database, one message stored and one in quarantine: exit status and refusals of the send."""
    assert huren("migrate") == (0, "the schema is up to date\n", "")
    settings = load({"HUREN_DATA": str(tmp_path / "data")})
    store = open_store(settings)
    try:
        with mllp(Pipeline(settings, store)) as address:
            cbc = SHIPPED_ADAPTERS / "renmin" / "examples" / "01-cbc-final.hl7"
            status, _, err = huren("send", GENERIC, cbc, "--mllp", address)
    finally:
        store.close()
    return status, err


def test_what_was_refused_is_listed_shown_and_stored_after_the_mend(huren: Run, arrived: tuple[int, str]) -> None:
    """Quarantine says category and place; replay refuses again until the setting is mended, then stores."""
    assert arrived[0] == 1 and "CE 207 MSH-4: no manifest names" in arrived[1]
    status, out, _ = huren("inbox", "list")
    assert status == 0 and len(out.splitlines()) == 3
    header, row = huren("inbox", "list", "--status", "quarantined")[1].splitlines()
    entry = dict(zip(header.split("\t"), row.split("\t"), strict=True))
    assert (entry["category"], entry["place"], entry["type"]) == ("forbidden", "MSH-4", "ORU^R01^ORU_R01")
    shown = huren("inbox", "show", entry["id"])[1].splitlines()
    assert "category:     forbidden" in shown and "status:       quarantined" in shown
    assert huren("inbox", "show", 4711)[0] == 1

    status, out, _ = huren("inbox", "replay", "--all")
    assert status == 1 and out.startswith(f"{entry['id']}: forbidden MSH-4: ")
    status, out, _ = huren("inbox", "replay", "--all", HUREN_DEFAULT_ADAPTER="generic")
    assert status == 0 and out.startswith(f"{entry['id']}: stored, ")
    assert huren("inbox", "list", "--status", "quarantined")[1].count("\n") == 1
    assert huren("inbox", "replay", "4711")[0] == 1


def test_the_raw_message_is_what_was_sent(huren: Run, arrived: tuple[int, str]) -> None:
    """`inbox show --raw` gives the bytes back."""
    run = subprocess.run([sys.executable, "-m", "gateway", "inbox", "show", "--raw", "1"], check=True,
                         capture_output=True)
    assert run.stdout == GENERIC.read_bytes().strip()


def test_reindex_makes_the_index_anew(huren: Run, arrived: tuple[int, str]) -> None:
    """Every stored resource is counted."""
    status, out, _ = huren("reindex")
    assert status == 0 and int(out.removesuffix(" resources indexed anew\n")) > 20


def test_a_client_is_added_listed_and_revoked(huren: Run, arrived: tuple[int, str], tmp_path: Path) -> None:
    """The token is printed once and not kept; a scope or a name that cannot be is refused."""
    status, out, err = huren("client", "add", "ward", "--institution", "hz-demo-1", "--scope", "institution/*.rs")
    token = out.strip()
    assert status == 0 and len(token) > 30 and "not shown again" in err
    assert huren("client", "list")[1].splitlines()[1].split("\t")[:3] == ["ward", "hz-demo-1", "institution/*.rs"]
    assert huren("client", "add", "ward")[0] == 1 and huren("client", "add", "x", "--scope", "everything")[0] == 1
    assert huren("client", "add", "y", "--scope", "institution/*.rs")[0] == 2
    assert all(token.encode() not in p.read_bytes() for p in (tmp_path / "data").glob("*.sqlite*"))
    assert huren("client", "revoke", "ward")[0] == 0 and huren("client", "revoke", "nobody")[0] == 1
    assert huren("client", "list")[1].splitlines()[1].split("\t")[4] != "-"


def test_commands_without_a_database_say_what_to_do(huren: Run) -> None:
    """Not a trace: the sentence names `huren migrate`."""
    for arguments in (("inbox", "list"), ("client", "list"), ("reindex",)):
        status, _, err = huren(*arguments)
        assert status == 1 and "run `huren migrate`" in err


def test_doctor_says_what_is_well_and_what_is_not(huren: Run, arrived: tuple[int, str], tmp_path: Path) -> None:
    """Status 0 while all works; 1, with the thing and its setting, where a database, port, disk or adapter does not."""
    ports = {"HUREN_HTTP": "127.0.0.1:0", "HUREN_MLLP": "127.0.0.1:0", "HUREN_DIMSE": "127.0.0.1:0"}
    status, out, _ = huren("doctor", **ports)
    assert status == 0 and out.splitlines()[-1] == "nothing to mend"
    assert re.search(r"^ok +database +sqlite, schema \d+: \d+ resources of 1 persons", out, re.M)
    assert re.search(r"^note +inbox +1 in quarantine", out, re.M)

    def bad(pattern: str, **environ: str) -> None:
        status, out, _ = huren("doctor", **ports | environ)
        assert status == 1 and re.search(f"^bad +{pattern}", out, re.M), out

    bad("database +postgresql: ", HUREN_DATABASE_URL="postgresql://127.0.0.1:1/nothing")
    bad("disk +/proc", HUREN_DATA="/proc/nothing")
    bad("mllp +192.0.2.1:2575 .*HUREN_MLLP", HUREN_MLLP="192.0.2.1:2575")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bad("http .* taken by another program.*HUREN_HTTP", HUREN_HTTP=f"127.0.0.1:{taken.getsockname()[1]}")
    (tmp_path / "own" / "broken").mkdir(parents=True)
    (tmp_path / "own" / "broken" / "manifest.toml").write_text("[institution]\nid = 'x'\nnme = 'y'\n")
    bad("adapters .*did you mean 'name'", HUREN_ADAPTERS=str(tmp_path / "own"))
