"""The key agreements of one host in one round: each is made once, also where both ends are devices of this host."""

from __future__ import annotations

from dataclasses import dataclass, field

from liberate.privacy import secure_aggregation
from liberate.privacy.secure_aggregation import MaskSecrets


@dataclass(frozen=True, slots=True)
class DeviceSecrets:
    """A device's secrets of a round, and their public halves.

    Attributes:
        secrets: The secrets.
        mask: Public key of the masks shared with neighbours.
        seal: Public key for which neighbours encrypt shares.
    """

    secrets: MaskSecrets
    mask: bytes
    seal: bytes


@dataclass(slots=True)
class KeyAgreements:
    """What devices of one host have derived and agreed on in the latest round; nothing of it is stored.

    What two people agree on follows from their two public keys, whoever computes it.
    """

    _round_hash: bytes = b""
    _devices: dict[bytes, DeviceSecrets] = field(default_factory=dict)
    _agreed: dict[tuple[bytes, bytes], bytes] = field(default_factory=dict)

    def secrets(self, round_hash: bytes, secret: bytes) -> DeviceSecrets:
        """Return what a device derives from its secret of a round; those of another round are forgotten."""
        if round_hash != self._round_hash:
            self.forget()
            self._round_hash = round_hash

        derived = self._devices.get(secret)
        if derived is None:
            own = MaskSecrets.derive(secret)
            derived = DeviceSecrets(
                own, secure_aggregation.public_key(own.mask), secure_aggregation.public_key(own.seal)
            )
            self._devices[secret] = derived
        return derived

    def forget(self) -> None:
        """Forget everything."""
        self._devices.clear()
        self._agreed.clear()

    def mask(self, own: DeviceSecrets, peer: bytes) -> bytes:
        """Agree with the mask key of a neighbour.

        Raises:
            PrivacyError: That key has small order.
        """
        return self._agree(own.secrets.mask, own.mask, peer)

    def seal(self, own: DeviceSecrets, peer: bytes) -> bytes:
        """Agree with the seal key of a neighbour.

        Raises:
            PrivacyError: That key has small order.
        """
        return self._agree(own.secrets.seal, own.seal, peer)

    def _agree(self, secret: bytes, public: bytes, peer: bytes) -> bytes:
        pair = (public, peer) if public < peer else (peer, public)
        agreed = self._agreed.get(pair)
        if agreed is None:
            agreed = self._agreed[pair] = secure_aggregation.agree(secret, peer)
        return agreed
