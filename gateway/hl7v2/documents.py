"""Documents that a message carries: a Binary each, whose bytes go to the object store and never into a resource."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

from gateway.source import Document

if TYPE_CHECKING:
    from gateway.hl7v2.builder import Builder


def document(builder: Builder, whole_id: str, content_type: str, data: bytes, security_reference: str,
             ) -> dict[str, Any]:
    """Take the bytes over and return the Attachment that names them (``url``: ``Binary/…``, with size and SHA-1).

    ``whole_id``: of the resource that shows the document. The Binary's id holds a digest of the bytes: the same
    document sent again is the same Binary, a corrected one is another, and the older one stays readable for the older
    version of the resource. ``security_reference``: whose the document is, ``Patient/…`` (binary.html).
    """
    made = builder.part(whole_id, "Binary", hashlib.sha256(data).hexdigest())
    made["contentType"] = content_type
    made["securityContext"] = {"reference": security_reference}
    if all(known.id != made["id"] for known in builder.conversion.documents):
        builder.conversion.documents.append(Document(made["id"], content_type, data))
        builder.add(made, None, "skip")
    return {"contentType": content_type, "url": f"Binary/{made['id']}", "size": len(data),
            "hash": base64.b64encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()}
