"""The parts of the HTTP edge that need no store: negotiation, the answer table, proxies, figures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.exceptions import MethodNotAllowed, NotFound, RequestEntityTooLarge

from gateway.config import Settings
from gateway.edges.http import negotiate
from gateway.edges.http.answers import ANSWERS, answer_for, outcome_of, refusal_of
from gateway.edges.http.figures import BUCKETS, INTERACTIONS, STATUSES, Figures, sample
from gateway.edges.http.proxies import Proxies
from gateway.errors import Category, GatewayError
from gateway.fhir import check

FHIR_JSON, FHIR_XML = "application/fhir+json", "application/fhir+xml"


@pytest.mark.parametrize(("accept", "parameter", "expected"), [
    ("", "", FHIR_JSON),
    ("*/*", "", FHIR_JSON),
    ("application/*", "", FHIR_JSON),
    ("application/json", "", "application/json"),
    ("application/fhir+json", "", FHIR_JSON),
    ("application/fhir+json; fhirVersion=4.0", "", FHIR_JSON),
    ("application/fhir+xml", "", FHIR_XML),
    ("application/xml", "", "application/xml"),
    ("text/xml", "", "text/xml"),
    ("application/fhir+xml;q=0.5, application/fhir+json", "", FHIR_JSON),
    ("application/fhir+json;q=0.4, application/fhir+xml;q=0.9", "", FHIR_XML),
    ("application/pdf, application/fhir+xml;q=0.1", "", FHIR_XML),
    ("application/fhir+json;q=0, application/fhir+xml", "", FHIR_XML),
    ("application/fhir+json;fhirVersion=5.0, application/fhir+xml;fhirVersion=4.0;q=0.1", "", FHIR_XML),
    ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "", FHIR_JSON),
    ("application/fhir+json", "xml", FHIR_XML),
    ("application/pdf", "json", FHIR_JSON),
    ("", "application/fhir+xml", FHIR_XML),
    ("", "application/fhir xml", FHIR_XML),  # the + of a query that nobody escaped
    ("", "text/xml", "text/xml"),
])
def test_answer_format(accept: str, parameter: str, expected: str) -> None:
    """_format wins over Accept; a generic type is answered with itself; weights count (http.html#mime-type)."""
    found = negotiate.accepted(accept, parameter)
    assert (expected + "; charset=utf-8", "xml" in expected) == (found.content_type, found.xml)


@pytest.mark.parametrize(("accept", "parameter"), [
    ("application/pdf", ""), ("text/plain", ""), ("application/fhir+json; fhirVersion=3.0", ""), ("", "ttl"),
    ("application/fhir+json;q=0", ""), ("application/json", "application/fhir+json;fhirVersion=5.0")])
def test_formats_that_we_do_not_have_are_406(accept: str, parameter: str) -> None:
    """Turtle, HTML and other releases of FHIR are refused as not acceptable."""
    with pytest.raises(GatewayError) as refused:
        negotiate.accepted(accept, parameter)
    assert answer_for(refused.value).status == 406


@given(st.text(max_size=60), st.text(max_size=20))
def test_any_header_is_answered_or_refused(accept: str, parameter: str) -> None:
    """No Accept header and no _format makes the negotiation fail otherwise than by a refusal."""
    try:
        negotiate.accepted(accept, parameter)
    except GatewayError as refused:
        assert answer_for(refused).status == 406


@pytest.mark.parametrize(("content_type", "is_xml"), [
    ("application/fhir+json", False), ("application/json; charset=UTF-8", False), ("text/xml", True),
    ("application/fhir+xml; fhirVersion=4.0", True),
    ("application/fhir+json;fhirVersion=4.0;charset=\"utf-8\"", False)])
def test_body_format(content_type: str, is_xml: bool) -> None:
    """The body is read as what its Content-Type says."""
    assert is_xml == negotiate.sent(content_type).xml


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data",
                                          "application/fhir+json; fhirVersion=3.0", "application/json; charset=gbk"])
def test_bodies_that_we_cannot_read_are_415(content_type: str) -> None:
    """Another type, another release and another charset are unsupported media types."""
    with pytest.raises(GatewayError) as refused:
        negotiate.sent(content_type)
    assert answer_for(refused.value).status == 415


@pytest.mark.parametrize(("prefer", "returns", "handling"), [
    ("", "", "strict"), ("return=minimal", "minimal", "strict"), ("handling=lenient", "", "lenient"),
    ("return=OperationOutcome; handling=strict", "OperationOutcome", "strict"),
    ("handling=lenient, return=representation", "representation", "lenient"),
    ("respond-async, return=rubbish", "", "strict")])
def test_preferences(prefer: str, returns: str, handling: str) -> None:
    """Known preferences are kept in any order; unknown ones are ignored (RFC 7240 2)."""
    assert (returns, handling) == (negotiate.preferences(prefer).returns, negotiate.preferences(prefer).handling)


@pytest.mark.parametrize("category", Category)
def test_every_category_has_its_answer(category: Category) -> None:
    """Every category is answered with an error status and a valid OperationOutcome."""
    error = GatewayError(category, "say what to do", "Observation.code")
    assert category in ANSWERS
    assert 400 <= answer_for(error).status <= 599
    assert check.check(outcome_of(error)) == []


@pytest.mark.parametrize(("category", "detail", "status"), [
    (Category.MALFORMED, "", 400), (Category.MALFORMED, "too-large", 413), (Category.UNSUPPORTED, "", 400),
    (Category.UNSUPPORTED, "path", 404), (Category.UNSUPPORTED, "method", 405), (Category.UNSUPPORTED, "accept", 406),
    (Category.UNSUPPORTED, "content-type", 415), (Category.INVALID, "", 422), (Category.INVALID, "required", 422),
    (Category.INVALID, "search", 400), (Category.INVALID, "request", 400), (Category.FORBIDDEN, "", 403),
    (Category.FORBIDDEN, "login", 401), (Category.NOT_FOUND, "", 404), (Category.NOT_FOUND, "gone", 410),
    (Category.CONFLICT, "", 409), (Category.CONFLICT, "precondition", 412), (Category.BUSY, "", 503),
    (Category.FAULT, "", 500)])
def test_status_of_each_detail(category: Category, detail: str, status: int) -> None:
    """The answer table of the architecture, with the rows that a detail picks."""
    assert status == answer_for(GatewayError(category, "x", detail=detail)).status


def test_a_busy_gateway_says_when_to_come_back() -> None:
    """503 carries Retry-After, 401 says how to log in."""
    assert "Retry-After" in dict(answer_for(GatewayError(Category.BUSY, "x")).headers)
    assert dict(answer_for(GatewayError(Category.FORBIDDEN, "x", detail="login")).headers)["WWW-Authenticate"] \
        .startswith("Bearer")


@pytest.mark.parametrize(("problem", "status"), [
    (NotFound(), 404), (MethodNotAllowed(), 405), (RequestEntityTooLarge(), 413), (ZeroDivisionError("Li Wei"), 500)])
def test_what_others_raise_is_answered_in_our_words(problem: Exception, status: int) -> None:
    """The framework's refusals and our own bugs become refusals of the table; nothing of a bug gets out."""
    error = refusal_of(problem)
    assert status == answer_for(error).status
    assert "Li Wei" not in str(outcome_of(error))


# ---------------------------------------------------------------- proxies

def _origin(trusted: str = "", public: str = "", http: str = "127.0.0.1:8080", **environ: str) -> tuple[str, str]:
    proxies = Proxies(Settings(trusted_proxies=trusted, public_url=public, http=http))
    found = proxies.origin({"REMOTE_ADDR": "10.0.0.7", "HTTP_HOST": "gateway.local", **environ})
    return found.peer, found.base


def test_forwarded_headers_of_strangers_are_not_believed() -> None:
    """Without HUREN_TRUSTED_PROXIES anybody could claim any address; the address of the connection counts."""
    own = ("10.0.0.7", "http://127.0.0.1:8080")
    assert _origin(HTTP_X_FORWARDED_FOR="192.0.2.1", HTTP_X_FORWARDED_HOST="evil.example",
                   HTTP_FORWARDED="for=192.0.2.1") == own
    assert _origin(trusted="10.9.0.0/16", HTTP_X_FORWARDED_FOR="192.0.2.1") == own


def test_forwarded_headers_of_a_trusted_proxy_count() -> None:
    """The client's address, scheme and host are those that the trusted proxy saw."""
    assert _origin(
        trusted="10.0.0.0/8", HTTP_X_FORWARDED_FOR="192.0.2.1", HTTP_X_FORWARDED_PROTO="https",
        HTTP_X_FORWARDED_HOST="fhir.example") == ("192.0.2.1", "https://fhir.example")
    assert _origin(
        trusted="10.0.0.7", HTTP_FORWARDED='for="[2001:db8::1]:4711";proto=https;host=fhir.example') == ("2001:db8::1", "https://fhir.example")


def test_what_stands_left_of_an_untrusted_hop_is_invented() -> None:
    """Addresses are read from the right, through trusted proxies only."""
    assert _origin(trusted="10.0.0.0/8",
                                     HTTP_X_FORWARDED_FOR="192.0.2.1, 198.51.100.9, 10.0.0.8")[0] == "198.51.100.9"
    assert _origin(trusted="10.0.0.0/8", HTTP_X_FORWARDED_FOR="192.0.2.1, unknown, 10.0.0.8")[0] == "10.0.0.8"


def test_the_public_url_wins() -> None:
    """HUREN_PUBLIC_URL is the base of links, whatever headers say."""
    assert _origin(trusted="10.0.0.7", public="https://fhir.example/x/",
                                               HTTP_X_FORWARDED_HOST="other")[1] == "https://fhir.example/x"


def test_a_wildcard_listener_answers_with_the_host_that_was_asked() -> None:
    """Bound to every address there is no address of ours to give: the Host header has the client's."""
    assert _origin(http="0.0.0.0:8080")[1] == "http://gateway.local"


def test_a_host_with_markup_is_not_taken_over() -> None:
    """A forwarded host that is no host is dropped."""
    assert _origin(trusted="10.0.0.7", HTTP_X_FORWARDED_HOST='a"><script>')[1] == "http://127.0.0.1:8080"


def test_a_proxy_that_is_no_address_stops_the_start() -> None:
    """A typo in HUREN_TRUSTED_PROXIES must not quietly trust nobody, or everybody."""
    with pytest.raises(GatewayError) as refused:
        Proxies(Settings(trusted_proxies="10.0.0.300"))
    assert refused.value.where == "HUREN_TRUSTED_PROXIES"


# ---------------------------------------------------------------- figures

def test_figures_of_all_workers_add_up() -> None:
    """Whichever process is asked answers for all: each counts in its own part of one shared map."""
    figures = Figures(2)
    figures.own(0)
    figures.count("read", 200, 0.0005)
    figures.own(1)
    figures.count("read", 200, 0.3)
    figures.count("read", 404, 60)
    lines = figures.requests()
    assert 'huren_http_requests_total{interaction="read",status="200"} 2' in lines
    assert 'huren_http_requests_total{interaction="read",status="404"} 1' in lines
    assert 'huren_http_request_duration_seconds_bucket{interaction="read",le="0.001"} 1' in lines
    assert 'huren_http_request_duration_seconds_bucket{interaction="read",le="0.5"} 2' in lines
    assert 'huren_http_request_duration_seconds_bucket{interaction="read",le="+Inf"} 3' in lines
    assert 'huren_http_request_duration_seconds_count{interaction="read"} 3' in lines
    assert any(line.startswith('huren_http_request_duration_seconds_sum{interaction="read"} 60.30') for line in lines)


@given(st.lists(st.tuples(st.sampled_from((*INTERACTIONS, "rubbish")), st.sampled_from((*STATUSES, 299)),
                          st.floats(0, 100)), max_size=30))
def test_no_request_is_lost_or_counted_twice(requests: list[tuple[str, int, float]]) -> None:
    """Counts by status and by duration both add up to the number of requests."""
    figures = Figures()
    for request in requests:
        figures.count(*request)
    lines = figures.requests()
    by_status = sum(int(line.rpartition(" ")[2]) for line in lines if line.startswith("huren_http_requests_total{"))
    by_time = sum(int(line.rpartition(" ")[2]) for line in lines if "_duration_seconds_count{" in line)
    assert (len(requests), len(requests)) == (by_status, by_time)
    assert len(BUCKETS) > 3


def test_label_values_are_escaped() -> None:
    """A quote, a backslash or a line end in a label does not break the text format."""
    assert sample("x", 1, a='q"b\\c\nd') == 'x{a="q\\"b\\\\c\\nd"} 1'
