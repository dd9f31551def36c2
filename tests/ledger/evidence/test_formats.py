"""Files of evidence and proof name their format, and a file of any other format or version is refused."""

from __future__ import annotations

import re

import pytest
from msgspec import Struct

from liberate.crypto.canonical_json import decode, encode
from liberate.errors import InvalidRecord
from liberate.identifiers import Digest
from liberate.ledger.evidence.equivocation import EquivocationFile
from liberate.ledger.evidence.split_view import ForkEvidence, SplitViewEvidence
from liberate.ledger.trace.completeness import Completeness

FILES = [
    EquivocationFile(key=bytes(32), first=b"one", second=b"other"),
    SplitViewEvidence(first="one", second="other", divergence=None),
    ForkEvidence(earlier="one", later="other", prefix=Digest(bytes(32)), proof=()),
    Completeness(
        number=3,
        checkpoint="note",
        entries=(b"one",),
        block=b"block",
        block_proof=(),
        principal_count=4,
        state_proof=(),
    ),
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: type(file).__name__)
@pytest.mark.parametrize("change", [(b"/1", b"/2"), (b'"liberate-', b'"other-'), (b'"format"', b'"version"')])
def test_another_format_is_refused(file: Struct, change: tuple[bytes, bytes]) -> None:
    data = encode(file)
    assert decode(data, type(file)) == file

    with pytest.raises(InvalidRecord):
        decode(data.replace(*change, 1), type(file))


@pytest.mark.parametrize("file", FILES, ids=lambda file: type(file).__name__)
def test_a_file_that_names_no_format_is_refused(file: Struct) -> None:
    data = encode(file)
    without = re.sub(rb'"format":"[^"]*",', b"", data)
    assert without != data

    with pytest.raises(InvalidRecord):
        decode(without, type(file))
