"""Settings: one field each, one variable each; a typo stops the start."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from gateway.config import Settings, host_port, load
from gateway.errors import Category, GatewayError


def test_without_variables_the_defaults_hold() -> None:
    """An empty environment is a complete configuration: loopback ports, a SQLite file in ./data."""
    settings = load({"PATH": "/bin"})
    assert settings == Settings()
    assert settings.database.startswith("sqlite:///") and settings.database.endswith("/data/huren.sqlite")
    assert settings.objects.startswith("file:///") and settings.base_url == "http://127.0.0.1:8080"


def test_every_field_is_read_from_its_variable() -> None:
    """HUREN_ + the field's name in capitals sets the field, with the field's type."""
    settings = load({"HUREN_DATA": "/srv/huren", "HUREN_MLLP_IDLE_SECONDS": " 60 ", "HUREN_AE_TITLE": "PACS1",
                     "HUREN_HTTP_WORKERS": "0", "HUREN_MLLP": "[::1]:2575"})
    assert settings.data == Path("/srv/huren") and settings.mllp_idle_seconds == 60
    assert settings.ae_title == "PACS1" and settings.workers >= 1
    assert host_port(settings.mllp) == ("::1", 2575)


@pytest.mark.parametrize(("typo", "meant"), [
    ("HUREN_MLP", "HUREN_MLLP"), ("HUREN_DATABASEURL", "HUREN_DATABASE_URL"), ("HUREN_AETITLE", "HUREN_AE_TITLE"),
    ("HUREN_DEMO", "HUREN_"),
])
def test_an_unknown_variable_names_the_nearest_known_one(typo: str, meant: str) -> None:
    """A misspelt setting is refused, not ignored; --demo is no setting."""
    with pytest.raises(GatewayError, match=f"unknown setting {typo}; did you mean {meant}") as refused:
        load({typo: "1"})
    assert refused.value.category is Category.INVALID and refused.value.where == typo


@pytest.mark.parametrize(("name", "value"), [
    ("HUREN_HTTP", "8080"), ("HUREN_MLLP", "localhost"), ("HUREN_DIMSE", "127.0.0.1:99999"),
    ("HUREN_MLLP_MAX_BYTES", "64MB"), ("HUREN_MLLP_CONNECTIONS", "0"), ("HUREN_MLLP_IDLE_SECONDS", "-5"),
    ("HUREN_TIMEZONE", "Peking"), ("HUREN_TIMEZONE", "../etc/passwd"), ("HUREN_AE_TITLE", "A" * 17),
    ("HUREN_AE_TITLE", "互认"), ("HUREN_AE_TITLE", "A\\B"), ("HUREN_LOG_LEVEL", "loud"),
    ("HUREN_PUBLIC_URL", "gateway.example"),
])
def test_a_value_that_cannot_work_stops_the_start(name: str, value: str) -> None:
    """The refusal names the variable and says what it should be."""
    with pytest.raises(GatewayError) as refused:
        load({name: value})
    assert refused.value.where == name and name in refused.value.message


def test_postgresql_urls_get_the_driver() -> None:
    """Both spellings of a PostgreSQL URL select psycopg."""
    for scheme in ("postgresql", "postgres"):
        settings = load({"HUREN_DATABASE_URL": f"{scheme}://u@db/huren"})
        assert settings.database == "postgresql+psycopg://u@db/huren"


def test_the_manual_has_one_line_for_every_setting_and_no_other() -> None:
    """`gateway/README.md` lists exactly the settings that exist."""
    manual = (Path(__file__).parents[1] / "gateway" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(HUREN_[A-Z0-9_]+)` \|", manual, re.MULTILINE)
    assert sorted(listed) == sorted(f"HUREN_{f.name.upper()}" for f in fields(Settings) if f.name != "demo")
