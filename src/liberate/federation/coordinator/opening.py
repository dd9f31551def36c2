"""How a round begins: the record that opens it, and the round that is open on the ledger, maybe since a crash."""

from __future__ import annotations

from liberate.errors import FederationError
from liberate.federation.entry_writer import EntryWriter
from liberate.identifiers import Digest, NoisePlacement
from liberate.ledger.format.number_sets import Range
from liberate.ledger.format.parts import MechanismSpec
from liberate.ledger.format.records import Round
from liberate.ledger.rules.round_state import OpenRound
from liberate.model.model import Model
from liberate.privacy.mechanism_base import Mechanism


def new_round(
    writer: EntryWriter,
    base: Model,
    base_digest: Digest,
    *,
    run: int,
    rounds: int | None,
    statistic: str,
    shape: tuple[int, int, int],
    mechanism: Mechanism,
    minimum: int,
    deadline_blocks: int,
    cohort: tuple[Range, ...] = (),
    noise_placement: NoisePlacement = "per_upload",
) -> Round:
    """Return the record that opens the next round; see `Round` for what it says."""
    return Round(
        **writer.header(),
        number=writer.ledger.state.round_number + 1,
        run=run,
        rounds=rounds,
        base_version=base.version,
        base_digest=base_digest,
        terms=writer.ledger.state.terms_hash,
        cohort=cohort,
        statistic=statistic,
        shape=shape,
        mechanism=MechanismSpec(name=mechanism.name, parameters=dict(mechanism.parameters)),
        noise_placement=noise_placement,
        fraction_bits=mechanism.fraction_bits,
        account=mechanism.account,
        spend_nano=mechanism.spend_nano,
        minimum=minimum,
        deadline=writer.ledger.height + deadline_blocks,
    )


def opened_round(writer: EntryWriter, base_digest: Digest, statistic: str) -> OpenRound:
    """Return the round that is open on the ledger, which was recorded now or before a crash.

    Raises:
        FederationError: It is about another model or statistic.
    """
    current = writer.ledger.state.open_round
    assert current is not None  # recorded by the caller
    if (current.record.statistic, current.record.base_digest) != (statistic, base_digest):
        raise FederationError("the open round on the ledger starts from another model than this run has")
    return current
