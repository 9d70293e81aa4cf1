"""Settings: the only reader of the environment. One setting, one field, one line in the manual."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from zoneinfo import ZoneInfo

from gateway.errors import Category, GatewayError

PREFIX = "HUREN_"
LOG_LEVELS = ("debug", "info", "warning", "error")
SHIPPED_ADAPTERS = Path(__file__).resolve().parent.parent / "adapters"


@dataclass(frozen=True, slots=True)
class Settings:
    """Every field is the environment variable ``HUREN_`` + its name in capitals; see `gateway/README.md`."""

    data: Path = Path("./data")
    database_url: str = ""
    objects_url: str = ""
    s3_endpoint: str = ""
    http: str = "127.0.0.1:8080"
    http_workers: int = 0
    mllp: str = "127.0.0.1:2575"
    mllp_workers: int = 0
    mllp_max_bytes: int = 64 * 1024 * 1024
    mllp_idle_seconds: int = 3600
    mllp_frame_seconds: int = 60
    mllp_connections: int = 500
    mllp_connections_per_address: int = 100
    mllp_tls: str = ""
    mllp_tls_cert: str = ""
    mllp_tls_key: str = ""
    mllp_tls_ca: str = ""
    dimse: str = "127.0.0.1:11112"
    dimse_associations: int = 60
    ae_title: str = "HUREN"
    adapters: str = str(SHIPPED_ADAPTERS)
    default_adapter: str = ""
    public_url: str = ""
    trusted_proxies: str = ""
    timezone: str = "Asia/Shanghai"
    log_level: str = "info"
    demo: bool = False  # set by `huren serve --demo`, never by the environment

    @property
    def database(self) -> str:
        """SQLAlchemy URL of the database."""
        if not self.database_url:
            return f"sqlite:///{(self.data / 'huren.sqlite').resolve()}"
        for plain in ("postgresql://", "postgres://"):
            if self.database_url.startswith(plain):
                return "postgresql+psycopg://" + self.database_url[len(plain):]
        return self.database_url

    @property
    def objects(self) -> str:
        """URL of the object store: ``file:///…`` or ``s3://bucket/prefix``."""
        return self.objects_url or (self.data / "objects").resolve().as_uri()

    @property
    def base_url(self) -> str:
        """Base of absolute links, without a trailing slash."""
        return (self.public_url or f"http://{self.http}").rstrip("/")

    @property
    def workers(self) -> int:
        """HTTP worker processes."""
        return self.http_workers or os.cpu_count() or 1

    @property
    def mllp_processes(self) -> int:
        """MLLP worker processes."""
        return self.mllp_workers or os.cpu_count() or 1

    @property
    def adapter_folders(self) -> list[Path]:
        """Folders that hold hospital folders."""
        return [Path(p) for p in self.adapters.split(":") if p]


_NOT_FROM_ENVIRONMENT = {"demo"}


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from the environment; INVALID names an unknown variable and its nearest known name."""
    environ = os.environ if environ is None else environ
    known = {PREFIX + f.name.upper(): f for f in fields(Settings) if f.name not in _NOT_FROM_ENVIRONMENT}
    values: dict[str, object] = {}
    for name, text in environ.items():
        if not name.startswith(PREFIX):
            continue
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise GatewayError(Category.INVALID, f"unknown setting {name}; did you mean {near[0]}?", name)
        if text.strip():
            values[known[name].name] = _value(name, text.strip(), known[name].default)
    settings = Settings(**values)  # type: ignore[arg-type]
    _check(settings)
    return settings


def _value(name: str, text: str, default: object) -> object:
    if isinstance(default, Path):
        return Path(text)
    if not isinstance(default, int):
        return text
    least = 0 if name.endswith("_WORKERS") else 1  # 0: as many as there are cores
    if not text.isdecimal() or int(text) < least:
        raise GatewayError(Category.INVALID, f"{name} must be a whole number of at least {least}", name)
    return int(text)


def _check(settings: Settings) -> None:
    for name in ("http", "mllp", "dimse"):
        host_port(getattr(settings, name), PREFIX + name.upper())
    _check_mllp_tls(settings)
    try:
        ZoneInfo(settings.timezone)
    except (KeyError, ValueError, OSError):
        raise GatewayError(Category.INVALID, "HUREN_TIMEZONE must be an IANA zone such as Asia/Shanghai",
                           "HUREN_TIMEZONE") from None
    title = settings.ae_title
    if len(title) > 16 or not title.isascii() or not title.isprintable() or "\\" in title:  # PS3.5 6.2, AE
        raise GatewayError(Category.INVALID, "HUREN_AE_TITLE must be at most 16 ASCII characters without a backslash",
                           "HUREN_AE_TITLE")
    if settings.log_level.lower() not in LOG_LEVELS:
        raise GatewayError(Category.INVALID, f"HUREN_LOG_LEVEL must be one of {', '.join(LOG_LEVELS)}",
                           "HUREN_LOG_LEVEL")
    if settings.public_url and not settings.public_url.startswith(("http://", "https://")):
        raise GatewayError(Category.INVALID, "HUREN_PUBLIC_URL must begin with http:// or https://", "HUREN_PUBLIC_URL")


def _check_mllp_tls(settings: Settings) -> None:
    """A port needs a certificate, and a certificate a port: half of it would leave the hospitals without TLS."""
    if settings.mllp_tls:
        host_port(settings.mllp_tls, "HUREN_MLLP_TLS")
        if not settings.mllp_tls_cert:
            raise GatewayError(Category.INVALID, "HUREN_MLLP_TLS needs HUREN_MLLP_TLS_CERT, a file of PEM "
                               "certificates, and HUREN_MLLP_TLS_KEY, their private key", "HUREN_MLLP_TLS_CERT")
    elif settings.mllp_tls_cert or settings.mllp_tls_key or settings.mllp_tls_ca:
        raise GatewayError(Category.INVALID, "HUREN_MLLP_TLS_… is set and HUREN_MLLP_TLS is not: name the port of TLS, "
                           "such as :2576", "HUREN_MLLP_TLS")


def host_port(text: str, where: str = "") -> tuple[str, int]:
    """``127.0.0.1:8080`` or ``[::1]:8080`` → host and port."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise GatewayError(Category.INVALID, f"{where or 'address'} must be HOST:PORT, such as 127.0.0.1:8080", where)
    return host.strip("[]"), int(port)
