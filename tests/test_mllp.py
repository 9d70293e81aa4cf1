"""The MLLP listener on a real port: framing, order, limits, answers, drain."""

from __future__ import annotations

import socket
import time
from dataclasses import replace

import hl7.client
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edges.mllp import ANSWERS, END, START, Frames, Listener, NotMllp, TooLarge, answer_for
from gateway.edges.mllp_sender import Sender
from gateway.errors import Category, GatewayError
from gateway.store.model import Receipt
from tests.mllp_peers import SETTINGS, Hospital, Recorder, Whole, block, joined, listening, message, segment

# -------------------------------------------------------------------------------------------------- framing

@given(st.lists(st.binary(max_size=40).map(lambda b: b.translate(None, b"\x0b\x1c")), max_size=5), st.data())
def test_where_packets_end_changes_nothing(contents: list[bytes], data: st.DataObject) -> None:
    """However the stream is cut, the same blocks come out, with noise between them and with or without the last CR."""
    stream = b"".join(data.draw(st.sampled_from([b"", b"\r", b"\n\r\n"])) + b"\x0b" + content
                      + data.draw(st.sampled_from([b"\x1c\r", b"\x1c"])) for content in contents)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    frames, got = Frames(1000), []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        frames.feed(stream[begin:end])
        while (content := frames.next()) is not None:
            got.append(content)
    assert got == contents and not frames.open


def test_a_block_begun_anew_replaces_the_broken_one() -> None:
    """VT before MSH inside a block is a new start; VT elsewhere is content (a word processor's line break)."""
    frames = Frames(1000)
    frames.feed(b"\x0bMSH|half a mess" + block(b"MSH|whole\rNTE|1||two\x0blines\r"))
    assert frames.next() == b"MSH|whole\rNTE|1||two\x0blines\r" and frames.broken_off == 1


def test_a_block_of_the_largest_size_passes_and_one_byte_more_does_not() -> None:
    """The limit counts the content between VT and FS, and is found before the end has come."""
    frames = Frames(100)
    frames.feed(block(b"x" * 100))
    assert frames.next() == b"x" * 100
    frames.feed(b"\x0b" + b"x" * 101)
    with pytest.raises(TooLarge):
        frames.next()


def test_bytes_outside_a_block_are_no_mllp() -> None:
    """Anything but CR and LF between blocks means that the framing is lost."""
    frames = Frames(100)
    frames.feed(b"\r\nGET / HTTP/1.1\r\n")
    with pytest.raises(NotMllp):
        frames.next()
    assert (START, END) == (0x0B, 0x1C)


# -------------------------------------------------------------------------------------------------- one connection

def test_a_foreign_client_gets_its_acknowledgement() -> None:
    """python-hl7's client sends two messages on one connection and reads AA with its control ids, version and event."""
    recorder = Recorder()
    with listening(recorder) as listener, hl7.client.MLLPClient(*listener.address) as client:
        for control_id in ("A1", "A2"):
            answer = hl7.parse(client.send_message(message(control_id, version="2.3.1").decode()).strip(b"\x0b\x1c\r"))
            assert (str(answer["MSA"][0][1]), str(answer["MSA"][0][2])) == ("AA", control_id)
            assert str(answer["MSH"][0][12]) == "2.3.1" and "ERR" not in {str(s[0]) for s in answer}
    assert recorder.got == [message("A1").replace(b"2.5.1", b"2.3.1").strip(), message("A2", version="2.3.1").strip()]
    assert recorder.peers == {"127.0.0.1"}


def test_two_messages_in_one_packet_and_pipelined_ones_are_answered_in_order() -> None:
    """A sender need not wait for its answers; they come in its order."""
    with listening(Recorder(seconds=0.005)) as listener, joined(listener) as hospital:
        hospital.write(b"".join(block(message(f"P{n}")) for n in range(20)))
        answers = [hospital.answer() or "" for _ in range(20)]
    assert [segment(a, "MSA").split("|")[1:3] for a in answers] == [["AA", f"P{n}"] for n in range(20)]
    own = {segment(a, "MSH").split("|")[9] for a in answers}
    assert len(own) == 20 and max(map(len, own)) <= 20  # MSH-10 of the answers: each its own


def test_a_byte_at_a_time_is_as_good_as_a_packet() -> None:
    """Slow but steady senders within the frame's time are served."""
    with listening(Recorder()) as listener, joined(listener) as hospital:
        hospital.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"\r\n" + block(message("B1")):
            hospital.write(bytes([byte]))
        assert hospital.msa() == ("AA", "B1")


def test_a_missing_last_cr_does_not_keep_the_answer_back() -> None:
    """FS alone ends a block, before and between messages."""
    with listening(Recorder()) as listener, joined(listener) as hospital:
        for control_id in ("C1", "C2"):
            hospital.write(block(message(control_id)).removesuffix(b"\r"))
            assert hospital.msa() == ("AA", control_id)


def test_a_batch_in_one_block_is_answered_message_by_message() -> None:
    """FHS/BHS around several messages: one acknowledgement for each message, each in a block of its own."""
    batch = b"FHS|^~\\&|LIS\rBHS|^~\\&|LIS\r" + message("D1") + message("D2") + b"BTS|2\rFTS|1\r"
    recorder = Recorder()
    with listening(recorder) as listener, joined(listener) as hospital:
        hospital.write(block(batch))
        assert [hospital.msa(), hospital.msa()] == [("AA", "D1"), ("AA", "D2")]
    assert len(recorder.got) == 2


@pytest.mark.parametrize("content", [b"", b"PID|1||4711\r", b"\xff\xfe\x00garbage"])
def test_a_block_without_msh_is_refused_with_an_empty_msa_2(content: bytes) -> None:
    """Every block is answered: without a header in our own delimiters, AR, MSA-2 empty, and the connection stays."""
    refused = Receipt(1, Category.MALFORMED.value, "no MSH segment", "MSH")
    with listening(Recorder(refused)) as listener, joined(listener) as hospital:
        hospital.write(block(content))
        answer = hospital.answer()
        assert answer is not None and answer.startswith("MSH|^~\\&|")
        assert segment(answer, "MSA").split("|")[1:3] == ["AR", ""]
        assert segment(answer, "ERR").split("|")[2:5] == ["MSH^1", "100^Segment sequence error^HL70357", "E"]
        hospital.write(block(content))
        assert hospital.msa() == ("AR", "")


def test_a_truncated_block_is_neither_answered_nor_passed_on() -> None:
    """The sender closed in the middle: it has no answer and sends again."""
    recorder = Recorder()
    with listening(recorder) as listener, joined(listener) as hospital:
        hospital.write(b"\x0b" + message("E1")[:40])
        hospital.socket.shutdown(socket.SHUT_WR)
        assert hospital.answer() is None
    assert recorder.got == []


def test_what_is_not_mllp_is_closed() -> None:
    """An HTTP request, or the tail of a message that held the end byte, closes the connection."""
    recorder = Recorder()
    with listening(recorder) as listener, joined(listener) as hospital:
        hospital.write(b"GET / HTTP/1.1\r\n\r\n")
        assert hospital.answer() is None
    assert recorder.got == []


# -------------------------------------------------------------------------------------------------- answers

CASES = [(category.value, "") for category in Category] + [
    ("unsupported", "message-type"), ("unsupported", "event"), ("unsupported", "processing-id"),
    ("unsupported", "version"), ("invalid", "required"), ("invalid", "data-type"), ("invalid", "table-value")]
EXPECTED = {  # architecture.md's table, MSA-1 and ERR-3
    ("malformed", ""): ("AR", "100"), ("unsupported", ""): ("AR", "200"), ("invalid", ""): ("AE", "101"),
    ("forbidden", ""): ("AR", "207"), ("not-found", ""): ("AE", "204"), ("conflict", ""): ("AE", "205"),
    ("busy", ""): ("AR", "206"), ("fault", ""): ("AR", "207"),
    ("unsupported", "message-type"): ("AR", "200"), ("unsupported", "event"): ("AR", "201"),
    ("unsupported", "processing-id"): ("AR", "202"), ("unsupported", "version"): ("AR", "203"),
    ("invalid", "required"): ("AE", "101"), ("invalid", "data-type"): ("AE", "102"),
    ("invalid", "table-value"): ("AE", "103"),
}


@pytest.mark.parametrize(("category", "detail"), CASES)
def test_each_refusal_is_answered_from_the_table(category: str, detail: str) -> None:
    """MSA-1, ERR-2, ERR-3, severity E and the sentence, for every category and every narrower row."""
    refused = Receipt(7, category, "mend it so", "OBX[2]-5.1", detail)
    with listening(Recorder(refused)) as listener, joined(listener) as hospital:
        hospital.write(block(message("F1")))
        answer = hospital.answer()
    assert answer is not None
    code, error = EXPECTED[category, detail]
    assert segment(answer, "MSA").split("|")[1:3] == [code, "F1"]
    fields = segment(answer, "ERR").split("|")
    assert (fields[2], fields[3].split("^")[0], fields[4], fields[8]) == ("OBX^2^5^1^1", error, "E", "mend it so")
    assert answer_for(refused).error_code == error and Category(category) in ANSWERS


def test_a_remark_is_an_acceptance_with_a_warning() -> None:
    """Stored, but a code is not mapped: AA, ERR-3 103, ERR-4 W at the place."""
    remark = Receipt(7, remark="1 code is not mapped", remark_where="OBX-3", resources=3)
    with listening(Recorder(remark)) as listener, joined(listener) as hospital:
        hospital.write(block(message("G1")))
        answer = hospital.answer()
    assert answer is not None and segment(answer, "MSA").startswith("MSA|AA|G1")
    assert segment(answer, "ERR").split("|")[2:5] == ["OBX^1^3", "103^Table value not found^HL70357", "W"]


def test_an_old_version_gets_the_error_in_its_own_form() -> None:
    """Before v2.5 there is only ERR-1, with the place and the code in its fourth component."""
    refused = Receipt(7, "invalid", "no code", "OBR-4", "required")
    with listening(Recorder(refused)) as listener, joined(listener) as hospital:
        hospital.write(block(message("H1", version="2.3.1")))
        answer = hospital.answer()
    assert answer is not None and segment(answer, "ERR") == "ERR|OBR^1^4^101&Required field missing&HL70357"


@pytest.mark.parametrize("failure", [GatewayError(Category.BUSY, "disk full"), RuntimeError("bug"), MemoryError()])
def test_what_could_not_be_recorded_is_not_answered(failure: Exception) -> None:
    """No answer is better than a wrong one: the connection closes, and the sender sends again."""
    calls = 0

    def receive(raw: bytes, peer: str) -> Receipt:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise failure
        return Receipt(1)

    with listening(receive) as listener:
        with joined(listener) as hospital:
            hospital.write(block(message("I1")))
            assert hospital.answer() is None
        sender = Sender(*listener.address)
        assert sender.send(message("I1")).accepted and calls == 3  # our own sender sends again on a new connection
        sender.close()


# -------------------------------------------------------------------------------------------------- limits

def test_a_message_of_300_mb_is_refused_without_being_held() -> None:
    """AR comes while the sender still writes; memory does not grow with the message."""
    import psutil

    recorder = Recorder()
    before = psutil.Process().memory_info().rss
    with listening(recorder, mllp_max_bytes=1_000_000) as listener, joined(listener) as hospital:
        hospital.socket.settimeout(30)
        hospital.write(b"\x0b" + message("J1"))
        chunk = b"x" * 1_000_000
        peak = before
        for _ in range(300):
            hospital.write(chunk)
            peak = max(peak, psutil.Process().memory_info().rss)
        hospital.write(b"\x1c\r")
        assert hospital.msa() == ("AR", "J1")
        assert hospital.answer() is None
    assert recorder.got == [] and peak - before < 50_000_000


def test_an_idle_connection_is_closed() -> None:
    """After HUREN_MLLP_IDLE_SECONDS without a message, and only then."""
    with listening(Recorder(), mllp_idle_seconds=1) as listener, joined(listener) as hospital:
        hospital.write(block(message("K1")))
        assert hospital.msa() == ("AA", "K1")
        began = time.monotonic()
        assert hospital.answer() is None
        assert 0.8 < time.monotonic() - began < 5


def test_a_block_that_trickles_is_cut_off_in_its_time() -> None:
    """A byte now and then does not hold a connection: the whole block must come within HUREN_MLLP_FRAME_SECONDS."""
    recorder = Recorder()
    with listening(recorder, mllp_frame_seconds=1) as listener, joined(listener) as hospital:
        began = time.monotonic()
        with pytest.raises(OSError):  # whichever write meets the closed connection
            for byte in b"\x0b" + message("L1"):
                hospital.write(bytes([byte]))
                time.sleep(0.1)
        assert 0.8 < time.monotonic() - began < 5
    assert recorder.got == []


def test_a_frame_time_does_not_shorten_the_idle_time_after_it() -> None:
    """A block that came in pieces leaves the connection its full idle time."""
    with listening(Recorder(), mllp_frame_seconds=1) as listener, joined(listener) as hospital:
        data = block(message("L2"))
        hospital.write(data[:10])
        time.sleep(0.2)
        hospital.write(data[10:])
        assert hospital.msa() == ("AA", "L2")
        time.sleep(1.3)
        hospital.write(block(message("L3")))
        assert hospital.msa() == ("AA", "L3")


def test_a_frame_time_is_that_of_one_block() -> None:
    """A sender that never pauses, whose packets always end in the middle of a block, may go on for longer."""
    with listening(Recorder(), mllp_frame_seconds=1) as listener, joined(listener) as hospital:
        stream = b"".join(block(message(f"L{n}")) for n in range(25))
        length, began = len(block(message("L0"))), time.monotonic()
        hospital.write(stream[:10])
        for n in range(10):
            hospital.write(stream[10 + n * length:10 + (n + 1) * length])
            assert hospital.msa() == ("AA", f"L{n}")
            time.sleep(0.2)
        assert time.monotonic() - began > 1.5


@pytest.mark.parametrize("limit", ["mllp_connections", "mllp_connections_per_address"])
def test_more_connections_than_allowed_are_closed_at_once(limit: str) -> None:
    """The ones that are in go on; a place that becomes free is given away again."""
    with listening(Recorder(), **{limit: 2}) as listener:
        with joined(listener) as first, joined(listener) as second:
            for hospital in (first, second):
                hospital.write(block(message("M1")))
                assert hospital.msa() == ("AA", "M1")
            with joined(listener) as third:
                assert third.answer() is None
            first.write(block(message("M2")))
            assert first.msa() == ("AA", "M2")
        for _ in range(50):
            with joined(listener) as later:
                try:
                    later.write(block(message("M3")))
                    if (answer := later.answer()) is not None:
                        assert "MSA|AA|M3" in answer
                        return
                except OSError:
                    pass
            time.sleep(0.05)
        pytest.fail("no place became free")


def test_many_large_blocks_at_once_do_not_fill_the_memory() -> None:
    """Unfinished blocks of all connections together are held up to four times the largest message; then one must go."""
    with listening(Recorder(), mllp_max_bytes=1_000_000) as listener:
        hospitals = [Hospital(listener.address) for _ in range(6)]
        closed = 0
        for hospital in hospitals:
            try:
                hospital.write(b"\x0b" + b"x" * 900_000)
                hospital.socket.settimeout(0.3)
                closed += hospital.answer() is None
            except TimeoutError:
                pass
            except OSError:
                closed += 1
        for hospital in hospitals:
            hospital.socket.close()
        assert 1 <= closed <= 2
        time.sleep(0.3)
        with joined(listener) as hospital:  # and what they held is given back
            hospital.write(block(b"MSH|^~\\&|A|B|C|D|||ORU^R01|N1|P|2.5\rNTE|1||" + b"y" * 900_000))
            assert hospital.msa() == ("AA", "N1")


# -------------------------------------------------------------------------------------------------- end

def test_drain_answers_what_runs_and_takes_no_more() -> None:
    """The running message is answered, a pipelined one behind it is not begun, idle peers see the end."""
    recorder = Recorder(seconds=0.5)
    with listening(recorder) as listener, joined(listener) as idle, joined(listener) as busy:
        busy.write(block(message("O1")) + block(message("O2")))
        assert recorder.begun.wait(5)
        began = time.monotonic()
        assert listener.drain(5)
        assert time.monotonic() - began < 2
        assert busy.msa() == ("AA", "O1") and busy.answer() is None and idle.answer() is None
        with pytest.raises(OSError):
            socket.create_connection(listener.address, timeout=1)
    assert len(recorder.got) == 1


def test_drain_says_when_a_message_does_not_end() -> None:
    """What still runs after the given time is not waited for."""
    with listening(Recorder(seconds=1.0)) as listener, joined(listener) as busy:
        busy.write(block(message("Q1")))
        time.sleep(0.2)
        assert not listener.drain(0.2)
        assert busy.msa() == ("AA", "Q1")


def test_a_port_that_is_taken_is_said_in_a_sentence() -> None:
    """The start fails with the address and the setting, not with a trace."""
    with listening(Recorder()) as listener:
        host, port = listener.address
        with pytest.raises(GatewayError, match=f"cannot listen on {host}:{port}.*HUREN_MLLP"):
            Listener(replace(SETTINGS, mllp=f"{host}:{port}"), Whole(Recorder()))


def test_no_patient_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong on a connection, no content of a message is logged."""
    secret = "Zhang^San"

    def receive(raw: bytes, peer: str) -> Receipt:
        raise ValueError(raw)

    with listening(receive, mllp_max_bytes=300, mllp_idle_seconds=1) as listener:
        for data in (block(message("R1", f"PID|1||{secret}")), block(message("R1", f"PID|1||{secret}" * 60)),
                     f"PID|{secret}".encode(), b"\x0b" + f"PID|{secret}".encode()):
            with joined(listener) as hospital:
                hospital.write(data)
                hospital.socket.shutdown(socket.SHUT_WR)
                hospital.answer()
        time.sleep(0.3)
    assert len(caplog.records) >= 4 and secret not in caplog.text
