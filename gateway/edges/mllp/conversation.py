"""What is said on one connection: blocks come, each message is run, its answers go back, in order."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Protocol

from gateway import hl7v2
from gateway.edges.mllp import figures
from gateway.edges.mllp.answers import Answers
from gateway.edges.mllp.figures import FIGURES
from gateway.edges.mllp.frames import Frames, NotMllp, TooLarge, block
from gateway.edges.mllp.turns import Turns
from gateway.edges.mllp.wire import Wire
from gateway.errors import Category, GatewayError
from gateway.pipeline import Arrival
from gateway.store.model import Receipt

log = logging.getLogger("huren.mllp")

_LINGER_SECONDS = 0.2
_AGAIN_SECONDS = (0.2, 5.0)  # the first and the longest pause before a message that was taken over is run again
_ACCEPTED = ("AA", "CA")
_UNMATCHED = "unmatched"  # `gateway.ordering`: an order is stored, the look for earlier results failed


class Receiver(Protocol):
    """`gateway.pipeline.Pipeline`, as far as the edge needs it: blocking, safe from many threads."""

    def accept(self, raw: bytes, peer: str) -> Arrival:
        """Returns when the raw bytes are durable; whatever it raises means that they are not."""

    def settle(self, arrival: Arrival) -> Receipt:
        """How the message ends."""


class House(Protocol):
    """What all connections of a process share (`listener.Listener`)."""

    receiver: Receiver
    answers: Answers
    turns: Turns
    draining: bool
    max_bytes: int
    idle_seconds: float
    frame_seconds: float

    def hold(self, change: int) -> bool:
        """Count bytes of unfinished blocks; False when all connections together hold too many."""


class _Stop(Exception):
    """Why a connection is closed in the middle."""


class Conversation:
    """One connection, from its handshake to its end."""

    def __init__(self, house: House, wire: Wire) -> None:
        self._house = house
        self._wire = wire
        self._frames = Frames(house.max_bytes)
        self._held = 0

    def run(self) -> None:
        """Until the sender closes, breaks a limit, or the gateway stops; never raises."""
        wire, reason, error_text = self._wire, "", ""
        try:
            if not self._begin():
                return
            for content in self._blocks():
                self._answer(content)
                if self._house.draining:
                    break
        except TooLarge as error:
            reason = "too-large"
            self._refuse_too_large(error.head)
        except NotMllp:
            reason = "not-mllp"
        except _Stop as stop:
            reason = str(stop)
        except OSError as error:  # reset by the peer, or it does not take its answer
            reason, error_text = "network", error.strerror or "timed out"
        except Exception as error:
            reason, error_text = "fault", type(error).__name__
        finally:
            if reason:
                log.log(logging.ERROR if reason == "fault" else logging.WARNING,
                        "mllp peer=%s outcome=closed reason=%s error=%s bytes=%d", wire.address, reason,
                        error_text or "-", len(self._frames))
                FIGURES.add(figures.CLOSED, reason)
            wire.hang_up(_LINGER_SECONDS)
            self._house.hold(-self._held)

    def _begin(self) -> bool:
        try:
            self._wire.begin()
        except OSError as error:  # no certificate, one of nobody's that we trust, no TLS at all
            log.warning("mllp peer=%s outcome=refused reason=handshake error=%s", self._wire.address,
                        getattr(error, "reason", None) or error.strerror or "timed out")
            FIGURES.add(figures.REFUSED, "handshake")
            return False
        self._wire.wait(self._house.idle_seconds)
        return not self._house.draining

    # ---------------------------------------------------------------- blocks

    def _blocks(self) -> Iterator[bytes]:
        """Whole blocks, as they come; ends when the sender closes."""
        frames, wire, deadline, is_limited = self._frames, self._wire, 0.0, False
        while True:
            while (content := frames.next()) is not None:
                deadline = 0.0  # the next one has a time of its own
                self._hold()
                yield content
            if frames.open:  # a block that has begun must end in its time, however slowly its bytes trickle in
                now = time.monotonic()
                deadline = deadline or now + self._house.frame_seconds
                wire.wait(deadline - now)
                is_limited = True
            elif is_limited:
                wire.wait(self._house.idle_seconds)
                is_limited = False
            try:
                data = wire.receive()
            except TimeoutError:
                raise _Stop("block-not-ended" if frames.open else "idle") from None
            if not data:
                if frames.open and not self._house.draining:
                    raise _Stop("block-truncated")
                return
            frames.feed(data)
            self._hold()

    def _hold(self) -> None:
        """Count what is held; small ones are bounded by the number of connections."""
        size = len(self._frames)
        if size == self._held or (size < 65536 and self._held < 65536):
            return
        change, self._held = size - self._held, size
        if not self._house.hold(change):
            raise _Stop("memory")

    # ---------------------------------------------------------------- messages

    def _answer(self, content: bytes) -> None:
        """Run what a block holds and answer each message; a batch as its sender's manifest says."""
        messages, envelope = hl7v2.unpack(content)
        if envelope is not None:
            for where, _ in envelope.faults():
                log.warning("mllp peer=%s outcome=count-differs where=%s", self._wire.address, where)
            if not messages:  # a report that there is nothing to report
                self._wire.send(block(self._house.answers.batch(envelope, [])))
                return
        manner, said = "each", []
        for number, raw in enumerate(messages or [content]):
            arrival, receipt = self._run(raw)
            if number == 0 and envelope is not None and arrival.adapter is not None:
                manner = arrival.adapter.batch_acknowledgement
            if manner == "each":
                for _, answer in self._answers(arrival, receipt):
                    self._wire.send(block(answer))
            else:
                said.append([answer for code, answer in self._answers(arrival, receipt)
                             if manner == "batch" or code not in _ACCEPTED])
        if envelope is not None and manner != "each":
            self._wire.send(block(self._house.answers.batch(envelope, said)))

    def _run(self, raw: bytes) -> tuple[Arrival, Receipt | None]:
        """The message and how it ended; None where its sender is told before that it is safe (CA).

        Closes the connection when the raw bytes could not be kept: no answer is better than a wrong one, and the
        sender sends again on a new connection.
        """
        receiver, sender = self._house.receiver, (self._wire.address, _facility(raw))
        self._house.turns.take(sender)
        try:
            arrival = receiver.accept(raw, self._wire.peer)
            if arrival.asked.commits_first and arrival.refusal is None:
                return arrival, None
            return arrival, receiver.settle(arrival)
        except Exception as error:
            raise self._unanswered(error) from None
        finally:
            self._house.turns.give(sender)

    def _run_on(self, arrival: Arrival) -> Receipt:
        """How a message ends that we have taken over (CA): it is not sent again, so *busy* is ours to wait out."""
        pause, longest = _AGAIN_SECONDS
        sender = self._wire.address, _facility(arrival.raw)
        while True:
            self._house.turns.take(sender)
            try:
                receipt = self._house.receiver.settle(arrival)
            except GatewayError as error:
                receipt = Receipt(arrival.inbound.id, error.category.value, error.message)
            except Exception as error:
                raise self._unanswered(error) from None
            finally:
                self._house.turns.give(sender)
            if receipt.category != Category.BUSY.value:
                return receipt
            if self._house.draining:  # it is recorded: the next start runs it
                raise _Stop("unanswered")
            time.sleep(pause)
            pause = min(2 * pause, longest)

    def _unanswered(self, error: Exception) -> _Stop:
        said = f"{error.category.value}: {error.message}" if isinstance(error, GatewayError) else type(error).__name__
        log.error("mllp peer=%s outcome=unanswered error=%s", self._wire.address, said)
        FIGURES.add(figures.ANSWERS, "none")
        return _Stop("unanswered")

    def _answers(self, arrival: Arrival, receipt: Receipt | None) -> Iterator[tuple[str, bytes]]:
        """MSA-1 and the message of each answer, as soon as it is due (HL7 v2.5.1 2.9.2, 2.9.3)."""
        asked, answers, header = arrival.asked, self._house.answers, arrival.header
        said, is_at_the_door = 0, arrival.refusal is not None or asked.application == "NE"
        if receipt is None:
            said = 1
            yield self._counted(answers.commit(header, Receipt(arrival.inbound.id), arrival.expected))
            receipt = self._run_on(arrival)
        elif asked.is_enhanced and is_at_the_door and asked.commit(receipt.category is None):
            said = 2  # and then there is no application to answer
            yield self._counted(answers.commit(header, receipt, arrival.expected))
        if receipt.detail == _UNMATCHED and receipt.category is None and not receipt.resend:
            FIGURES.add(figures.UNMATCHED, "mllp")
        if said < 2 and asked.result(receipt.category is None):
            said = 2
            yield self._counted(answers.result(header, receipt, arrival.expected))
        if not said:
            FIGURES.add(figures.ANSWERS, "none")

    @staticmethod
    def _counted(answer: tuple[str, bytes]) -> tuple[str, bytes]:
        FIGURES.add(figures.ANSWERS, answer[0])
        return answer

    def _refuse_too_large(self, head: bytes) -> None:
        """Answer from the block's beginning, then let the rest run by: a sender that writes on sees its answer."""
        limit, answers = self._house.max_bytes, self._house.answers
        receipt = Receipt(0, Category.MALFORMED.value, f"message is larger than {limit} bytes; send it in parts or "
                          "raise HUREN_MLLP_MAX_BYTES", "MSH")
        try:
            header = hl7v2.peek(head)
        except GatewayError:
            header = None
        asked = hl7v2.asked(head, header)
        with contextlib.suppress(OSError):
            if asked.is_enhanced and asked.commit(False):
                self._wire.send(block(self._counted(answers.commit(header, receipt))[1]))
            elif asked.result(False):
                self._wire.send(block(self._counted(answers.result(header, receipt))[1]))
            self._wire.hang_up(self._house.frame_seconds)


def _facility(raw: bytes) -> bytes:
    """MSH-4 as it is written; empty where there is no MSH to see."""
    fields = raw[:256].split(raw[3:4], 4) if raw[:3] == b"MSH" and raw[3:4] else []
    return fields[3] if len(fields) > 3 else b""
