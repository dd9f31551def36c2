"""Where streams come from."""

from __future__ import annotations

import numpy as np

from liberate.randomness import stream_words


def test_a_word_depends_on_the_secret_and_its_place_alone() -> None:
    words = stream_words(b"name" + bytes(32), np.arange(100, dtype=np.int32))

    some = np.array([7, 99, 3], np.int32)
    np.testing.assert_array_equal(stream_words(b"name" + bytes(32), some), words[some])
    assert not np.isin(stream_words(b"other" + bytes(32), some), words).any()
    assert len(stream_words(b"name", np.empty(0, np.int32))) == 0
