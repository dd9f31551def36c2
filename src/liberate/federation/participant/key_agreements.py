"""The key agreements of one host in one round: each is made once, also where both ends are devices of this host."""

from __future__ import annotations

from dataclasses import dataclass, field

from liberate.privacy import secure_aggregation
from liberate.privacy.secure_aggregation import AgreementKey, MaskSecrets


@dataclass(frozen=True, slots=True)
class DeviceSecrets:
    """A device's secrets of a round, and their public halves.

    Attributes:
        secrets: The secrets.
        mask: Public key of the masks shared with neighbours.
        seal: Public key for which neighbours encrypt shares.
        mask_key, seal_key: Their private halves.
    """

    secrets: MaskSecrets
    mask: bytes
    seal: bytes
    mask_key: AgreementKey
    seal_key: AgreementKey

    @classmethod
    def derive(cls, secret: bytes) -> DeviceSecrets:
        """Derive them from a device's secret of a round, 32 bytes."""
        secrets = MaskSecrets.derive(secret)
        mask_key, seal_key = (secure_aggregation.private_key(each) for each in (secrets.mask, secrets.seal))
        mask, seal = (secure_aggregation.public_key(key) for key in (mask_key, seal_key))
        return cls(secrets, mask, seal, mask_key, seal_key)


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
            derived = self._devices[secret] = DeviceSecrets.derive(secret)
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
        return self._agree(own.mask_key, own.mask, peer)

    def seal(self, own: DeviceSecrets, peer: bytes) -> bytes:
        """Agree with the seal key of a neighbour.

        Raises:
            PrivacyError: That key has small order.
        """
        return self._agree(own.seal_key, own.seal, peer)

    def _agree(self, key: AgreementKey, public: bytes, peer: bytes) -> bytes:
        pair = (public, peer) if public < peer else (peer, public)
        agreed = self._agreed.get(pair)
        if agreed is None:
            agreed = self._agreed[pair] = secure_aggregation.agree(key, peer)
        return agreed
