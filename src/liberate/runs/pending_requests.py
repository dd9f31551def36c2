"""What a federation needs to carry out what its people want: its coordinator's key, and all that is stored of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from liberate.crypto.note import verify_checkpoint
from liberate.crypto.signing import load_key
from liberate.data.dataset import Dataset
from liberate.data.rating_scale import RatingScale
from liberate.errors import LiberateError
from liberate.federation.erasure import DataController
from liberate.federation.requests import RequestProcessor
from liberate.federation.sharing.pool_intake import accept_into_pool
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.pool import PoolStore
from liberate.federation.store.uploads import UploadStore
from liberate.federation.terms import Charter
from liberate.federation.wire.copies import SealedCopy
from liberate.ledger.interface import Ledger
from liberate.runs.federation_folder import FederationFolder
from liberate.runs.folder import POOL_FOLDER, UPLOADS_FOLDER


def request_processor(
    folder: Path, ledger: Ledger, devices: DeviceStore, terms: Charter, dataset: Callable[[], Dataset]
) -> RequestProcessor:
    """Set up what carries requests out.

    Args:
        folder: Of the federation.
        ledger: Its ledger, owned by this process.
        devices: The store of its one host.
        terms: Says where secrets come from.
        dataset: Loads ratings whose scale is that of copies.
    """
    home = FederationFolder(folder)
    key = load_key(folder / "keys" / "coordinator.key")
    number = ledger.state.number_of(key.public)
    if number is None:
        raise LiberateError("the coordinator is not enrolled yet", hint="give the train command again first")
    n_items = pq.read_metadata(home.items_path).num_rows

    def take(sealed_copy: SealedCopy) -> None:
        with PoolStore(folder / POOL_FOLDER) as pool:
            accept_into_pool(ledger, pool, key, number, [sealed_copy], n_items)

    return RequestProcessor(
        ledger=ledger,
        devices=devices,
        keeper=DataController(
            number=number,
            key=key,
            stores={"pool": partial(_forget_copies, folder / POOL_FOLDER), "uploads": partial(_forget_uploads, home)},
        ),
        n_items=n_items,
        scale=lambda: _scale(dataset()),
        take=take,
        randomness=terms.randomness(verify_checkpoint(ledger.checkpoint(), ledger.state.founding.log_vkey).root),
    )


def _scale(dataset: Dataset) -> RatingScale:
    return RatingScale.of(dataset.values, dataset.low, dataset.high)


def _forget_copies(folder: Path, number: int) -> None:
    """Destroy what the pool has of somebody."""
    if folder.exists():
        with PoolStore(folder) as pool:
            pool.erase_sender(number)


def _forget_uploads(home: FederationFolder, number: int) -> None:
    """Destroy what the runs of a federation have kept of somebody's uploads."""
    for run in home.all_run_folders():
        if UploadStore.exists(run / UPLOADS_FOLDER):
            with UploadStore(run / UPLOADS_FOLDER) as uploads:
                uploads.erase_participant(number)
