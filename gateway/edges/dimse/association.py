"""One association: negotiated, then message after message, until it is released (PS3.7 9, PS3.8 7)."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.adapter import Adapter
from gateway.edges.dimse import upper_layer as ul
from gateway.edges.dimse.answers import ANSWERS, STORED
from gateway.edges.dimse.data_set import DataSet
from gateway.edges.dimse.messages import (
    C_ECHO_RQ,
    C_STORE_RQ,
    COMMAND_LIMIT,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    UNRECOGNIZED_OPERATION,
    Command,
    p_data,
    read_command,
)
from gateway.errors import Category, GatewayError

if TYPE_CHECKING:
    from gateway.edges.dimse.listener import Listener

log = logging.getLogger("huren.dimse")

_TAG = re.compile(r"\(([0-9A-F]{4}),([0-9A-F]{4})\)")
_LINGER_SECONDS = 5.0  # how long a peer may take to close after its release or rejection


@dataclass(slots=True)
class _Message:
    """A message that is being received."""

    context_id: int
    command_bytes: bytearray = field(default_factory=bytearray)
    command: Command | None = None
    data_set: DataSet | None = None
    complete: bool = False


class Association:
    """Serves one peer on one connection in the caller's thread."""

    def __init__(self, listener: Listener, stream: ul.Stream, peer: str) -> None:
        self._listener = listener
        self._stream = stream
        self._peer = peer
        self._message: _Message | None = None
        self._outcomes: Counter[str] = Counter()
        self.calling = "-"
        self._institution = "-"

    # ---------------------------------------------------------------- life

    def serve(self) -> None:
        """Run until the end, and log one line of it."""
        began = time.perf_counter()
        end = self._ends()
        counts = " ".join(f"{name}={self._outcomes[name]}" for name in ("stored", "same", "refused"))
        level = logging.INFO if end in ("released", "stopping") else logging.WARNING
        log.log(level, "dimse aet=%s peer=%s institution=%s %s end=%s ms=%.0f", self.calling, self._peer,
                self._institution, counts, end, (time.perf_counter() - began) * 1000)

    def _ends(self) -> str:
        try:
            return self._run()
        except ul.PeerClosed:
            return "closed"
        except ul.TooSlow:
            self._abort(2, 0)
            return "timeout"
        except ul.Stopping:
            self._abort(2, 0)
            return "stopping"
        except ul.ProtocolError as error:
            self._abort(2, error.reason)
            return f"protocol-error:{error}".replace(" ", "-")
        except OSError as error:
            return f"connection-lost:{error.errno}"
        except Exception as error:  # our fault: the peer is told, the process lives
            log.error("fault in an association: %s", type(error).__name__)
            self._abort(2, 0)
            return "fault"
        finally:
            if self._message is not None and self._message.data_set is not None:
                self._message.data_set.discard()

    def _abort(self, source: int, reason: int) -> None:
        try:
            self._stream.send(ul.abort(source, reason))
        except OSError:
            return

    def _run(self) -> str:
        limits = self._listener.limits
        kind, content = self._stream.pdu(limits.acse_seconds, idle=True, end_within=limits.acse_seconds)
        if kind != ul.ASSOCIATE_RQ:
            raise ul.ProtocolError(2, "not an A-ASSOCIATE-RQ")
        request = ul.read_request(content)
        self.calling = _printable(request.calling)
        rejection, adapter = self._judge(request)
        if rejection is not None or adapter is None:
            return self._reject(rejection or ul.CALLING_UNKNOWN)
        accepted = ul.accept(request)
        self._adapter, self._agreed = adapter, accepted
        self._aet = request.calling
        self._institution = adapter.source_for(request.calling).institution
        self._stream.send(accepted.encoded)
        return self._established()

    def _judge(self, request: ul.Request) -> tuple[ul.Rejection | None, Adapter | None]:
        if rejection := request.refusal(self._listener.title) or self._listener.refusal(self._peer):
            return rejection, None
        try:
            return None, self._listener.adapters.for_aet(request.calling, self._peer)
        except GatewayError:
            return ul.CALLING_UNKNOWN, None

    def _reject(self, rejection: ul.Rejection) -> str:
        self._stream.send(rejection.encode())
        self._wait_for_close()
        return f"rejected:{rejection.why}".replace(" ", "-")

    def _wait_for_close(self) -> None:
        """The requestor closes (PS3.8 9.2.2, Sta13); closing first could cost it our last PDU."""
        deadline = time.monotonic() + _LINGER_SECONDS
        try:
            while (left := deadline - time.monotonic()) > 0:
                self._stream.pdu(left, idle=True)
        except (ul.PeerClosed, ul.TooSlow, ul.Stopping, ul.ProtocolError, OSError):
            return

    def _established(self) -> str:
        limits = self._listener.limits
        while True:
            idle = self._message is None
            kind, content = self._stream.pdu(limits.idle_seconds if idle else limits.stall_seconds, idle)
            if kind == ul.P_DATA:
                ul.each_pdv(content, self._take)
            elif kind == ul.RELEASE_RQ:
                self._stream.send(ul.RELEASE_RP)
                self._listener.publisher.released(self)
                self._wait_for_close()
                return "released"
            elif kind == ul.ABORT:
                return "aborted"
            else:
                raise ul.ProtocolError(2, "a PDU that has no place in an association")

    # ---------------------------------------------------------------- one message

    def _take(self, context_id: int, control: int, data: memoryview) -> None:
        """One presentation data value: bit 0 of the control header says command, bit 1 last (PS3.8 E.2)."""
        message = self._message
        if message is None:
            if not control & 1:
                raise ul.ProtocolError(5, "a data set without a command")
            message = self._message = _Message(context_id)
        if control & 1:
            self._take_command(message, control, data)
        else:
            if message.command is None:
                raise ul.ProtocolError(5, "a data set before the end of its command")
            if message.data_set is not None:
                message.data_set.add(data)
            message.complete = bool(control & 2)
        if message.complete and message.command is not None:
            self._answer(message, message.command)

    def _take_command(self, message: _Message, control: int, data: memoryview) -> None:
        message.command_bytes += data
        if len(message.command_bytes) > COMMAND_LIMIT:
            raise ul.ProtocolError(6, "a command set too long")
        if not control & 2:
            return
        try:
            command = message.command = read_command(bytes(message.command_bytes))
        except GatewayError:
            raise ul.ProtocolError(6, "a command set that cannot be read") from None
        if message.context_id not in self._agreed.contexts:
            raise ul.ProtocolError(6, "a presentation context that was not accepted")
        message.complete = not command.has_data_set
        abstract, transfer_syntax = self._agreed.contexts[message.context_id]
        if command.field == C_STORE_RQ and ul.is_storage(abstract) and command.has_data_set \
                and command.sop_class and command.sop_instance:
            message.data_set = DataSet(self._listener.staged_path(), command, transfer_syntax, self._aet)

    def _answer(self, message: _Message, command: Command) -> None:
        if command.field == C_ECHO_RQ:
            status, comment, offending = SUCCESS, "", 0
        elif command.field == C_STORE_RQ:
            status, comment, offending = self._store(message, command)
        elif command.field & 0x8000 or command.field == 0x0FFF:  # a response, or C-CANCEL: nothing to answer
            self._message = None
            return
        else:
            status, comment, offending = UNRECOGNIZED_OPERATION, "", 0
        response = command.response(status, comment, offending)
        self._stream.send(p_data(message.context_id, response, self._agreed.peer_maximum_length))
        self._message = None

    def _store(self, message: _Message, command: Command) -> tuple[int, str, int]:
        """C-STORE: status, error comment and offending element of its response (PS3.7 9.3.1)."""
        abstract, _ = self._agreed.contexts[message.context_id]
        if not ul.is_storage(abstract):
            return SOP_CLASS_NOT_SUPPORTED, "not a storage context", 0
        try:
            if message.data_set is None:
                raise GatewayError(Category.MALFORMED, "a C-STORE needs UIDs and a data set", "(0000,1000)")
            outcome = self._keep(message.data_set, command, abstract)
        except GatewayError as error:
            return self._refused(error)
        except Exception as error:
            log.error("fault in a C-STORE: %s", type(error).__name__)
            return self._refused(GatewayError(Category.FAULT, "an error of the gateway itself; send again later"))
        finally:
            if message.data_set is not None:
                message.data_set.discard()
        if outcome == "conflict":
            return self._refused(GatewayError(Category.CONFLICT, "another object has this SOP Instance UID",
                                              "(0008,0018)"))
        self._outcomes["stored" if outcome == "new" else outcome] += 1
        return STORED[outcome], "", 0

    def _keep(self, data_set: DataSet, command: Command, abstract: str) -> str:
        facts, digest = data_set.finish(self._adapter.source.dicom_charset, self._adapter.keep)
        # PS3.4 B.2.3: what the command, the context and the data set say of the object must be one thing
        if facts["SOPClassUID"] != command.sop_class or command.sop_class != abstract:
            raise GatewayError(Category.INVALID, "SOP class of context, command and data set differ", "(0008,0016)")
        if facts["SOPInstanceUID"] != command.sop_instance:
            raise GatewayError(Category.INVALID, "SOP instance of command and data set differ", "(0008,0018)")
        outcome = self._listener.receive(data_set.path, facts, digest, self._aet, self._peer)
        if outcome == "new":
            self._listener.publisher.received(self, self._institution, facts["StudyInstanceUID"])
        return outcome

    def _refused(self, error: GatewayError) -> tuple[int, str, int]:
        status = ANSWERS[error.category]
        self._outcomes["refused"] += 1
        log.warning("dimse aet=%s peer=%s institution=%s outcome=%s where=%s status=%04X", self.calling, self._peer,
                    self._institution, error.category.value, error.where or "-", status)
        match = _TAG.search(error.where)
        return status, error.message, int(match[1] + match[2], 16) if match else 0


def _printable(aet: str) -> str:
    """An AE title for a log line."""
    return "".join(char if char.isascii() and char.isprintable() and char != " " else "_" for char in aet) or "-"


def staged_name(folder: Path, process: int, number: int) -> Path:
    """A name in the staging folder that no other process or message has."""
    return folder / f"dimse-{process}-{number}.part"
