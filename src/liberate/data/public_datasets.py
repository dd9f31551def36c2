"""Get data sets by name and find them again."""

from __future__ import annotations

import difflib
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs

from liberate.data import readers
from liberate.data.dataset import Dataset
from liberate.data.sources import Archive, Source, Unreachable, Wheel
from liberate.errors import DataError

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A data set that can be fetched by name.

    Attributes:
        title: What it is, one line.
        licence: What its makers ask, in short.
        sources: Where it can be had, best first.
    """

    title: str
    licence: str
    sources: tuple[Source, ...]


_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
_CITATION = (
    "Acknowledge it in publications: F. M. Harper and J. A. Konstan. 2015. The MovieLens Datasets: History and "
    "Context. ACM Transactions on Interactive Intelligent Systems 5, 4, Article 19. https://doi.org/10.1145/2827872."
)
_NOT_REDISTRIBUTED = (
    "MovieLens, collected by GroupLens Research at the University of Minnesota. For research; no commercial use and no "
    "redistribution without their permission, no implied endorsement, no warranty. " + _CITATION
)
_REDISTRIBUTED_ALIKE = (
    "MovieLens, collected by GroupLens Research at the University of Minnesota. For research; redistribution only "
    "under the same conditions, no commercial use without their permission, no implied endorsement, no warranty. "
    + _CITATION
)


def _grouplens(folder: str, n_bytes: int, checksum: str, *files: str) -> Archive:
    return Archive(
        url=f"{_GROUPLENS}/{folder}.zip",
        n_bytes=n_bytes,
        sha256=checksum,
        members=tuple(f"{folder}/{file}" for file in files),
    )


_CSV_FILES = ("README.txt", "ratings.csv", "movies.csv")

# The archives' checksums are those of TensorFlow Datasets (url_checksums/movielens.txt).
KNOWN: Mapping[str, Known] = {
    "ml-100k": Known(
        title="MovieLens-100K: 100,000 ratings, 1 to 5, of 943 users for 1,682 movies, 1997-1998",
        licence=_NOT_REDISTRIBUTED,
        sources=(
            _grouplens(
                "ml-100k",
                4_924_029,
                "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
                *("README", "u.data", "u.item", "u.genre", "u.user"),
            ),
            Wheel(
                requirement="recbole==1.2.1",
                members={
                    f"recbole/dataset_example/ml-100k/ml-100k.{suffix}": checksum
                    for suffix, checksum in (
                        ("inter", "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff"),
                        ("item", "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532"),
                        ("user", "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972"),
                    )
                },
            ),
        ),
    ),
    "ml-1m": Known(
        title="MovieLens-1M: 1,000,209 ratings, 1 to 5, of 6,040 users for 3,706 movies, 2000-2003",
        licence=_NOT_REDISTRIBUTED,
        sources=(
            _grouplens(
                "ml-1m",
                5_917_549,
                "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
                *("README", "ratings.dat", "movies.dat", "users.dat"),
            ),
        ),
    ),
    "ml-latest-small": Known(
        title="MovieLens latest small (September 2018): 100,836 ratings, 0.5 to 5, of 610 users for 9,724 movies",
        licence=_REDISTRIBUTED_ALIKE,
        sources=(
            _grouplens(
                "ml-latest-small",
                978_202,
                "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
                *_CSV_FILES,
            ),
        ),
    ),
    "ml-20m": Known(
        title="MovieLens-20M: 20,000,263 ratings, 0.5 to 5, of 138,493 users for 26,744 movies, 1995-2015",
        licence=_REDISTRIBUTED_ALIKE,
        sources=(
            _grouplens(
                "ml-20m",
                198_702_078,
                "96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
                *_CSV_FILES,
            ),
        ),
    ),
    "ml-25m": Known(
        title="MovieLens-25M: 25,000,095 ratings, 0.5 to 5, of 162,541 users for 59,047 movies, 1995-2019",
        licence=_REDISTRIBUTED_ALIKE,
        sources=(
            _grouplens(
                "ml-25m",
                261_978_986,
                "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
                *_CSV_FILES,
            ),
        ),
    ),
}
"""The data sets that `fetch` knows, by name."""

_PARTS_OF_KNOWN = {
    # (users, items, ratings): what must be said of it
    (6040, 3449, 999_714): "999,714 of MovieLens-1M's 1,000,209 ratings: 495 ratings of 257 rare movies are missing",
}


def licence(name: str) -> str:
    """Say what the makers of a known data set ask of those who use it."""
    return _known(name).licence


def data_folder() -> Path:
    """Return the folder where data sets are kept by name."""
    return platformdirs.user_data_path("liberate")


def fetch(name: str, to: Path | None = None, *, sources: Sequence[Source] | None = None) -> Path:
    """Get a data set by name, check it, and keep it in a folder of that name.

    The folder appears complete or not at all; one that is there already is kept as it is.

    Args:
        name: One of `KNOWN`.
        to: Folder to keep it in; `data_folder()` by default, where `load` finds it.
        sources: Where to look instead of the known places.

    Returns:
        The folder of the data set.

    Raises:
        DataError: The name is unknown, no source can be reached, or what came has the wrong checksum.
    """
    known = _known(name)
    target = (to or data_folder()) / name
    if target.exists():
        return target

    failures = []
    for source in known.sources if sources is None else sources:
        try:
            _fetch_from(source, target)
        except Unreachable as error:
            _logger.info("%s", error)
            failures.append(str(error))
        except OSError as error:
            raise DataError(f"{name} cannot be stored in {target.parent}: {error.strerror}") from error
        else:
            return target

    raise DataError(
        f"{name} could not be fetched: {'; '.join(failures)}",
        hint="get it by other means and name the path of its folder",
    )


def _fetch_from(source: Source, target: Path) -> None:
    """Fetch into a temporary folder beside the target, which gets its name when all is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as temporary:
        work, complete = Path(temporary, "work"), Path(temporary, "complete")
        work.mkdir()
        complete.mkdir()
        source.fetch(work, complete)
        complete.rename(target)


def load(
    source: str | Path, *, columns: Mapping[str, str] | None = None, scale: tuple[float, float] | None = None
) -> Dataset:
    """Read a data set by its name or its path.

    Args:
        source: A name in `data_folder()`, or the path of a file or folder as for `readers.read`. A `Path` is never
            taken for a name, and neither is text with a `/` in it.
        columns: Names of columns as for `readers.read`.
        scale: Lowest and highest rating possible, as for `readers.read`.

    Raises:
        DataError: There is no such data set, or it cannot be used.
        SettingsError: `columns` has an unknown key, or `scale` is no range.
    """
    path = Path(source)
    is_name = isinstance(source, str) and source not in ("", ".", "..") and path.name == source
    if is_name and (data_folder() / path).is_dir():
        path = data_folder() / path
    elif is_name and not path.exists():
        hint = f"liberate data get {source}" if source in KNOWN else "name a path, or a known one: liberate data get"
        raise DataError(f"no data set {source!r} here: {_nearest(str(source))}", hint=hint)

    dataset = readers.read(path, columns=columns, scale=scale)
    part = _PARTS_OF_KNOWN.get((len(dataset.user_ids), len(dataset.item_ids), len(dataset.values)))
    return dataset if part is None else replace(dataset, notes=(*dataset.notes, part))


def _known(name: str) -> Known:
    if name not in KNOWN:
        raise DataError(f"{name!r} is not a known data set: {_nearest(name)}", hint=f"known are {', '.join(KNOWN)}")
    return KNOWN[name]


def _nearest(name: str) -> str:
    if name in KNOWN:
        return "it is known but has not been fetched yet"
    near = difflib.get_close_matches(name, KNOWN)
    return f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(KNOWN)}"
