"""What a client did not prefetch, from its own FHIR server ("FHIR Resource Access"): allowed servers only, in 300 ms.

The access token goes to a server that the hospital's manifest names, and nowhere else: no redirect is followed, no
proxy of the environment is used. Whatever does not come in time, or is not what was asked for, counts as not there.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any
from urllib.parse import quote

from gateway.adapter import Adapter
from gateway.config import Settings
from gateway.edges.http.cds_hooks.keys import usable_url
from gateway.edges.http.cds_hooks.reading import body_of
from gateway.edges.http.cds_hooks.request import TEMPLATES, Call, resources_of
from gateway.errors import GatewayError
from gateway.fhir import json

#: Seconds for everything that one call fetches, and bytes of one answer.
WAIT, SIZE = 0.3, 1024 * 1024
#: Requests under way in one process; a server that hangs holds its threads no longer than ``WAIT``.
THREADS = 16

Found = dict[str, tuple[dict[str, Any], ...]]


class Fetcher:
    """See the module. One per process."""

    def __init__(self, settings: Settings, adapters: Iterable[Adapter]) -> None:
        self._allowed = allowed_servers(adapters, settings.demo)
        self._threads = ThreadPoolExecutor(THREADS, "fhir-server")

    def allows(self, institution: str, server: str) -> bool:
        """Whether the hospital's manifest names this FHIR server."""
        return server.rstrip("/") in self._allowed.get(institution, frozenset())

    def fetch(self, call: Call, keys: Iterable[str]) -> Found:
        """What came of these prefetch keys; the server must be allowed (`allows`)."""
        until = time.monotonic() + WAIT
        headers = {"Accept": "application/fhir+json"}
        if call.token:
            headers["Authorization"] = f"Bearer {call.token}"
        under_way = {key: self._threads.submit(self._one, call, key, headers, until) for key in keys}
        done, late = wait(under_way.values(), timeout=WAIT)
        for future in late:
            future.cancel()
        came = {key: future.result() for key, future in under_way.items() if future in done}
        return {key: resources for key, resources in came.items() if resources is not None}

    def _one(self, call: Call, key: str, headers: Mapping[str, str], until: float) -> tuple[dict[str, Any], ...] | None:
        """The resources of one key; None where they cannot be had or are of somebody else."""
        path = TEMPLATES[key].replace("{{context.patientId}}", quote(call.patient_id)) \
                             .replace("{{context.encounterId}}", quote(call.encounter_id))
        raw = body_of(f"{call.server.rstrip('/')}/{path}", headers, SIZE, until)
        if raw is None:
            return None
        try:
            value = json.loads(raw)
            if value.get("resourceType") != "Bundle" and value.get("id") not in (call.patient_id, call.encounter_id):
                return None
            return resources_of(key, value, f"fhirServer.{key}", call.patient_id, call.encounter_id)
        except GatewayError:
            return None


def allowed_servers(adapters: Iterable[Adapter], demo: bool) -> dict[str, frozenset[str]]:
    """By institution, the base URLs that its manifest names; INVALID names the manifest of an unsafe one."""
    found = {}
    for adapter in adapters:
        place = f"{adapter.name}/manifest.toml [cds_hooks] fhir_servers"
        servers = [usable_url(url, demo, place) for url in adapter.cds_hooks.get("fhir_servers", ())]
        found[adapter.source.institution] = frozenset(url.rstrip("/") for url in servers)
    return found
