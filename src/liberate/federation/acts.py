"""Acts of participants and the log: each act is proved when it is recorded, and a log that lacks one later is refused.

A device keeps the log's signed word for every act. Whoever puts an older ledger back contradicts it, or lacks what it
proves; both are written to a file for others to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from liberate.crypto.note import verify_checkpoint
from liberate.errors import FederationError, RolledBack
from liberate.federation.store.act_tables import RecordedAct
from liberate.federation.store.devices import DeviceStore
from liberate.ledger.evidence.split_view import evidence_at, evidence_same_size, keep_evidence
from liberate.ledger.interface import Ledger
from liberate.ledger.publish.checkpoints import check_published
from liberate.ledger.publish.proof_files import inclusion_proof_text
from liberate.ledger.trace.prover import VerifiedTreeReader


@dataclass(frozen=True, slots=True)
class ActProver:
    """Proves entries under the newest checkpoint of a ledger, once that continues what a host's devices accepted.

    Attributes:
        ledger: The ledger.
        note: Its checkpoint.
        tree: Its tree.
    """

    ledger: Ledger
    note: str
    tree: VerifiedTreeReader

    @classmethod
    def at(cls, ledger: Ledger, devices: DeviceStore) -> ActProver:
        """Take the newest checkpoint.

        Raises:
            RolledBack: It does not continue the one that the devices accepted.
        """
        vkey = ledger.state.founding.log_vkey
        accepted, note = devices.checkpoint(), ledger.checkpoint()
        if accepted is not None and accepted != note:
            check_published(ledger, accepted, vkey)
        checkpoint = verify_checkpoint(note, vkey)
        return cls(ledger, note, VerifiedTreeReader(ledger, checkpoint.size, checkpoint.root))

    def prove(self, positions: Sequence[int]) -> list[RecordedAct]:
        """Return the acts whose entries are at some positions.

        Raises:
            ProofMismatch: The log cannot prove one.
        """
        self.tree.read(positions)
        return [self._prove(position) for position in positions]

    def _prove(self, position: int) -> RecordedAct:
        act = RecordedAct(position=position, data=self.ledger.entry(position), proof=(), note=self.note)
        proof = self.tree.prove(position, act.entry.leaf_hash)
        return RecordedAct(position=position, data=act.data, proof=proof, note=self.note)


def check_devices(ledger: Ledger, devices: DeviceStore) -> None:
    """Check that a ledger has all that a host's devices know it accepted, and that they are not older than it.

    Raises:
        RolledBack: The ledger lacks an act, or anything else under a checkpoint that the devices accepted.
        FederationError: A device does not know of an entry that it has signed.
    """
    _check_ledger(ledger, devices)

    principals = ledger.state.principals
    for device in devices.devices():
        if device.number is None or device.number >= len(principals):
            continue
        if device.last_seq < principals[device.number].sequence:
            raise FederationError(
                f"participant {device.number} has signed up to sequence {principals[device.number].sequence}, and the"
                f" device knows of {device.last_seq}: the devices are older than the ledger",
                hint="put the newest copy of devices/ back: an older one has forgotten what was spent and withdrawn",
            )


def _check_ledger(ledger: Ledger, devices: DeviceStore) -> None:
    accepted = devices.checkpoint()
    if accepted is None:
        return
    try:
        check_published(ledger, accepted, ledger.state.founding.log_vkey)
    except RolledBack as error:
        missing = [act for _, act in devices.acts() if not _is_recorded(ledger, act)]
        files = _keep_evidence(ledger, accepted, missing, devices.evidence_folder)
        written = f"; see {', '.join(map(str, files))}" if files else ""
        raise RolledBack(
            f"{error.message}{_lacking(missing)}{written}", size=error.size, published=error.published, hint=error.hint
        ) from error


def _is_recorded(ledger: Ledger, act: RecordedAct) -> bool:
    return act.position < ledger.size and ledger.entry(act.position) == act.data


def _lacking(missing: Sequence[RecordedAct]) -> str:
    if not missing:
        return ""
    first, more = missing[0].entry.record, len(missing) - 1
    others = f" and {more} more" if more else ""
    return f"; it lacks the {first.kind} of participant {first.author} (entry {missing[0].position}){others}"


def _keep_evidence(ledger: Ledger, accepted: str, missing: Sequence[RecordedAct], folder: Path) -> list[Path]:
    """Write what proves to others that the log took something back, and return the files.

    Two checkpoints contradict each other where their trees differ at a position, or in their roots at one size. A log
    that was only cut short has not contradicted itself: then the log's own proof of each act is what there is.
    """
    note, vkey = ledger.checkpoint(), ledger.state.founding.log_vkey
    same_size = verify_checkpoint(note, vkey).size == verify_checkpoint(accepted, vkey).size
    files = [keep_evidence(folder, evidence_same_size(accepted, note))] if same_size else []

    for act in missing:
        if act.position < ledger.size:
            files.append(
                keep_evidence(folder, evidence_at(ledger, act.position, act.note, act.entry.leaf_hash, act.path))
            )
        else:
            text = inclusion_proof_text(act.data, act.position, act.path, act.note)
            files.append(keep_evidence(folder, text.encode(), suffix="tlog-proof"))
    return files
