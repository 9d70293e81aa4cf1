"""Which format comes in and which goes out (http.html#mime-type, RFC 9110 12.5.1), and what the client prefers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from gateway.errors import Category, GatewayError

FHIR_JSON, FHIR_XML = "application/fhir+json", "application/fhir+xml"
_JSON = {FHIR_JSON, "application/json", "text/json", "application/json+fhir"}
_XML = {FHIR_XML, "application/xml", "text/xml", "application/xml+fhir"}
_FHIR = {FHIR_JSON, FHIR_XML, "application/json+fhir", "application/xml+fhir"}
_SHORT = {"json": FHIR_JSON, "xml": FHIR_XML}
_VERSIONS = {"4.0", "4.0.1"}
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Format:
    """How an answer is written: its Content-Type, and whether that is XML."""

    content_type: str
    xml: bool


JSON = Format(f"{FHIR_JSON}; charset=utf-8", False)


def _format(media_type: str) -> Format:
    return Format(f"{media_type}; charset=utf-8", media_type in _XML)


@lru_cache(maxsize=512)
def accepted(accept: str, format_parameter: str = "") -> Format:
    """The format of the answer: ``_format`` wins over Accept; UNSUPPORTED (406) when we have none of those asked for.

    A generic type is answered with itself (http.html#mime-type). A browser, which prefers ``text/html``, gets JSON.
    """
    if format_parameter:
        name = format_parameter.partition(";")[0].strip().lower().replace(" ", "+")  # ``+`` of a query not escaped
        name = _SHORT.get(name, name)
        if name in _JSON | _XML:
            _check_version(format_parameter, "accept")
            return _format(name)
        raise GatewayError(Category.UNSUPPORTED, "_format must be json or xml", "_format", detail="accept")
    if not accept.strip():
        return JSON
    ranges = _ranges(accept)
    version_refused = False
    for _, name, text in ranges:
        if name in _JSON or name in _XML:
            try:
                _check_version(text, "accept")
            except GatewayError:
                version_refused = True
                continue
            return _format(name)
        if name in ("*/*", "application/*", "text/html", "application/xhtml+xml"):
            return JSON
    if version_refused:
        raise GatewayError(Category.UNSUPPORTED, "this server speaks fhirVersion=4.0", "Accept", detail="accept")
    raise GatewayError(Category.UNSUPPORTED, f"ask for {FHIR_JSON} or {FHIR_XML}", "Accept", detail="accept")


def binary(accept: str, format_parameter: str, content_type: str) -> Format | None:
    """The format of a Binary as a resource, which must be asked for by FHIR's own types (binary.html); None: its bytes.

    ``application/json`` and ``*/*`` mean the bytes, and so does the Binary's own type where it is preferred.
    """
    if format_parameter:
        return accepted(accept, format_parameter)
    weights = {name: (weight, text) for weight, name, text in reversed(_ranges(accept))}
    fhir = [weights[name] for name in weights if name in _FHIR]
    if not fhir:
        return None
    own = weights.get(content_type.partition(";")[0].strip().lower(), (0.0, ""))[0]
    best = max(fhir, key=lambda found: found[0])
    return accepted(best[1]) if best[0] >= own else None


def _ranges(accept: str) -> list[tuple[float, str, str]]:
    """The media ranges of an Accept header, best first; those of weight 0 are left out."""
    found = []
    for place, text in enumerate(accept.split(",")):
        name, *parameters = (part.strip() for part in text.split(";"))
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip().lower() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        if weight > 0:
            found.append((-weight, place, name.lower(), text))
    return [(-weight, name, text) for weight, _, name, text in sorted(found)]


def _check_version(text: str, detail: str) -> None:
    for parameter in text.split(";")[1:]:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "fhirversion" and value.strip().strip('"') not in _VERSIONS:
            raise GatewayError(Category.UNSUPPORTED, "this server speaks fhirVersion=4.0", detail=detail)


@lru_cache(maxsize=512)
def sent(content_type: str) -> Format:
    """The format of a request's body; UNSUPPORTED (415) when it is neither JSON nor XML."""
    name, *parameters = (part.strip() for part in content_type.lower().split(";"))
    if name not in _JSON | _XML:
        raise GatewayError(Category.UNSUPPORTED, f"send {FHIR_JSON} or {FHIR_XML}", "Content-Type",
                           detail="content-type")
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "charset" and value.strip().strip('"') not in ("utf-8", "utf8"):
            raise GatewayError(Category.UNSUPPORTED, "send UTF-8", "Content-Type", detail="content-type")
    _check_version(content_type, "content-type")
    return _format(name)


@dataclass(frozen=True, slots=True)
class Preferences:
    """The Prefer header (RFC 7240) as FHIR uses it: http.html#ops and search.html#errors."""

    returns: str = ""  # "minimal", "representation" or "OperationOutcome"; empty: the server chooses
    handling: str = "strict"  # or "lenient"


_RETURNS = {"minimal": "minimal", "representation": "representation", "operationoutcome": "OperationOutcome"}


@lru_cache(maxsize=512)
def preferences(prefer: str) -> Preferences:
    """What the client prefers; a preference that we do not know is not kept, as RFC 7240 2 says."""
    returns, handling = "", "strict"
    for text in prefer.replace(";", ",").split(","):
        key, _, value = text.partition("=")
        value = value.strip().strip('"').lower()
        if key.strip().lower() == "return":
            returns = _RETURNS.get(value, returns)
        elif key.strip().lower() == "handling" and value in ("strict", "lenient"):
            handling = value
    return Preferences(returns, handling)
