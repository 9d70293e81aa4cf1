"""A PostgreSQL of Debian's packages in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.gateway import free_port


@contextlib.contextmanager
def scratch() -> Iterator[str]:
    """The URL of a fresh server that ends with the block; empty where PostgreSQL is not installed."""
    bins = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not bins:
        yield ""
        return
    folder, port, binaries = Path(tempfile.mkdtemp(prefix="huren-bench-pg-")), free_port(), bins[-1].parent
    as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []  # initdb refuses root
    if as_user:
        shutil.chown(folder, "postgres")

    def run(tool: str, *arguments: str, check: bool = True) -> None:
        subprocess.run([*as_user, str(binaries / tool), "-D", str(folder / "db"), *arguments], check=check, cwd="/",
                       stdout=subprocess.DEVNULL)

    run("initdb", "-A", "trust", "-U", "huren", "-E", "UTF8", "--locale=C")
    run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", f"-p {port} -k {folder} -c shared_buffers=256MB", "start")
    try:
        yield f"postgresql://huren@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-m", "fast", "stop", check=False)
        shutil.rmtree(folder, ignore_errors=True)
