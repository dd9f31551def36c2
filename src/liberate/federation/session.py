"""A federation opened by the owner of its ledger, who alone can append to it.

A federation is a folder: `keys/` (founder, log, coordinator, auditor), `ledger/`, and `devices/`, which in a deployment
lies on the participants' side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from liberate.crypto.note import parse_witness_key, verify_checkpoint
from liberate.crypto.signing import SigningKey, load_key, save_key
from liberate.errors import FederationError, LedgerError, LiberateError, NoQuorum, RejectedCheckpoint
from liberate.federation.entry_writer import EntryWriter
from liberate.federation.keys import KeyChange
from liberate.federation.registrars import Registrar
from liberate.federation.store.devices import DeviceStore
from liberate.federation.terms import ParticipationPolicy
from liberate.files import write_atomic
from liberate.ledger.interface import Ledger
from liberate.ledger.publish.checkpoints import Publisher, WitnessAddress
from liberate.ledger.publish.witness_http import WitnessClient
from liberate.randomness import Clock, Randomness, RandomSource


class OpenLedger(Protocol):
    """Opens the ledger in a folder as its owner, whatever stores it."""

    def __call__(
        self,
        folder: Path,
        log_key: SigningKey,
        clock: Clock,
        *,
        genesis: Callable[[], bytes] | None = None,
    ) -> Ledger:
        """Open the ledger; where none was begun, create it from the entry that `genesis` returns.

        Raises:
            LedgerError: There is no ledger and no genesis, or the key is not its log's.
            LedgerLocked: Another process owns it.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationAccess:
    """How a process gets at a federation.

    Attributes:
        folder: The folder of the federation.
        source: Where its secrets and its time come from.
        open_ledger: Opens its ledger.
        witnesses: Who is asked to cosign checkpoints.
        witness_threshold: How many of them must, 0 <= witness_threshold <= number of witnesses.
        client: Reaches the witnesses.
    """

    folder: Path
    source: RandomSource
    open_ledger: OpenLedger
    witnesses: tuple[WitnessAddress, ...] = ()
    witness_threshold: int = 0
    client: WitnessClient = WitnessClient()  # noqa: RUF009 - frozen

    @property
    def checkpoint_file(self) -> Path:
        """Where the newest published checkpoint is stored, outside the ledger."""
        return self.folder / "checkpoint"

    def prepare_publication(self) -> None:
        """Write down that nothing is published, before there is a ledger: from then on the file is never absent."""
        if not self.checkpoint_file.exists() and not (self.folder / "ledger").exists():
            write_atomic(self.checkpoint_file, b"")

    def published_checkpoint(self) -> str:
        """Return the newest published checkpoint; empty before the first.

        Raises:
            LedgerError: The file is gone.
        """
        try:
            return self.checkpoint_file.read_text("utf-8")
        except FileNotFoundError as error:
            raise LedgerError(
                f"{self.checkpoint_file} is gone, which says what was published",
                hint="put a checkpoint in its place that was published: an export, a witness or a reader has one",
            ) from error

    def load_key(self, name: str) -> SigningKey:
        """Load a key of the federation by its name.

        Raises:
            LiberateError: There is none.
        """
        return load_key(self.folder / "keys" / f"{name}.key")

    def load_or_create_key(self, name: str) -> SigningKey:
        """Load a key of the federation by its name; it is made and stored when it is asked for first."""
        path = self.folder / "keys" / f"{name}.key"
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if not path.exists():
            save_key(path, SigningKey.from_seed(self.source.randomness().secret(f"{name} key")))
        return load_key(path)

    def simulated_registrars(self, count: int) -> tuple[SigningKey, ...]:
        """Return the keys of other registrars than the founder, which a simulation has here; none in earnest."""
        if not self.source.is_simulated:
            return ()
        return tuple(self.load_or_create_key(f"registrar-{number}") for number in range(1, count + 1))

    def registrar(self, ledger: Ledger, batch_size: int = 1) -> Registrar:
        """Return the founder as a registrar of a ledger, beside whom others approve.

        Raises:
            LiberateError: The founder's key is not here.
        """
        count = len(ledger.state.founding.registrars) - 1
        return Registrar(
            ledger, self.load_key("founder"), batch_size, self.folder / "approvals", self.simulated_registrars(count)
        )

    def publisher(self, ledger: Ledger) -> Publisher:
        """Return what publishes checkpoints of the federation's ledger."""
        return Publisher(ledger, self.witnesses, self.witness_threshold, self.checkpoint_file, self.client)

    def check_witness_keys(self, witnesses: Sequence[str]) -> None:
        """Refuse to go on with a witness's key in the federation's folder: its word would be the federation's own.

        Args:
            witnesses: Verifier keys of the witnesses.

        Raises:
            FederationError: One of them lies there.
        """
        keys = [parse_witness_key(vkey) for vkey in witnesses]
        names = {key.public: key.name for key in keys}
        for path in sorted(self.folder.rglob("*.key")) if names else ():
            public = _public_key_in(path)
            if public in names:
                raise FederationError(
                    f"{path} is the key of the witness {names[public]}: whoever owns both watches only themselves",
                    hint="the witness keeps its key to itself; another key wants another ledger",
                )

    def randomness_at(self, ledger: Ledger) -> Randomness:
        """Return a source of secrets; in a simulation it is another one at each state of the ledger."""
        return self.source.randomness(verify_checkpoint(ledger.checkpoint(), ledger.state.founding.log_vkey).root)


def _public_key_in(path: Path) -> bytes | None:
    """Return the public half of the key in a file; None if there is none to be read."""
    try:
        return load_key(path).public
    except (LiberateError, OSError):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationSession:
    """A federation opened by the owner of its ledger, to act between rounds.

    Attributes:
        access: How it was opened.
        ledger: Its ledger, owned by this process.
        devices: The store of its one host.
        publisher: Publishes the ledger's checkpoints.
        finished: Key changes that a crash had interrupted and that were finished when it was opened.
    """

    access: FederationAccess
    ledger: Ledger
    devices: DeviceStore
    publisher: Publisher
    finished: tuple[KeyChange, ...]

    def randomness(self) -> Randomness:
        """Return a source of secrets; in a simulation it is another one at each state of the ledger."""
        return self.access.randomness_at(self.ledger)

    def try_to_publish(self) -> bool:
        """Publish the newest checkpoint, unless too few witnesses cosign it; return whether it is published.

        Raises:
            RejectedCheckpoint: A witness says that it contradicts what it knows of the log.
            RolledBack: A witness has shown a checkpoint of this log that the ledger does not continue.
        """
        try:
            self.publisher.publish()
        except RejectedCheckpoint:
            raise
        except NoQuorum:
            return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSession(FederationSession):
    """A federation opened for a run: everybody is enrolled, and the ratings to learn from are on their devices.

    Attributes:
        policy: What its host holds every round against.
        coordinator: Writes the coordinator's entries.
        cohort: Numbers of the participants who take part in the run, increasing.
    """

    policy: ParticipationPolicy
    coordinator: EntryWriter
    cohort: tuple[int, ...]
