"""One typed tree of settings, composed from what each module owns.

Order, later wins: defaults < TOML file < `LIBERATE_<SECTION>_<KEY>` environment < `--set section.key=value`.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tomli_w
from annotated_types import Ge, Gt, Lt
from pydantic import TypeAdapter, ValidationError

from liberate.errors import SettingsError
from liberate.federation.coordinator.config import RoundConfig
from liberate.federation.sharing.config import SharingConfig
from liberate.identifiers import NoisePlacement
from liberate.model.config import ModelConfig
from liberate.privacy.config import PrivacyConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Which ratings, and what is held out.

    Attributes:
        source: Name of a data set, a CSV or Parquet file, or a folder.
        columns: Names of the columns `user`, `item`, `rating` and `timestamp` in a table that calls them otherwise.
        rating_min: Lowest rating of the scale, where the source does not say; unset = found from the source.
        rating_max: Highest rating of the scale, likewise.
        public_features: Whether devices make use of what the source says about items: genres and decade. The modes
            `device` and `distributed` do.
        split: `random` holds out a random part of all ratings, `last` the last rating of each person.
        split_seed: Seed of the random split, >= 0.
        test_fraction: Part held out by the random split, 0 <= test_fraction < 1; unset = 0.2 in a simulation, else 0.
            Outside a simulation what is held out stays on the devices, which show their owners their own error.
    """

    source: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    rating_min: float | None = None
    rating_max: float | None = None
    public_features: bool = True
    split: Literal["random", "last"] = "random"
    split_seed: Annotated[int, Ge(0)] = 42
    test_fraction: Annotated[float, Ge(0), Lt(1)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerConfig:
    """What the genesis of a new ledger says, and what is kept beside it.

    Attributes:
        origin: The ledger's name, a schemeless URL; empty = derived from the seed (simulation) or drawn at random.
        epsilon_limit: Most that a participant may spend in all runs, > 0: with pure mechanisms so much epsilon; with
            Gaussian ones the rho that is worth it at `privacy.delta`, and with either the one or the other. The genesis
            keeps both, for life; unset = what the first run promises, and no limit where that is `plain` or `device`.
        registrars: Verifier key of each registrar beside the founder, from `liberate keys new --kind registrar`; empty
            in a simulation, whose registrars' keys follow from the seed.
        registrar_threshold: How many registrars, the founder among them, must sign for an enrolment or a recovery,
            1 <= registrar_threshold <= 1 + number of registrars (in a simulation, any number); unset = more than half.
        witnesses: Address and verifier key of each witness, `URL VKEY`; the genesis carries the keys.
        witness_threshold: How many of them must cosign a checkpoint, 0 <= witness_threshold <= number of witnesses;
            unset = more than half.
        keep_uploads: Whether the coordinator keeps every upload of the run with its salt, so that
            `ledger verify --recompute` can take every sum again. In mode `plain` uploads show what people rated.
    """

    origin: str = ""
    epsilon_limit: Annotated[float, Gt(0)] | None = None
    registrars: tuple[str, ...] = ()
    registrar_threshold: Annotated[int, Ge(1)] | None = None
    witnesses: tuple[str, ...] = ()
    witness_threshold: Annotated[int, Ge(0)] | None = None
    keep_uploads: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What makes a run repeatable.

    Attributes:
        seed: Everything random in a simulation is derived from it, 0 <= seed < 2**63.
        simulated: True derives keys, salts, noise and time from the seed, for research; false takes all of them from
            the system, with exact noise, for a host that really holds people's ratings.
        noise_placement: Where a simulation draws noise that protects a sum: on each upload (`per_upload`), or once on
            the sum (`on_sum`); unset = once on the sum. Outside a simulation it is always drawn on each upload.
    """

    seed: Annotated[int, Ge(0), Lt(2**63)] = 42
    simulated: bool = True
    noise_placement: NoisePlacement | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a run, resolved."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    sharing: SharingConfig = field(default_factory=SharingConfig)
    federation: RoundConfig = field(default_factory=RoundConfig)
    ledger: LedgerConfig = field(default_factory=LedgerConfig)
    run: RunConfig = field(default_factory=RunConfig)

    @property
    def test_fraction(self) -> float:
        """Part of all ratings that the random split holds out."""
        usual = 0.2 if self.run.simulated else 0.0
        return usual if self.data.test_fraction is None else self.data.test_fraction

    @property
    def holds_out(self) -> bool:
        """Whether ratings are held out."""
        return self.data.split == "last" or self.test_fraction > 0

    @property
    def is_masked(self) -> bool:
        """Whether uploads of mode distributed are masked."""
        wanted = self.privacy.secure_aggregation
        return not self.run.simulated if wanted is None else wanted

    @property
    def noise_placement(self) -> NoisePlacement:
        """Where noise is drawn that protects a sum."""
        return self.run.noise_placement or ("on_sum" if self.run.simulated and not self.is_masked else "per_upload")

    def __post_init__(self) -> None:
        if self.run.simulated:
            if self.run.noise_placement == "on_sum" and self.privacy.secure_aggregation:
                raise SettingsError("run.noise_placement on_sum is without masks: what is masked has its noise already")
            return
        if self.run.noise_placement == "on_sum":
            raise SettingsError("run.noise_placement on_sum is for simulations: real devices draw their own noise")
        if self.privacy.secure_aggregation is False:
            raise SettingsError(
                "privacy.secure_aggregation is left out in simulations only:"
                " without masks the coordinator sees every upload"
            )


SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "privacy": PrivacyConfig,
    "sharing": SharingConfig,
    "federation": RoundConfig,
    "ledger": LedgerConfig,
    "run": RunConfig,
}

Tree = dict[str, dict[str, object]]
"""Values by section and key."""


def resolve(
    path: Path | None = None, assignments: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Settings:
    """Compose settings from a file, the environment and flags.

    Args:
        path: A TOML file, or None.
        assignments: `section.key=value` each; the value is read as TOML, or else taken as text.
        environment: Variables; the process's own if None.

    Raises:
        SettingsError: A file cannot be read, or a setting is unknown, of the wrong type or out of range.
    """
    tree: Tree = {name: {} for name in SECTIONS}
    if path is not None:
        _merge(tree, _read(path), str(path))
    _merge(tree, _from_environment(os.environ if environment is None else environment), "environment")
    for assignment in assignments:
        _merge(tree, _from_assignment(assignment), f"--set {assignment}")
    return from_tree(tree)


def from_tree(tree: Mapping[str, Mapping[str, object]]) -> Settings:
    """Check a tree of settings against types and ranges.

    Raises:
        SettingsError: The first setting that does not fit.
    """
    try:
        return TypeAdapter(Settings).validate_python(tree)
    except ValidationError as error:
        first = error.errors()[0]
        section, *key = map(str, first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if not key:
            raise SettingsError(f"[{section}] {message}") from error
        raise SettingsError(f"{'.'.join([section, *key])} = {first['input']!r}: {message}") from error


def to_tree(settings: Settings) -> Tree:
    """Return all settings as plain values; unset ones are left out, as TOML has no null."""
    tree: Tree = dataclasses.asdict(settings)
    return {name: {k: v for k, v in values.items() if v is not None} for name, values in tree.items()}


def to_toml(settings: Settings) -> str:
    """Write all settings as TOML."""
    return tomli_w.dumps(to_tree(settings))


def _read(path: Path) -> Mapping[str, object]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}", hint="settings are in TOML; ratings are named with --data") from error


def _from_environment(environment: Mapping[str, str]) -> Mapping[str, object]:
    tree: Tree = {}
    for name, text in environment.items():
        section, _, key = name.removeprefix("LIBERATE_").lower().partition("_")
        if name.startswith("LIBERATE_") and section in SECTIONS and key:
            tree.setdefault(section, {})[key] = _value(text)
    return tree


def _from_assignment(assignment: str) -> Mapping[str, object]:
    name, equals, text = assignment.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and key):
        raise SettingsError(f"--set {assignment}: section.key=value was wanted", hint="--set privacy.epsilon=8")
    return {section: {key: _value(text.strip())}}


def _value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _merge(tree: Tree, other: Mapping[str, object], origin: str) -> None:
    for section, values in other.items():
        if section not in SECTIONS:
            raise SettingsError(f"{origin}: unknown section {section!r}", hint=_nearest(section, list(SECTIONS)))
        if not isinstance(values, Mapping):
            raise SettingsError(f"{origin}: [{section}] must hold key = value pairs")
        known = [f.name for f in dataclasses.fields(SECTIONS[section])]
        for key, value in values.items():
            if key not in known:
                names = [f"{section}.{name}" for name in known]
                raise SettingsError(
                    f"{origin}: unknown setting {section}.{key}", hint=_nearest(f"{section}.{key}", names)
                )
            tree[section][key] = value


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"did you mean {close[0]}?" if close else "known are " + ", ".join(known)
