"""The bytes of a model: the same model gives the same bytes, and so the same digest."""

from __future__ import annotations

import json
from hashlib import sha256

import numpy as np

from liberate.errors import DataError
from liberate.identifiers import Digest
from liberate.model.model import Array, Model

_MAGIC = b"liberate model 1\n"
_DTYPES = ("<f4", "<f8")


def encode_model(model: Model) -> bytes:
    """Encode a model: a line that names the format, a line of JSON, then the arrays by name, little-endian."""
    arrays = {name: array.astype(array.dtype.newbyteorder("<")) for name, array in sorted(model.arrays.items())}
    header = {
        "arrays": [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()],
        "high": float(model.high),
        "low": float(model.low),
        "statistic": model.statistic,
        "version": model.version,
    }
    text = json.dumps(header, separators=(",", ":"), sort_keys=True).encode()
    return b"".join([_MAGIC, text, b"\n", *(array.tobytes() for array in arrays.values())])


def decode_model(data: bytes) -> Model:
    """Read a model back from its bytes.

    Raises:
        DataError: The bytes are no encoded model, or not the one encoding of it.
    """
    try:
        model = _decoded(data)
        if encode_model(model) != data:
            raise ValueError("it is not in canonical form")
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"these bytes are not a model: {error}") from error
    return model


def _decoded(data: bytes) -> Model:
    if not data.startswith(_MAGIC):
        raise ValueError("the format is unknown")
    end = data.index(b"\n", len(_MAGIC))
    header = json.loads(data[len(_MAGIC) : end])

    arrays: dict[str, Array] = {}
    place = end + 1
    for name, dtype, shape in header["arrays"]:
        if dtype not in _DTYPES:
            raise ValueError(f"{name} is of type {dtype}")
        count = int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(data, dtype, count, place).reshape(shape)
        place += arrays[name].nbytes

    return Model.of(header["version"], header["statistic"], header["low"], header["high"], arrays)


def model_digest(data: bytes) -> Digest:
    """Return the SHA-256 of an encoded model."""
    return Digest(sha256(data).digest())
