"""Model versions as files of a run."""

from __future__ import annotations

from pathlib import Path

from liberate.errors import StaleModel
from liberate.files import write_atomic
from liberate.model.codec import decode_model, encode_model, model_digest
from liberate.model.model import Model


class ModelStore:
    """Model versions as files, each written whole or not at all.

    Args:
        folder: Made if absent.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, version: int) -> Path:
        return self._folder / f"{version:05d}.model"

    @property
    def masks_path(self) -> Path:
        """Where a coordinator stores what it told participants in the masked round that is open."""
        return self._folder / "round.masks"

    def save(self, model: Model) -> bytes:
        """Write a model under its version, and return its bytes."""
        data = encode_model(model)
        write_atomic(self.path(model.version), data)
        return data

    def load(self, version: int, digest: bytes | None = None) -> Model:
        """Read a model.

        Args:
            version: Which one.
            digest: What the ledger says its digest is, or None to take it as it is.

        Raises:
            StaleModel: The file is missing, or its digest is not the expected one.
        """
        path = self.path(version)
        if not path.exists():
            raise StaleModel(f"model version {version} is missing from {self._folder}")
        data = path.read_bytes()
        if digest is not None and model_digest(data) != digest:
            raise StaleModel(f"{path} does not match the digest on the ledger")
        return decode_model(data)
