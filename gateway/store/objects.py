"""Large bytes outside the database: DICOM objects and documents, in a local folder or an S3 bucket (`obstore`)."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, S3Store

from gateway.errors import Category, GatewayError

_CHUNK = 1 << 20
#: Of a bucket that does not answer, before BUSY.
RETRIES = 3


class Objects:
    """Keys are ``/``-separated names; a key that exists is written again only with the same bytes.

    ``staging`` is a folder for files on their way in; locally on the same file system, so that ``adopt`` is a rename.
    """

    def __init__(self, url: str, s3_endpoint: str = "", staging: Path | None = None) -> None:
        parts = urlsplit(url)
        self._folder: Path | None = None
        if parts.scheme == "file":
            self._folder = Path(unquote(parts.path))
            self._folder.mkdir(parents=True, exist_ok=True)
            self.staging = self._folder / ".staging"
            self._store: Any = LocalStore(self._folder)
        elif parts.scheme == "s3":
            options: dict[str, Any] = {"client_options": {"allow_http": s3_endpoint.startswith("http://"),
                                                          "timeout": "60s", "connect_timeout": "5s"},
                                       "retry_config": {"max_retries": RETRIES}}
            if s3_endpoint:
                options["endpoint"] = s3_endpoint
            self.staging = staging or Path(tempfile.gettempdir()) / "huren-staging"
            self._store = S3Store.from_url(url, **options)
        else:
            raise GatewayError(Category.INVALID, "HUREN_OBJECTS_URL must be file:///folder or s3://bucket/prefix",
                               "HUREN_OBJECTS_URL")
        self.staging.mkdir(parents=True, exist_ok=True)

    def adopt(self, file: Path, key: str) -> None:
        """Take over a file of ``staging`` durably: after this the object is there and the file is not. BUSY."""
        try:
            if self._folder is None:
                obstore.put(self._store, key, file)
                file.unlink()
                return
            _sync(file)
            target = self._folder / self._place(key)
            made = _make_folder(target.parent)
            os.rename(file, target)
            for folder in {target.parent, *made}:
                _sync(folder)
        except (OSError, BaseError) as error:
            raise _busy(error) from None

    def put(self, key: str, content: bytes) -> None:
        """Store bytes durably."""
        try:
            if self._folder is None:
                obstore.put(self._store, key, content)
                return
            descriptor, name = tempfile.mkstemp(dir=self.staging)
        except (OSError, BaseError) as error:
            raise _busy(error) from None
        file = Path(name)
        try:
            with open(descriptor, "wb") as out:
                out.write(content)
            self.adopt(file, key)
        except OSError as error:
            raise _busy(error) from None
        finally:
            file.unlink(missing_ok=True)

    def get(self, key: str) -> bytes:
        """The whole object; NOT_FOUND."""
        with _errors():
            return bytes(obstore.get(self._store, self._place(key)).bytes())

    def range(self, key: str, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end``, that one not included; NOT_FOUND."""
        with _errors():
            return bytes(obstore.get_range(self._store, self._place(key), start=start, end=end))

    def open(self, key: str) -> Iterator[bytes]:
        """The object in parts of about a mebibyte; NOT_FOUND before the first."""
        with _errors():
            found = obstore.get(self._store, self._place(key))
        return self._parts(found)

    @staticmethod
    def _parts(found: Any) -> Iterator[bytes]:
        with _errors():
            for part in found.stream(min_chunk_size=_CHUNK):
                yield bytes(part)

    def size(self, key: str) -> int:
        """Bytes of an object; NOT_FOUND."""
        with _errors():
            return int(obstore.head(self._store, self._place(key))["size"])

    def delete(self, key: str) -> None:
        """Remove; removing what is not there is no error."""
        with contextlib.suppress(NotFoundError, FileNotFoundError), _errors():
            try:
                obstore.delete(self._store, self._place(key))
            except (NotFoundError, FileNotFoundError):
                return

    def check(self) -> None:
        """BUSY when nothing can be written (for ``huren doctor``)."""
        key = f".check/{os.getpid()}"
        self.put(key, b"ok")
        self.delete(key)

    def _place(self, key: str) -> str:
        """Locally, folders are spread over 4,096, so that none holds too many; a bucket needs none of this."""
        if not key or key.startswith("/") or any(part in ("", ".", "..") for part in key.split("/")):
            raise GatewayError(Category.INVALID, "an object key must be names separated by /", "key")
        if self._folder is None:
            return key
        spread = blake2b(key.rpartition("/")[0].encode(), digest_size=2).hexdigest()[:3]
        return f"{spread}/{key}"


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder with its parents; returns the folders that got a new entry and so must be synced too."""
    if folder.is_dir():
        return []
    touched = _make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    return [*touched, folder.parent]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (NotFoundError, FileNotFoundError):
        raise GatewayError(Category.NOT_FOUND, "the object store holds no object of this key") from None
    except (OSError, BaseError) as error:
        raise _busy(error) from None


def _busy(error: BaseException) -> GatewayError:
    reason = type(error).__name__
    return GatewayError(Category.BUSY, f"the object store cannot be used now ({reason}); send again later")
