"""What a signature covers: DSSE's pre-authentication encoding, which binds a payload to its media type."""

from __future__ import annotations


def dsse_pae(payload_type: str, body: bytes) -> bytes:
    """Return the bytes that a signature over a typed payload covers.

    Source: DSSE v1.0.2, protocol.md, "PAE".
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)
