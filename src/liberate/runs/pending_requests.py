"""What it takes to process participants' requests: the coordinator's key, and all that is stored of participants."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from liberate.data.dataset import Dataset
from liberate.data.rating_scale import RatingScale
from liberate.errors import LiberateError
from liberate.federation.entry_writer import EntryWriter
from liberate.federation.erasure import DataController
from liberate.federation.requests import RequestProcessor
from liberate.federation.session import FederationSession
from liberate.federation.sharing.pool_intake import accept_into_pool
from liberate.federation.store.pool import PoolStore
from liberate.federation.store.uploads import UploadStore
from liberate.federation.wire.copies import SealedCopy
from liberate.runs.federation_folder import FederationFolder
from liberate.runs.folder import POOL_FOLDER, UPLOADS_FOLDER


def request_processor(session: FederationSession, dataset: Callable[[], Dataset]) -> RequestProcessor:
    """Return what processes the requests that wait on a federation's devices.

    Args:
        session: The federation, opened by the owner of its ledger.
        dataset: Loads ratings whose scale is that of copies.

    Raises:
        LiberateError: No training has enrolled the coordinator yet.
    """
    ledger, folder = session.ledger, FederationFolder(session.access.folder)
    key = session.access.load_key("coordinator")
    number = ledger.state.number_of(key.public)
    if number is None:
        raise LiberateError("the coordinator is not enrolled yet", hint="give the train command again first")

    pool_folder = folder.folder / POOL_FOLDER
    n_items = pq.read_metadata(folder.items_path).num_rows

    def take(sealed_copy: SealedCopy) -> None:
        with PoolStore(pool_folder) as pool:
            accept_into_pool(ledger, pool, key, number, [sealed_copy], n_items)

    return RequestProcessor(
        ledger=ledger,
        devices=session.devices,
        controller=DataController(
            writer=EntryWriter(ledger, key, number),
            stores={"pool": partial(_forget_copies, pool_folder), "uploads": partial(_forget_uploads, folder)},
        ),
        n_items=n_items,
        scale=lambda: _scale(dataset()),
        take=take,
        randomness=session.randomness(),
    )


def _scale(dataset: Dataset) -> RatingScale:
    return RatingScale.of(dataset.values, dataset.low, dataset.high)


def _forget_copies(folder: Path, number: int) -> None:
    """Destroy what the pool has of a participant."""
    if folder.exists():
        with PoolStore(folder) as pool:
            pool.erase_sender(number)


def _forget_uploads(federation: FederationFolder, number: int) -> None:
    """Destroy what the runs of a federation have stored of a participant's uploads."""
    for run in federation.all_run_folders():
        if UploadStore.exists(run / UPLOADS_FOLDER):
            with UploadStore(run / UPLOADS_FOLDER) as uploads:
                uploads.erase_participant(number)
