"""`huren doctor`: looks at everything that a gateway stands on, and says what to do where something is wrong."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import click

from gateway.commands.opening import opened
from gateway.config import Settings, host_port
from gateway.errors import GatewayError

_LOW_DISK = 2 * 1024**3
_SOME_DISK = 10 * 1024**3
_SOME_DAYS = 30
_PROFILED = 200  # of a hospital's messages, held against its profile
_LOOKED_AT = 5000  # rows of the inbox


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing looked at. ``state``: "ok", "note" (works, but look) or "bad" (must be mended)."""

    state: str
    what: str
    said: str


@click.command()
@click.pass_obj
def doctor(settings: Settings) -> int:
    """Check settings, ports, database, disk and adapters, and say what to do. Exit status 1 when something is bad."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    style = {"ok": "green", "note": "yellow", "bad": "red"}
    bad = 0
    for sign in signs(settings):
        bad += sign.state == "bad"
        console.print(Text.assemble((f"{sign.state:<5}", style[sign.state]), f"{sign.what:<10} {sign.said}"))
    console.print(f"{bad} thing(s) to mend" if bad else "nothing to mend")
    return 1 if bad else 0


def signs(settings: Settings) -> Iterator[Sign]:
    """Everything that is looked at, in the order in which a start would meet it."""
    yield _settings()
    yield _clock(settings)
    yield from _disk(settings)
    yield from _database(settings)
    yield from _adapters(settings)
    yield from _drift(settings)
    for name in ("http", "mllp", "dimse"):
        yield _port(settings, name)
    if settings.mllp_tls:
        yield from _certificates(settings)
        yield _port(settings, "mllp_tls")


def _settings() -> Sign:
    given = sorted(name for name in os.environ if name.startswith("HUREN_"))
    return Sign("ok", "settings", ", ".join(given) or "all defaults")


def _clock(settings: Settings) -> Sign:
    now = datetime.now(ZoneInfo(settings.timezone))
    said = f"{now:%Y-%m-%d %H:%M:%S %z} in {settings.timezone}"
    built = datetime.fromtimestamp(Path(__file__).stat().st_mtime, UTC)
    if (now - built).days < -1:
        return Sign("bad", "clock", f"{said}: before this program was installed; set the clock (NTP)")
    return Sign("ok", "clock", said)


def _disk(settings: Settings) -> Iterator[Sign]:
    folder = settings.data.resolve()
    there = next(p for p in (folder, *folder.parents) if p.exists())
    if not os.access(there, os.W_OK):
        yield Sign("bad", "disk", f"{there} cannot be written by this user; give it to the user or set HUREN_DATA")
        return
    free = shutil.disk_usage(there).free
    said = f"{folder}: {free / 1024**3:.1f} GiB free"
    if free < _LOW_DISK:
        yield Sign("bad", "disk", f"{said}; make room or set HUREN_DATA, or messages will soon go unanswered")
    else:
        yield Sign("ok" if free >= _SOME_DISK else "note", "disk", said)


def _database(settings: Settings) -> Iterator[Sign]:
    from gateway.store import migrations

    kind = settings.database.split(":")[0].split("+")[0]
    if kind == "sqlite" and not settings.database_url and not (settings.data / "huren.sqlite").exists():
        yield Sign("note", "database", f"{kind}: not made yet; `huren serve` or `huren migrate` makes it")
        return
    try:
        with opened(settings) as store:
            counts = store.counts()
    except GatewayError as error:
        yield Sign("bad", "database", f"{kind}: {error.message}")
        return
    except Exception as error:  # whatever a driver raises: this is the place to tell it
        yield Sign("bad", "database", f"{kind}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
        return
    resources = sum(counts["resources"].values())
    yield Sign("ok", "database", f"{kind}, schema {migrations.newest()}: {resources} resources of "
               f"{counts['persons']} persons and {counts['institutions']} institutions, {counts['instances']} images")
    if waiting := counts["inbox"]["quarantined"]:
        yield Sign("note", "inbox", f"{waiting} in quarantine; `huren inbox list --status quarantined` says why")
    if counts["unmapped"]:
        yield Sign("note", "codes", f"{counts['unmapped']} local codes are not mapped; add them to codes.csv")


def _adapters(settings: Settings) -> Iterator[Sign]:
    from gateway import conformance
    from gateway.adapter import hospital_folders, load_all
    from gateway.edges.http import cds_hooks

    try:
        loaded = load_all(settings.adapter_folders, settings.default_adapter)
        cds_hooks.require_usable(settings, loaded.all)
    except GatewayError as error:
        yield Sign("bad", "adapters", error.message)
        return
    names = ", ".join(a.name for a in loaded.all)
    yield Sign("ok" if loaded.all else "note", "adapters", names or "none: nobody may send; `huren adapter new NAME`")
    for parent in settings.adapter_folders:
        for folder in hospital_folders(parent):
            open_ = [f for f in conformance.check(folder) if not f.exempt]
            if open_:
                yield Sign("bad", "adapters", f"{folder.name}: {len(open_)} finding(s); `huren adapter check {folder}`")


def _drift(settings: Settings) -> Iterator[Sign]:
    """Whether what hospitals sent lately is like their profiles: the newest messages of each that has one."""
    from gateway.adapter import hospital_folders, load
    from gateway.commands.onboarding import arrived
    from gateway.onboarding.drift import drift
    from gateway.onboarding.profile import from_json, profile_of

    try:
        folders = [f for parent in settings.adapter_folders for f in hospital_folders(parent)
                   if (f / "profile.json").exists()]
        if not folders or not settings.database_url and not (settings.data / "huren.sqlite").exists():
            return
        with opened(settings) as store:
            for folder in folders:
                now = profile_of(arrived(store, load(folder), 0, _PROFILED, look=_LOOKED_AT))
                changes = [d for d in drift(from_json((folder / "profile.json").read_bytes()), now) if d.certain]
                if changes:
                    yield Sign("note", "drift", f"{folder.name}: {len(changes)} change(s) from its profile in the last "
                               f"{now.messages} messages; `huren adapter drift {folder.name} --inbox` tells them")
    except GatewayError as error:
        if error.where == "profile.json":
            yield Sign("note", "drift", error.message)
        # whatever else is wrong with adapters or database is told above


def _certificates(settings: Settings) -> Iterator[Sign]:
    """The files of TLS, how long the certificate holds, and whether senders are known by theirs."""
    from cryptography import x509

    from gateway.edges.mllp.tls import ServerTls

    try:
        ServerTls(settings)
        ends = x509.load_pem_x509_certificate(Path(settings.mllp_tls_cert).read_bytes()).not_valid_after_utc
    except GatewayError as error:
        yield Sign("bad", "tls", error.message)
        return
    except ValueError:
        yield Sign("bad", "tls", "HUREN_MLLP_TLS_CERT holds no certificate that can be read")
        return
    days = (ends - datetime.now(UTC)).days
    said = f"the certificate holds until {ends:%Y-%m-%d}"
    if days < 0:
        yield Sign("bad", "tls", f"{said}: no sender will take it; renew it, a restart is not needed")
    else:
        yield Sign("ok" if days >= _SOME_DAYS else "note", "tls", f"{said}, {days} days")
    if not settings.mllp_tls_ca:
        yield Sign("note", "tls", "HUREN_MLLP_TLS_CA is not set: senders show no certificate, and a manifest that "
                   "lists certificates lets nobody send")


def _port(settings: Settings, name: str) -> Sign:
    address = str(getattr(settings, name))
    host, port = host_port(address)
    try:
        with socket.create_connection((host if host not in ("", "0.0.0.0", "::") else "localhost", port), timeout=2):
            pass
    except ConnectionRefusedError:
        return _free(name, host, port)
    except OSError as error:
        return Sign("bad", name, f"{address}: {error.strerror or error}; set HUREN_{name.upper()}")
    if name == "http" and not _is_huren(host, port):
        return Sign("bad", name, f"{address} is taken by another program; stop it or set HUREN_HTTP")
    return Sign("ok", name, f"{address} answers")


def _is_huren(host: str, port: int) -> bool:
    bracketed = f"[{host}]" if ":" in host else host or "localhost"
    try:
        with urllib.request.urlopen(f"http://{bracketed}:{port}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError, http.client.HTTPException):
        return False


def _free(name: str, host: str, port: int) -> Sign:
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        return Sign("bad", name, f"{host}:{port} cannot be opened ({error.strerror}); set HUREN_{name.upper()}")
    return Sign("ok", name, f"{host}:{port} is free")
