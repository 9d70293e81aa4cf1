"""The demo hospitals send their examples through the gateway's real ports, each as itself."""

from __future__ import annotations

import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from gateway.adapter import Adapter, hospital_folders, load
from gateway.commands import story
from gateway.commands.send import Tell, send_images, send_messages
from gateway.config import Settings
from gateway.conformance import examples
from gateway.edges.mllp_sender import Outcome


def send_examples(settings: Settings) -> None:
    """Every example of every hospital that the manifests name as a sender, and the story; again, nothing changes."""
    began = time.perf_counter()
    counts = {"accepted": 0, "refused": 0}
    lock = threading.Lock()

    def tell(_: str, outcome: Outcome) -> None:
        with lock:
            counts["accepted" if outcome.accepted else "refused"] += 1

    hospitals = [load(folder) for parent in settings.adapter_folders for folder in hospital_folders(parent)]
    hospitals = [h for h in hospitals if h.sending_facility or h.calling_aets]
    for hospital in hospitals:
        _send(hospital, settings, tell)
    print(f"huren: demo: {len(hospitals)} hospitals sent {sum(counts.values())} messages and images; "
          f"{counts['accepted']} accepted, {counts['refused']} refused as their examples say, "
          f"in {time.perf_counter() - began:.1f} s", flush=True)


def _send(hospital: Adapter, settings: Settings, tell: Tell) -> None:
    today = datetime.now(ZoneInfo(settings.timezone)).date()
    with tempfile.TemporaryDirectory() as folder:
        inputs = [*(e.path for e in examples(hospital.folder)), *story.tell(hospital, today, Path(folder))]
        messages = [p for p in inputs if p.suffix == ".hl7"]
        images = [p for p in inputs if p.suffix != ".hl7"]
        if messages:
            send_messages(messages, settings.mllp, 1, tell)
        if images and hospital.calling_aets:
            send_images(images, settings.dimse, settings.ae_title, hospital.calling_aets[0], 1, tell)
