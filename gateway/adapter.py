"""A hospital is a folder: its manifest, its codes and, where data cannot say it, its hooks.

This is all that a hospital's ``hooks.py`` may import. `Adapters` finds the hospital of a sender; `Adapter.convert_hl7`
and `Adapter.convert_study` turn what it sends into resources. Nothing here does input or output but ``load``.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib.util
import ipaddress
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

from gateway import hl7v2, terminology
from gateway.errors import Category, GatewayError
from gateway.hl7v2 import Message
from gateway.hl7v2.accounting import Account, account
from gateway.source import Change, Conversion, Resource, Source

__all__ = ["Adapter", "Adapters", "Category", "GatewayError", "Message", "Resource", "load", "load_all"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_FINGERPRINT = re.compile(r"(?i)(?:sha-?256[:=])?((?:[0-9a-f]{2}:?){31}[0-9a-f]{2})")
_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,47}\Z")

#: section → key → (type, required). "strings" is a list of strings, "table" a table of strings.
_MANIFEST: dict[str, dict[str, tuple[str, bool]]] = {
    "institution": {"id": ("string", True), "name": ("string", True), "code_system": ("string", True),
                    "quality": ("strings-or-all", False), "per_facility": ("bool", False),
                    "region": ("string", False), "level": ("int", False)},
    "hl7v2": {"sending_facility": ("strings", False), "sending_application": ("strings", False),
              "addresses": ("strings", False), "charset": ("string", False), "timezone": ("string", False),
              "st_numbers": ("bool", False), "unit_component": ("int", False), "orders_share_number": ("bool", False),
              "st_titres": ("bool", False), "st_ranges": ("bool", False), "number_comma": ("string", False),
              "critical_limits": ("bool", False), "accession_field": ("string", False),
              "omitted_results": ("string", False), "organism_codes": ("strings", False),
              "identifier_systems": ("table", False), "tables": ("tables", False),
              "certificates": ("strings", False), "sequence_numbers": ("bool", False),
              "batch_acknowledgement": ("string", False), "acknowledgement_mode": ("string", False)},
    "dicom": {"calling_aets": ("strings", False), "addresses": ("strings", False), "charset": ("string", False),
              "keep": ("string", False), "study_description_is_code": ("bool", False)},
    "recognition": {"reminder": ("string", False)},
    "cds_hooks": {"issuers": ("strings", False), "jku": ("strings", False), "keys": ("string", False),
                  "fhir_servers": ("strings", False)},
    "exempt": {"*": ("string", False)},
}
#: How the reminder for an order that came as HL7v2 goes back: not at all, in the ACK's ERR segments, or as the
#: response message (ORR, ORL); the plug-in shows it in any case.
REMINDERS = ("none", "ack", "response")
#: What answers a batch in one block: a block for each message, a batch of all answers, or of those that refuse.
BATCH_ACKNOWLEDGEMENTS = ("each", "batch", "errors")
#: As MSH-15 and MSH-16 declare, or one answer whatever stands there.
ACKNOWLEDGEMENT_MODES = ("declared", "original")
_HABITS = ("st_numbers", "st_titres", "st_ranges", "number_comma", "critical_limits", "accession_field",
           "unit_component", "orders_share_number", "omitted_results", "organism_codes")
_OMITTED = ("stay", "deleted")  # what a result that a later message of its report leaves out becomes
NUMBER_COMMAS = ("decimal", "thousands")
_ACCESSION_FIELDS = re.compile(r"none|OBR-\d{1,2}\Z")
#: A value of [hl7v2.tables."OBX-5"]: SYSTEM|CODE or SYSTEM|CODE|DISPLAY, or empty for "says nothing".
_CODED_VALUE = re.compile(r"[^|]+\|[^|]+(?:\|[^|]+)?\Z")


@dataclass(frozen=True)
class Adapter:
    """One hospital folder, read."""

    name: str
    folder: Path
    source: Source
    sending_facility: tuple[str, ...] = ()
    sending_application: tuple[str, ...] = ()
    hl7v2_networks: tuple[Network, ...] = ()
    certificates: frozenset[str] = frozenset()  # as `peer_names` has them; empty: none is asked for
    sequence_numbers: bool = False  # MSH-13 is held to the protocol
    batch_acknowledgement: str = "each"  # one of BATCH_ACKNOWLEDGEMENTS
    acknowledgement_mode: str = "declared"  # one of ACKNOWLEDGEMENT_MODES
    calling_aets: tuple[str, ...] = ()
    dicom_networks: tuple[Network, ...] = ()
    keep: str = "full"
    quality: tuple[str, ...] = ()
    per_facility: bool = False
    region: str = ""  # code of the region that the hospital lies in
    level: int = 0  # 3: tertiary
    reminder: str = "none"  # one of REMINDERS
    cds_hooks: Mapping[str, Any] = field(default_factory=dict)  # the manifest's table, as it is
    exempt: Mapping[str, str] = field(default_factory=dict)
    before: Callable[[Message], Message | None] | None = None
    after: Callable[[list[Resource], Message], list[Resource] | None] | None = None

    def source_for(self, facility: str) -> Source:
        """The hospital's Source; with ``per_facility`` each MSH-4 or AE title is an institution of its own, so that two
        senders' patient numbers never meet."""
        return _facility_source(self.source, facility) if self.per_facility and facility else self.source

    def parse(self, raw: bytes) -> Message:
        """The message as this hospital writes it, after its ``before`` hook."""
        message = hl7v2.parse(raw, self.source.charset)
        if self.before is not None:
            message = self.before(message) or message
        return message

    def convert_hl7(self, message: Message, facility: str = "") -> Conversion:
        """What the message becomes; the ``after`` hook sees the resources and may change, add or drop some."""
        return self._after(hl7v2.convert(message, self.source_for(facility)), message)

    def account_hl7(self, raw: bytes, facility: str = "") -> Account:
        """What becomes of each value of a message; hundreds of conversions, so only when somebody asks."""
        source = dataclasses.replace(self.source_for(facility))  # with a memory of its own
        return account(hl7v2.parse(raw, source.charset), lambda message: hl7v2.convert(message, source), self.before,
                       self._after if self.after is not None else None)

    def _after(self, conversion: Conversion, message: Message) -> Conversion:
        if self.after is None:
            return conversion
        resources = [change.resource for change in conversion.changes]
        _set_apart(resources)
        changed = self.after(resources, message)
        return self._replaced(conversion, resources if changed is None else changed)

    def convert_study(self, instances: Iterable[Any], aet: str = "") -> Conversion:
        """ImagingStudy and Patient of the instances' header facts of one study."""
        from gateway import imaging  # pydicom's import costs memory that a process without DICOM does not pay

        return imaging.study_from(list(instances), self.source_for(aet))

    @staticmethod
    def _replaced(conversion: Conversion, resources: list[Resource]) -> Conversion:
        known = {(c.resource["resourceType"], c.resource["id"]): c for c in conversion.changes}
        as_of = max((c.as_of for c in conversion.changes if c.as_of is not None), default=None)
        changes = [dataclasses.replace(known.get((r["resourceType"], r["id"]), Change(r, as_of)), resource=r)
                   for r in resources]
        return dataclasses.replace(conversion, changes=changes)


def _set_apart(resources: list[Resource]) -> None:
    """Give each resource elements of its own: a conversion may put one, such as the category, into several, and a hook
    may change what it gets."""
    seen: set[int] = set()
    for resource in resources:
        for name, value in resource.items():
            if isinstance(value, (dict, list)):
                if id(value) in seen:
                    resource[name] = _copied(value)
                seen.add(id(value))


def _copied(value: Any) -> Any:
    """A deep copy of JSON in a fifth of the time of `copy.deepcopy`."""
    if isinstance(value, dict):
        return {name: _copied(inner) for name, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value


class Adapters:
    """Every hospital that may send, found by what its manifest names."""

    def __init__(self, adapters: Iterable[Adapter], default: str = "") -> None:
        self.all = list(adapters)
        self._by_facility: dict[str, list[Adapter]] = {}
        self._by_aet: dict[str, Adapter] = {}
        for adapter in self.all:
            for facility in adapter.sending_facility:
                self._by_facility.setdefault(facility, []).append(adapter)
            for aet in adapter.calling_aets:
                self._by_aet[aet] = adapter
        self._certificates = frozenset(name for adapter in self.all for name in adapter.certificates)
        self._default = next((a for a in self.all if a.name == default), None)
        if default and self._default is None:
            names = ", ".join(sorted(a.name for a in self.all))
            raise GatewayError(Category.INVALID, f"HUREN_DEFAULT_ADAPTER names no adapter folder; there are: {names}",
                               "HUREN_DEFAULT_ADAPTER")

    def for_hl7(self, facility: str, application: str, peer: str = "") -> Adapter:
        """The adapter of MSH-4 and MSH-3; FORBIDDEN when no manifest names the sender, or not from this ``peer``.

        ``peer``: the address, and behind it what its TLS certificate is called (`peer_of`); empty is not checked.
        """
        candidates = self._by_facility.get(facility, [])
        named = [a for a in candidates if application in a.sending_application]
        adapter = next(iter(named or [a for a in candidates if not a.sending_application]), self._default)
        if adapter is None:
            raise GatewayError(Category.FORBIDDEN, "no manifest names this sending facility and application; add MSH-4 "
                               "to [hl7v2] sending_facility of the hospital's manifest.toml", "MSH-4")
        if not _allowed(adapter.hl7v2_networks, peer):
            raise GatewayError(Category.FORBIDDEN, "this sender's address is not in [hl7v2] addresses of its manifest",
                               "MSH-4")
        if peer and (adapter.certificates or self._certificates and " " in peer):
            self._require_certificate(adapter, peer)
        return adapter

    def _require_certificate(self, adapter: Adapter, peer: str) -> None:
        """A hospital that lists certificates shows one of them, and nobody else shows one of another hospital's."""
        shown = frozenset(peer.split(" ")[1:])
        if not adapter.certificates.isdisjoint(shown):
            return
        if adapter.certificates:
            raise GatewayError(Category.FORBIDDEN, "this sender must show a TLS certificate that is in [hl7v2] "
                               "certificates of its manifest", "MSH-4")
        if not self._certificates.isdisjoint(shown):
            raise GatewayError(Category.FORBIDDEN, "this certificate is another hospital's; add it to [hl7v2] "
                               "certificates of the manifest of each hospital that it sends for", "MSH-4")

    def for_aet(self, aet: str, peer: str = "") -> Adapter:
        """The adapter of a calling AE title; FORBIDDEN when no manifest names it, or not from this address."""
        adapter = self._by_aet.get(aet.strip(), self._default)
        if adapter is None:
            raise GatewayError(Category.FORBIDDEN, "no manifest names this calling AE title; add it to [dicom] "
                                                   "calling_aets of the hospital's manifest.toml", "calling AE title")
        if not _allowed(adapter.dicom_networks, peer):
            raise GatewayError(Category.FORBIDDEN, "this sender's address is not in [dicom] addresses of its manifest",
                               "calling AE title")
        return adapter


def _allowed(networks: tuple[Network, ...], peer: str) -> bool:
    """Whether the peer's address lies in one of the networks; no networks: any address."""
    if not networks or not peer:
        return True
    peer = peer.partition(" ")[0]
    host = peer.rpartition(":")[0].strip("[]") if peer.count(":") == 1 or peer.startswith("[") else peer
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def peer_of(address: str, names: Iterable[str] = ()) -> str:
    """An address and the names of the certificate that it showed, as one text for logs, inbox and ``for_hl7``."""
    return " ".join([address, *sorted(map(certificate_name, names))])


def certificate_name(text: str) -> str:
    """A name of a certificate as it is compared: case does not count, nor do the colons of a SHA-256 fingerprint."""
    if match := _FINGERPRINT.fullmatch(text.strip()):
        return "sha256:" + match[1].replace(":", "").lower()
    return quote(text.strip().casefold(), safe=":/@*._-")


@lru_cache(maxsize=4096)
def _facility_slug(facility: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", facility.lower()).strip("-")[:32]
    if slug == facility.lower():
        return slug
    # Whatever the slug loses (Chinese, case, punctuation) is kept apart by a digest.
    return f"{slug}-{hashlib.blake2b(facility.encode(), digest_size=4).hexdigest()}".strip("-")


_FACILITY_SOURCES: dict[tuple[int, str], Source] = {}


def _facility_source(source: Source, facility: str) -> Source:
    key = (id(source), facility)
    found = _FACILITY_SOURCES.get(key)
    if found is None:
        institution = f"{source.institution}-{_facility_slug(facility)}"
        found = dataclasses.replace(source, institution=institution, name=facility,
                                    code_system=f"urn:huren:{institution}:item")
        if len(_FACILITY_SOURCES) < 4096:  # a flood of invented facilities must not grow memory
            _FACILITY_SOURCES[key] = found
    return found


def load_all(folders: Iterable[Path], default: str = "") -> Adapters:
    """Every hospital folder of the given folders; INVALID when two claim one sender or one institution id."""
    adapters = [load(folder) for parent in folders for folder in hospital_folders(parent)]
    seen: dict[tuple[str, ...], str] = {}
    for adapter in adapters:
        applications = adapter.sending_application or ("",)
        claims = [("institution", adapter.source.institution), *(("calling AE title", t) for t in adapter.calling_aets),
                  *(("MSH-4/MSH-3", f, a) for f in adapter.sending_facility for a in applications)]
        for claim in claims:
            if claim in seen:
                raise GatewayError(Category.INVALID, f"adapters '{seen[claim]}' and '{adapter.name}' both claim "
                                   f"{' '.join(claim)}; one sender belongs to one hospital", "manifest.toml")
            seen[claim] = adapter.name
    return Adapters(adapters, default)


def hospital_folders(parent: Path) -> list[Path]:
    """The folders with a ``manifest.toml`` in a folder of hospitals; the folder itself when it is one."""
    if not parent.is_dir():
        raise GatewayError(Category.INVALID, f"HUREN_ADAPTERS names '{parent}', which is not a folder",
                           "HUREN_ADAPTERS")
    if (parent / "manifest.toml").exists():
        return [parent]
    return sorted(p.parent for p in parent.glob("*/manifest.toml"))


def load(folder: Path) -> Adapter:
    """Read one hospital folder; INVALID names file and key."""
    manifest = read_manifest(folder / "manifest.toml")
    institution, v2, dicom = (manifest.get(k, {}) for k in ("institution", "hl7v2", "dicom"))
    source = Source(
        institution=institution["id"], name=institution["name"], code_system=institution["code_system"],
        codes=terminology.CodeMap(read_codes(folder / "codes.csv"), f"{folder.name}/codes.csv"),
        timezone=v2.get("timezone", "Asia/Shanghai"), charset=v2.get("charset"), dicom_charset=dicom.get("charset"),
        tables=v2.get("tables", {}), identifier_systems=v2.get("identifier_systems", {}),
        habits={k: v2[k] for k in _HABITS if k in v2}
        | {k: dicom[k] for k in ("study_description_is_code",) if k in dicom})
    before, after = _hooks(folder)
    quality = institution.get("quality", [])
    return Adapter(
        name=folder.name, folder=folder, source=source, before=before, after=after,
        sending_facility=tuple(v2.get("sending_facility", ())),
        sending_application=tuple(v2.get("sending_application", ())),
        certificates=frozenset(map(certificate_name, v2.get("certificates", ()))),
        sequence_numbers=v2.get("sequence_numbers", False),
        batch_acknowledgement=v2.get("batch_acknowledgement", "each"),
        acknowledgement_mode=v2.get("acknowledgement_mode", "declared"),
        hl7v2_networks=_networks(v2, "hl7v2"), calling_aets=tuple(dicom.get("calling_aets", ())),
        dicom_networks=_networks(dicom, "dicom"), keep=dicom.get("keep", "full"),
        quality=("all",) if quality == "all" else tuple(quality),
        per_facility=institution.get("per_facility", False), region=institution.get("region", ""),
        level=institution.get("level", 0), reminder=manifest.get("recognition", {}).get("reminder", "none"),
        cds_hooks=manifest.get("cds_hooks", {}), exempt=manifest.get("exempt", {}))


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest as a dict, every section and key checked."""
    try:
        manifest = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise GatewayError(Category.INVALID, f"{path.parent.name}/manifest.toml cannot be read: {error}",
                           "manifest.toml") from None
    for section, values in manifest.items():
        _check_section(path, section, values)
    for key, (_, required) in _MANIFEST["institution"].items():
        if required and not manifest.get("institution", {}).get(key):
            raise _bad(path, f"[institution] {key} is required")
    if not _SLUG.match(manifest["institution"]["id"]):
        raise _bad(path, "[institution] id must be a slug of a-z, 0-9 and '-', at most 48 long")
    zone = manifest.get("hl7v2", {}).get("timezone", "Asia/Shanghai")
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        raise _bad(path, "[hl7v2] timezone must be an IANA zone such as Asia/Shanghai") from None
    if manifest.get("dicom", {}).get("keep", "full") not in ("full", "metadata"):
        raise _bad(path, "[dicom] keep must be \"full\" or \"metadata\"")
    _check_values(path, manifest.get("hl7v2", {}))
    if manifest.get("recognition", {}).get("reminder", "none") not in REMINDERS:
        raise _bad(path, f"[recognition] reminder must be one of {', '.join(REMINDERS)}")
    if manifest.get("hl7v2", {}).get("batch_acknowledgement", "each") not in BATCH_ACKNOWLEDGEMENTS:
        raise _bad(path, f"[hl7v2] batch_acknowledgement must be one of {', '.join(BATCH_ACKNOWLEDGEMENTS)}")
    if manifest.get("hl7v2", {}).get("acknowledgement_mode", "declared") not in ACKNOWLEDGEMENT_MODES:
        raise _bad(path, f"[hl7v2] acknowledgement_mode must be one of {', '.join(ACKNOWLEDGEMENT_MODES)}")
    return manifest


def _bad(path: Path, sentence: str) -> GatewayError:
    return GatewayError(Category.INVALID, f"{path.parent.name}/{path.name}: {sentence}", path.name)


def _check_values(path: Path, v2: Mapping[str, Any]) -> None:
    """The habits of OBX-5 and of the accession number."""
    if v2.get("number_comma", NUMBER_COMMAS[0]) not in NUMBER_COMMAS:
        raise _bad(path, f"[hl7v2] number_comma must be one of {', '.join(NUMBER_COMMAS)}")
    if v2.get("omitted_results", "stay") not in _OMITTED:
        raise _bad(path, f"[hl7v2] omitted_results must be one of {', '.join(_OMITTED)}")
    if not _ACCESSION_FIELDS.match(v2.get("accession_field", "none")):
        raise _bad(path, "[hl7v2] accession_field must be a field of OBR such as OBR-18, or none")
    for coded in v2.get("tables", {}).get("OBX-5", {}).values():
        if coded and not _CODED_VALUE.match(coded):
            raise _bad(path, "[hl7v2.tables.\"OBX-5\"] must give SYSTEM|CODE|DISPLAY, such as "
                       "SCT|260385009|Negative, or nothing")


def _check_section(path: Path, section: str, values: Any) -> None:
    known = _MANIFEST.get(section)
    if known is None or not isinstance(values, dict):
        near = difflib.get_close_matches(section, _MANIFEST, n=1, cutoff=0)[0]
        raise _bad(path, f"unknown section [{section}]; did you mean [{near}]?")
    for key, value in values.items():
        rule = known.get(key) or known.get("*")
        if rule is None:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0)[0]
            raise _bad(path, f"unknown key '{key}' in [{section}]; did you mean '{near}'?")
        if not _IS[rule[0]](value):
            raise _bad(path, f"[{section}] {key} must be {_SAY[rule[0]]}")


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _table(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())


_IS: dict[str, Callable[[Any], bool]] = {
    "string": lambda v: isinstance(v, str) and bool(v.strip()), "bool": lambda v: isinstance(v, bool),
    "int": lambda v: isinstance(v, int) and not isinstance(v, bool), "strings": _strings, "table": _table,
    "strings-or-all": lambda v: v == "all" or _strings(v),
    "tables": lambda v: isinstance(v, dict) and all(_table(t) for t in v.values())}
_SAY = {"string": "a text that is not empty", "bool": "true or false", "int": "a whole number",
        "strings": "a list of texts", "table": "a table of texts", "strings-or-all": "a list of item codes, or \"all\"",
        "tables": "a table for each place, such as [hl7v2.tables.\"OBX-8\"]"}


def _networks(section: Mapping[str, Any], name: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(text, strict=False) for text in section.get("addresses", ()))
    except ValueError:
        raise GatewayError(Category.INVALID, f"[{name}] addresses must be addresses or networks such as 10.1.0.0/16",
                           "manifest.toml") from None


def read_codes(path: Path) -> list[terminology.CodeRow]:
    """The rows of ``codes.csv`` (``local,item,display,unit``; UTF-8 with or without BOM); empty when there is none."""
    if not path.exists():
        return []
    try:
        return terminology.code_rows(path.read_text(encoding="utf-8-sig"), f"{path.parent.name}/codes.csv")
    except UnicodeDecodeError:
        raise _bad(path, "must be UTF-8; in a spreadsheet save it as 'CSV UTF-8'") from None


Hook = Callable[..., Any]


def _hooks(folder: Path) -> tuple[Hook | None, Hook | None]:
    path = folder / "hooks.py"
    if not path.exists():
        return None, None
    spec = importlib.util.spec_from_file_location(f"adapters.{folder.name}.hooks", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _bad(path, f"cannot be imported: {type(error).__name__}: {error}") from None
    return getattr(module, "before", None), getattr(module, "after", None)
