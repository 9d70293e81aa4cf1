"""`huren send`: HL7v2 files over MLLP and DICOM objects by C-STORE, as a hospital sends them."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway import hl7v2
from gateway.config import Settings, host_port
from gateway.edges.mllp.tls import client_context
from gateway.edges.mllp_sender import Outcome, Sender
from gateway.errors import GatewayError

if TYPE_CHECKING:
    import ssl

    from gateway.edges.dimse_sender import Thing

_HL7, _DICOM = "hl7", "dicom"


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="PATH…")
@click.option("--mllp", metavar="HOST:PORT", help="Where HL7v2 goes (HUREN_MLLP).")
@click.option("--dimse", metavar="HOST:PORT", help="Where DICOM goes (HUREN_DIMSE).")
@click.option("--called", metavar="AET", help="The receiver's AE title (HUREN_AE_TITLE).")
@click.option("--calling", metavar="AET", help="The sender's AE title, as the receiver knows it; needed for DICOM.")
@click.option("--tls", is_flag=True, help="HL7v2 over TLS, to HUREN_MLLP_TLS unless --mllp names another.")
@click.option("--cert", metavar="FILE", default="", help="The sender's certificate chain (PEM), if one is asked for.")
@click.option("--key", metavar="FILE", default="", help="Its private key (PEM), if it is not in the same file.")
@click.option("--ca", metavar="FILE", default="", help="Authorities (PEM) that the receiver's certificate is checked "
              "against; without it, the system's.")
@click.option("--connections", metavar="N", type=click.IntRange(1, 64), default=1, show_default=True,
              help="Connections at once; with more than one, files overtake each other.")
@click.pass_obj
def send(settings: Settings, paths: tuple[Path, ...], mllp: str | None, dimse: str | None, called: str | None,
         calling: str | None, tls: bool, cert: str, key: str, ca: str, connections: int) -> int:
    """Send .hl7 files (one message, several, or an FHS/BHS batch) and DICOM files; folders with all they hold.

    A message whose answer was lost is sent again, which changes nothing where it has arrived. Prints one line for each
    refusal; exit status 1 if there was any.
    """
    files = list(find(paths))
    messages = [path for path, kind in files if kind == _HL7]
    images = [path for path, kind in files if kind == _DICOM]
    if not files:
        raise click.UsageError("there is no HL7v2 or DICOM file in what you named")
    if images and not calling:
        raise click.UsageError("DICOM objects need the sender's AE title: add --calling AET")
    if (cert or key or ca) and not tls:
        raise click.UsageError("--cert, --key and --ca are for --tls")
    if tls and not (mllp or settings.mllp_tls):
        raise click.UsageError("name the port of TLS: --mllp HOST:PORT")
    context = client_context(ca, cert, key) if tls else None
    report = Report(len(files))
    with report:
        if messages:
            address = mllp or (settings.mllp_tls if tls else settings.mllp)
            send_messages(messages, address, connections, report.tell, report.advance, context)
        if images and calling:
            send_images(images, dimse or settings.dimse, called or settings.ae_title, calling, connections,
                        report.tell, report.advance)
    return report.close()


def find(paths: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """The HL7v2 and DICOM files of files and folders, in order of name; a file that is named must be one of them."""
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file())
            yield from ((p, kind) for p in inside if (kind := kind_of(p)))
        elif kind := kind_of(path):
            yield path, kind
        else:
            raise click.UsageError(f"{path} is neither HL7v2 (MSH, FHS, BHS) nor DICOM")


def kind_of(path: Path) -> str:
    """``hl7``, ``dicom`` or empty, by what the file begins with; its name decides where the content does not."""
    if path.name.endswith((".dcm", ".dcm.json")):
        return _DICOM
    with path.open("rb") as file:
        head = file.read(512)
    if head[128:132] == b"DICM":  # PS3.10 7.1
        return _DICOM
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip(b"\x0b\r\n \t")[:3].upper()
    return _HL7 if start in (b"MSH", b"FHS", b"BHS") or path.suffix.lower() == ".hl7" else ""


Tell = Callable[[str, Outcome], None]


def send_messages(paths: Iterable[Path], address: str, connections: int, tell: Tell,
                  advance: Callable[[], None] = lambda: None, tls: ssl.SSLContext | None = None) -> None:
    """Every message of every file, on so many connections; BUSY when the receiver does not answer."""
    host, port = host_port(address, "--mllp")
    waiting, lock, failed = iter(list(paths)), threading.Lock(), threading.Event()

    def run() -> None:
        sender = Sender(host, port, tls=tls)
        try:
            while not failed.is_set():
                with lock:
                    path = next(waiting, None)
                if path is None:
                    return
                messages = hl7v2.split(path.read_bytes())
                for number, raw in enumerate(messages, 1):
                    tell(f"{path}[{number}]" if len(messages) > 1 else str(path), sender.send(raw))
                advance()
        except BaseException:
            failed.set()
            raise
        finally:
            sender.close()

    _together(run, connections)


def send_images(paths: Iterable[Path], address: str, called: str, calling: str, connections: int, tell: Tell,
                advance: Callable[[], None] = lambda: None) -> None:
    """Every object of every file, on so many associations."""
    from gateway.edges import dimse_sender

    host, port = host_port(address, "--dimse")
    items: list[Thing] = []
    for path in paths:
        try:
            items += dimse_sender.things(path)
        except GatewayError as error:
            tell(str(path), Outcome(False, "-", error.where if error.where != str(path) else "", error.message))
        advance()
    shares = [items[i::connections] for i in range(connections)]
    taken = iter(share for share in shares if share)
    lock = threading.Lock()

    def run() -> None:
        with lock:
            share = next(taken, [])
        dimse_sender.send(share, host, port, called, calling, lambda item, outcome: tell(item.name, outcome))

    _together(run, connections)


def _together(run: Callable[[], None], connections: int) -> None:
    """Run it so many times at once; the first failure is raised when all have ended."""
    if connections == 1:
        run()
        return
    with ThreadPoolExecutor(connections) as pool:
        for future in [pool.submit(run) for _ in range(connections)]:
            future.result()


class Report:
    """Counts outcomes, prints refusals, and shows a progress bar where somebody looks."""

    def __init__(self, files: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(TextColumn("files"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"),
                             TimeRemainingColumn(), console=self._console, transient=True,
                             disable=not self._console.is_terminal)
        self._task = self._bar.add_task("", total=files, said="")
        self._lock = threading.Lock()
        self._began = time.perf_counter()
        self.sent = self.refused = self.remarks = 0

    def __enter__(self) -> Report:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tell(self, name: str, outcome: Outcome) -> None:
        """Count one outcome; a refusal is a line on standard error."""
        with self._lock:
            self.sent += 1
            self.remarks += outcome.remark
            if not outcome.accepted:
                self.refused += 1
                self._console.print(f"{name}: {outcome}", markup=False, soft_wrap=True)
            if not self._bar.disable:
                self._bar.update(self._task, said=f"{self.sent} sent, {self.refused} refused")

    def advance(self) -> None:
        """One more file is read."""
        if not self._bar.disable:
            self._bar.advance(self._task)

    def close(self) -> int:
        """Print the sum; the exit status."""
        seconds = max(time.perf_counter() - self._began, 1e-6)
        remarks = f" ({self.remarks} with a remark)" if self.remarks else ""
        click.echo(f"{self.sent} sent, {self.sent - self.refused} accepted{remarks}, {self.refused} refused "
                   f"in {seconds:.1f} s ({self.sent / seconds:.0f}/s)")
        sys.stdout.flush()
        return 1 if self.refused else 0
