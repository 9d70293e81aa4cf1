"""Objects in a local folder and in a bucket: the same behaviour (`gateway/store/objects.py`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Category, GatewayError
from gateway.store import objects
from gateway.store.objects import Objects


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.long)])
def kept(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Objects]:
    """An empty object store."""
    if request.param == "local":
        yield Objects((tmp_path / "objects").as_uri())
        return
    boto3, server = pytest.importorskip("boto3"), pytest.importorskip("moto.server")
    for name, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1",
                        "AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    s3 = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    s3.start()
    host, port = s3.get_host_and_port()
    boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="huren")
    yield Objects("s3://huren/prefix", f"http://{host}:{port}", tmp_path / "staging")
    s3.stop()


def _refused(category: Category, call: Any) -> None:
    with pytest.raises(GatewayError) as caught:
        call()
    assert category is caught.value.category


def test_an_adopted_file_is_the_object(kept: Objects) -> None:
    """The file is gone from ``staging``; the object reads back whole, in ranges and as a stream."""
    content = os.urandom(3_000_000)
    file = kept.staging / "incoming"
    file.write_bytes(content)
    kept.adopt(file, "dicom/hz/1.2/1.2.3.dcm")
    assert not file.exists()
    assert content == kept.get("dicom/hz/1.2/1.2.3.dcm")
    assert content[100:200] == kept.range("dicom/hz/1.2/1.2.3.dcm", 100, 200)
    parts = list(kept.open("dicom/hz/1.2/1.2.3.dcm"))
    assert len(parts) > 1 and content == b"".join(parts)
    assert 3_000_000 == kept.size("dicom/hz/1.2/1.2.3.dcm")


def test_small_bytes(kept: Objects) -> None:
    """``put`` stores bytes, also none at all; the same key with the same bytes again is no error."""
    for content in (b"", b"x" * 10):
        kept.put(f"doc/{len(content)}", content)
        kept.put(f"doc/{len(content)}", content)
        assert content == kept.get(f"doc/{len(content)}")


def test_what_is_not_there(kept: Objects) -> None:
    """NOT_FOUND for every way to read; deleting it is no error."""
    for call in (lambda: kept.get("a/b"), lambda: kept.range("a/b", 0, 1), lambda: kept.open("a/b"),
                 lambda: kept.size("a/b")):
        _refused(Category.NOT_FOUND, call)
    kept.delete("a/b")
    kept.put("a/b", b"1")
    kept.delete("a/b")
    _refused(Category.NOT_FOUND, lambda: kept.get("a/b"))


@pytest.mark.parametrize("key", ["", "/etc/passwd", "a/../b", "a//b", "."])
def test_keys_stay_inside(tmp_path: Path, key: str) -> None:
    """A key cannot leave the folder."""
    kept = Objects((tmp_path / "objects").as_uri())
    _refused(Category.INVALID, lambda: kept.put(key, b"x"))
    assert [] == [p for p in (tmp_path / "objects").rglob("*") if p.is_file()]


def test_folders_are_spread(tmp_path: Path) -> None:
    """Studies of one institution do not all lie in one folder; a study's objects lie together."""
    kept = Objects((tmp_path / "objects").as_uri())
    for study in range(50):
        for n in range(2):
            kept.put(f"dicom/hz/{study}/{n}", b"x")
    top = [p for p in (tmp_path / "objects").iterdir() if p.name != ".staging"]
    assert 40 <= len(top) <= 50
    assert [] == list(kept.staging.iterdir())


def test_a_full_or_broken_disk_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The staged file stays where it is, for another try."""
    kept = Objects((tmp_path / "objects").as_uri())
    file = kept.staging / "incoming"
    file.write_bytes(b"x")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(objects.os, "fsync", full)
    _refused(Category.BUSY, lambda: kept.adopt(file, "a/b"))
    _refused(Category.BUSY, lambda: kept.put("a/c", b"x"))
    _refused(Category.BUSY, kept.check)
    monkeypatch.undo()
    assert file.exists()
    kept.adopt(file, "a/b")
    kept.check()


def test_a_bucket_that_is_away_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server at the endpoint."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setattr(objects, "RETRIES", 0)
    kept = Objects("s3://huren", "http://127.0.0.1:9", tmp_path / "staging")
    _refused(Category.BUSY, lambda: kept.get("a/b"))
    _refused(Category.BUSY, lambda: kept.put("a/b", b"x"))


def test_an_unknown_scheme(tmp_path: Path) -> None:
    """INVALID names the setting."""
    _refused(Category.INVALID, lambda: Objects("ftp://x/y"))
