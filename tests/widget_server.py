"""A small server that speaks the plug-in's JSON (`gateway.edges.http.widget`); what a test wants to go wrong, does.

It keeps lines in memory with the same states as the gateway; ``page`` is the workstation page of another origin that
embeds the plug-in by one tag under a strict Content-Security-Policy.
"""

from __future__ import annotations

import contextlib
import json
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from gateway.edges.http.widget import squeezed

LINES = "http://huren.example/fhir/cds-hooks/lines"
REASONS = [
    {"code": "R1", "text_zh": "因病情变化,检查检验结果与患者临床表现、疾病诊断不符,难以满足临床诊疗需求",
     "text_en": "The condition has changed: the result does not fit the patient any more", "needs_text": False},
    {"code": "R4", "text_zh": "患者处于急诊、急救等紧急状态", "text_en": "Emergency", "needs_text": False},
    {"code": "R6", "text_zh": "其他情形确需复查", "text_en": "Another reason that makes a repeat necessary",
     "needs_text": True}]


def _trend(*values: tuple[str, str]) -> list[dict[str, str]]:
    return [{"time": f"{day}T08:00:00+08:00", "value": value, "institution_zh": "第一医院",
             "institution_en": "First Hospital"} for day, value in values]


def lab(line: str = "L1", **more: Any) -> dict[str, Any]:
    """A line whose order a blood count covers."""
    return {
        "line": line, "state": "reminded", "institution": "hz-demo-2", "number": f"P-{line}", "verdict": "RECOGNISABLE",
        "order": {"item": "PHM001A", "name_zh": "血常规", "name_en": "Complete blood count", "local": "XCG",
                  "display": "血常规(五分类)", "department": "消化内科", "doctor": "D-7",
                  "reference": f"ServiceRequest/{line}"},
        "codes": [], "states": [], "missing": [], "preselected": "R4", "reasons": REASONS, "decision": None,
        "blocking": False, "interruptive": True, "must_view": True, "explained": False, "billed": False,
        "reports": [{
            "id": "r1", "kind": "lab", "title_zh": "血常规", "title_en": "Complete blood count",
            "institution": "hz-demo-1", "institution_zh": "演示第一人民医院",
            "institution_en": "Demo First People's Hospital", "time": "2026-11-20T07:35:00+08:00",
            "issued": "2026-11-20T09:10:00+08:00", "status": "final", "conclusion": "", "flags": [], "texts": [],
            "results": [
                {"item": "THM001Q", "name_zh": "白细胞计数", "name_en": "White blood cells", "value": "12.10",
                 "unit": "10*9/L", "range": "3.5–9.5", "flag": "high", "covers": True,
                 "trend": _trend(("2026-10-02", "7.4"), ("2026-11-01", "9.90"), ("2026-11-20", "12.10"))},
                {"item": "THM003M", "name_zh": "血红蛋白量", "name_en": "Haemoglobin", "value": "88", "unit": "g/L",
                 "range": "130–175", "flag": "low", "covers": True,
                 "trend": _trend(("2026-10-02", "121"), ("2026-11-20", "88"))},
                {"item": "THM010O", "name_zh": "血小板计数", "name_en": "Platelets", "value": "210", "unit": "10*9/L",
                 "range": "125–350", "flag": "", "covers": True, "trend": []},
                {"item": "THM0292", "name_zh": "红细胞沉降率", "name_en": "Erythrocyte sedimentation rate",
                 "value": "14", "unit": "mm/h", "range": "0–15", "flag": "", "covers": False, "trend": []}]}]} | more


def exam(line: str = "L2", **more: Any) -> dict[str, Any]:
    """A line whose order a CT covers."""
    return lab(line, order={"item": "ECT0149", "name_zh": "全腹部CT平扫", "name_en": "CT whole abdomen, plain",
                            "local": "CT-ABD", "display": "全腹CT", "department": "急诊科", "doctor": "D-7",
                            "reference": f"ServiceRequest/{line}"},
               reports=[{
                   "id": "r2", "kind": "imaging", "title_zh": "全腹部CT平扫+增强",
                   "title_en": "CT whole abdomen, plain and enhanced", "institution": "hz-demo-3",
                   "institution_zh": "演示钱塘影像医院", "institution_en": "Demo Qiantang Imaging Hospital",
                   "time": "2026-11-19T16:02:00+08:00", "issued": "2026-11-19T18:00:00+08:00", "status": "final",
                   "flags": [], "results": [],
                   "texts": [{"name": "检查所见", "text": "肝右叶见一低密度灶,大小约12mm×10mm,边界清,增强后无强化。\n"
                                                      "胆囊、胰腺、脾未见异常。"}],
                   "conclusion": "肝右叶囊肿。"}]) | more


@dataclass
class Fake:
    """The server's state; tests turn its knobs."""

    lines: dict[str, dict[str, Any]] = field(default_factory=dict)
    signed: list[str] = field(default_factory=list)  # lines that the next order-sign answers with
    waiting: list[str] = field(default_factory=list)  # lines that GET /recognition/reminders answers with
    taken: list[dict[str, Any]] = field(default_factory=list)  # decisions as they came
    seen: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, Authorization
    broken: set[str] = field(default_factory=set)  # beginnings of paths whose connection is cut
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)  # action → status and sentence
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    deaf: int = 0  # decisions that are done and whose answer is cut off
    requests: list[dict[str, Any]] = field(default_factory=list)  # CDS Hooks requests
    page: str = ""
    port: int = 0

    def reminder(self, line: str) -> dict[str, Any]:
        """What a card says of a line."""
        d = self.lines[line]
        report = d["reports"][0]
        return {k: d[k] for k in ("line", "state", "verdict", "interruptive", "blocking", "order", "number")} | {
            "results": [{k: report[k] for k in ("institution_zh", "institution_en", "time")}]}

    def decide(self, action: dict[str, Any], colleague: bool = False) -> tuple[int, dict[str, Any]]:
        """The state machine, as far as the plug-in can see it."""
        d = self.lines[action["line"]]
        if action.get("key") in self.keys:
            return 200, self.keys[action["key"]]
        if not colleague:
            self.taken.append(action)
        kind = action["action"]
        if kind in self.refuse:
            status, sentence = self.refuse[kind]
            return status, {"resourceType": "OperationOutcome", "issue": [{"diagnostics": sentence}]}
        if kind == "view":
            d["state"] = "viewed" if d["state"] == "reminded" else d["state"]
        elif kind == "revoke":
            d["state"], d["decision"] = "viewed", None
        elif d["state"] in ("recognised", "not_recognised"):
            return 409, {"resourceType": "OperationOutcome", "issue": [{"diagnostics": "decided before"}]}
        else:
            d["state"] = "recognised" if kind == "recognise" else "not_recognised"
            d["decision"] = {"id": f"D-{len(self.taken)}", "state": d["state"], "doctor": action["doctor"],
                             "at": "2026-11-22T10:00:00+08:00", "reason": action.get("reason", ""),
                             "text": action.get("text", "")}
        answer = {"line": d["line"], "state": d["state"], "decision": (d["decision"] or {}).get("id", ""),
                  "changed": True}
        if action.get("key"):
            self.keys[action["key"]] = answer
        return 200, answer


def _png(side: int = 96) -> bytes:
    """A grey ramp, as PNG."""
    rows = b"".join(b"\0" + bytes((x * 255 // side + y) % 256 for x in range(side)) for y in range(side))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)) + \
        chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class _Handler(BaseHTTPRequestHandler):
    fake: Fake
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """No line for each request."""

    def _answer(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), "Access-Control-Allow-Origin": "*",
                            "Access-Control-Allow-Headers": "Authorization, Content-Type", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _json(self, status: int, value: Any) -> None:
        self._answer(status, json.dumps(value).encode())

    def _cut(self) -> bool:
        path = self.path.partition("?")[0]
        self.fake.seen.append((self.command, self.path, self.headers.get("Authorization", "")))
        if any(path.startswith(start) for start in self.fake.broken):
            self.close_connection = True
            self.connection.close()
            return True
        return False

    def do_OPTIONS(self) -> None:
        self._answer(204, b"")

    def do_GET(self) -> None:
        if self._cut():
            return
        path, _, _ = self.path.partition("?")
        parts = path.strip("/").split("/")
        if path == "/recognition/widget.js":
            self._answer(200, squeezed(), "text/javascript")
        elif path == "/recognition/reminders" and "old" in self.headers.get("Authorization", ""):
            self._json(401, {"resourceType": "OperationOutcome", "issue": [{"diagnostics": "the session is over"}]})
        elif path == "/recognition/reminders":
            self._json(200, {"reminders": [self.fake.reminder(line) for line in self.fake.waiting]})
        elif path.endswith("/images"):
            instances = [{"uid": f"1.2.{n}", "number": n, "frames": 1} for n in range(5)]
            self._json(200, {"series": [{"uid": "1.2", "description": "腹窗 5mm", "modality": "CT",
                                         "instances": instances}]})
        elif "/images/" in path:
            self._answer(200, _png(), "image/png")
        elif path.startswith("/recognition/lines/") and parts[2] in self.fake.lines:
            self._json(200, self.fake.lines[parts[2]])
        elif path == "/favicon.ico":
            self._answer(204, b"")
        elif path == "/":
            self._answer(200, self.fake.page.encode(), "text/html; charset=utf-8", **{"Content-Security-Policy": (
                "default-src 'none'; style-src 'none'; script-src 'self' http://127.0.0.1:*; "
                "connect-src 'self' http://127.0.0.1:*")})
        else:
            self._json(404, {"resourceType": "OperationOutcome", "issue": [{"diagnostics": "no such line"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._cut():
            return
        if self.path == "/cds-services/recognition":
            self.fake.requests.append(body)
            lines = [self.fake.reminder(line) for line in self.fake.signed]
            self._json(200, {"cards": [{"summary": "s", "indicator": "warning", "source": {"label": "Huren"},
                                        "extension": {LINES: lines}}] if lines else []})
        else:
            done = self.fake.decide(body)
            if self.fake.deaf:
                self.fake.deaf -= 1
                self.close_connection = True
                self.connection.close()
                return
            self._json(*done)


@contextlib.contextmanager
def serving(fake: Fake) -> Iterator[str]:
    """The server on a port of its own; yields its address."""
    handler = type("Handler", (_Handler,), {"fake": fake})
    with ThreadingHTTPServer(("127.0.0.1", fake.port), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        fake.port = server.server_port
        try:
            yield f"http://127.0.0.1:{fake.port}"
        finally:
            server.shutdown()
            thread.join()
