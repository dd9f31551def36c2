"""The report says what the run did, loads nothing, and lets nobody's text become markup."""

from __future__ import annotations

import re
import shutil
import sqlite3
from base64 import b64decode
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import matplotlib.image
import msgspec
import numpy as np
import pytest

from liberate import report
from liberate.data.rating_scale import RatingScale
from liberate.errors import LiberateError
from liberate.federation.sharing.acceptance import accept_copy
from liberate.federation.sharing.consents import ConsentTerms, give_consent, withdraw
from liberate.federation.sharing.handover import hand_over
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_entry
from liberate.randomness import SimulatedRandomness
from liberate.report.facts import step, time_parts
from liberate.runs.federation_access import open_run_federation
from liberate.runs.folder import Run, load_run
from liberate.runs.keys import change_key
from liberate.runs.train import train
from liberate.settings import resolve
from liberate.tracing.entry_answers import ContributionAnswer, EntryAnswer, UseAnswer
from liberate.tracing.traces import trace_participant
from tests.browser import Browser
from tests.report.document import Element, parse
from tests.worlds import low_rank_ratings, write_csv

SVG = "data:image/svg+xml;base64,"
EVIL = "<script>alert(1)</script>"
HEADINGS = [
    "What was learned",
    "What was promised",
    "What the ledger holds",
    "One participant’s trace",
    "Where the time went",
    "Settings",
]

Learn = Callable[..., Run]


@pytest.fixture(scope="module")
def learn(tmp_path_factory: pytest.TempPathFactory) -> Learn:
    """Train a small run with these settings, each only once."""
    folder = tmp_path_factory.mktemp("runs")
    data = write_csv(folder / "small.csv", low_rank_ratings(n_users=30, n_items=20))
    known: dict[tuple[str, ...], Run] = {}

    def build(*assignments: str) -> Run:
        if assignments not in known:
            small = ["model.n_factors=2", "model.tolerance=0", "federation.rounds=3", "federation.batch_size=10"]
            train(
                resolve(None, [f"data.source={data}", *small, *assignments], environment={}), folder / str(len(known))
            )
            known[assignments] = load_run(folder / str(len(known)))
        return known[assignments]

    return build


def read(run: Run) -> Element:
    return parse(report.write(run).read_text("utf-8"))


def section(page: Element, name: str) -> Element:
    return page.one("section", id=name)


def test_report_shows_the_figures_of_the_run(learn: Learn) -> None:
    run = learn("privacy.mode=plain")

    page = read(run)

    result = run.result
    assert page.one("h1").words == "small, plain mode"
    assert [heading.words for heading in page.all("h2")] == HEADINGS
    figures = {
        tile.all("dt")[0].words: tile.all("dd")[0].words for tile in page.one("dl", **{"class": "tiles"}).all("div")
    }
    assert figures["RMSE"] == f"{result.rmse:.3f}"
    assert figures["NDCG@10"] == f"{result.ndcg_at_10:.3f}"
    assert figures["ε of each participant"] == "no bound"
    assert figures["Rounds"] == "3"
    assert figures["Ledger entries"] == str(result.entry_count)
    assert "1970-01-01 00:00:" in page.one("time").words
    assert "Simulated." in page.one("header").words


def test_report_sets_metrics_beside_free_baselines(learn: Learn) -> None:
    run = learn("privacy.mode=plain")

    learned = section(read(run), "learned")

    rows = {
        row.all("th")[0].words: [cell.words for cell in row.all("td")] for row in learned.all("table")[0].all("tr")[1:]
    }
    assert list(rows) == ["this run", "global mean", "user mean", "damped biases", "most popular"]
    assert rows["this run"][:2] == [f"{run.result.rmse:.4f}", f"{run.result.ndcg_at_10:.4f}"]
    assert rows["user mean"][1:] == ["–"] * 4
    drawing = learned.all("svg")[0]
    assert [c.all("title")[0].words.partition(":")[0] for c in drawing.all("circle")] == [
        f"version {v}" for v in range(4)
    ]
    assert {"global mean", "user mean", "damped biases", "this run"} <= {
        text.words.rpartition(" ")[0] for text in drawing.all("text")
    }
    assert "The simulator’s view" in learned.one("figcaption").words


def test_report_of_a_local_run_states_its_promise_and_warns(learn: Learn) -> None:
    run = learn("privacy.mode=local", "privacy.epsilon=2")

    promised = section(read(run), "promised")

    names = [name.words for name in promised.all("dt")]
    texts = dict(zip(names, [text.words for text in promised.all("dd")], strict=True))
    assert texts["Unit"] == "user"
    assert texts["Relation"].startswith("zero-out")
    assert "coordinator" in texts["Adversary"]
    assert "discrete Laplace" in texts["Mechanism"]
    assert texts["Sampler"].startswith("fast (seeded")
    assert texts["Rounds joined"] == "each participant joined 3"
    cells = [[cell.words for cell in row.all("td")] for row in promised.one("tbody").all("tr")]
    assert cells[0] == ["2", "0"]
    assert [cell[1] for cell in cells[1:]] == ["10⁻⁵"] * 2
    notes = [note.words for note in promised.all("p") if "note" in note.attributes.get("class", "")]
    assert re.match(r"Signal-to-noise 0\.\d+, below 1\. In each round the noise is at least", notes[0])
    assert notes[1].startswith("Tuning. Choices made")
    assert "They spent ε = 2 in all." in section(read(run), "trace").words


def test_report_of_a_distributed_run_says_where_masks_and_noise_are(learn: Learn) -> None:
    said = {}
    for masks in ("true", "false"):
        run = learn("privacy.mode=distributed", "privacy.epsilon=8", f"privacy.secure_aggregation={masks}")
        page = read(run)
        promised = section(page, "promised")
        names = [name.words for name in promised.all("dt")]
        texts = dict(zip(names, [text.words for text in promised.all("dd")], strict=True))
        parts = {row.all("th")[0].words for row in section(page, "time").one("tbody").all("tr")}
        said[masks] = texts["Masks"], texts["Noise"], {"agree", "mask", "unmask"} & parts

    (masks, noise, timed), (left_out, at_once, untimed) = said["true"], said["false"]
    assert masks.startswith("on every upload: ")
    assert noise.startswith("a share of it on every upload; ")
    assert {"agree", "mask", "unmask"} <= timed
    assert left_out.startswith("left out, as they cancel in the sum and this is a simulation; ")
    assert at_once.startswith("all of it at once on the sum: this is a simulation; ")
    assert untimed == set()


def test_report_of_a_distributed_run_names_the_epsilon_that_was_promised(learn: Learn) -> None:
    run = learn("privacy.mode=distributed", "privacy.epsilon=8", "ledger.epsilon_limit=10")

    page = read(run)

    tile = next(tile for tile in page.one("dl", **{"class": "tiles"}).all("div") if tile.words.startswith("ε"))
    assert tile.all("dd")[0].words == f"{run.result.epsilon:.3g}"
    assert tile.all("dd")[1].words == "for the whole run, at δ = 10⁻⁵"
    cells = [[cell.words for cell in row.all("td")] for row in section(page, "promised").one("tbody").all("tr")]
    assert float(cells[0][0]) > 8
    assert [cell[1] for cell in cells] == ["10⁻⁵"] * 3
    assert re.search(r"They spent ρ = 1\.\d+ in all\.", section(page, "trace").words)
    texts = [text.words for text in section(page, "ledger").all("dd")]
    assert [text for text in texts if "in all runs" in text] == ["ε = 10 and ρ = 2 for a participant, in all runs"]


def test_report_of_a_further_run_has_every_kind_of_entry_and_the_limit_of_the_genesis(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "small.csv", low_rank_ratings(n_users=12, n_items=8))
    private = ["privacy.mode=local", "privacy.epsilon=2"]
    small = [f"data.source={data}", "federation.rounds=1", "model.n_factors=1", *private]
    train(resolve(None, [*small, "ledger.epsilon_limit=10"], environment={}), tmp_path / "first")
    change_key(load_run(tmp_path / "first"), "5", "rotation", "person")
    train(resolve(None, small, environment={}), tmp_path / "second", ledger=tmp_path / "first")

    ledger = section(read(load_run(tmp_path / "second")), "ledger")

    kinds = {
        item.all("dt")[0].words: item.all("dd")[0].words for item in ledger.one("dl", **{"class": "kinds"}).all("div")
    }
    assert sum(int(count) for kind, count in kinds.items() if kind != "all") == int(kinds["all"])
    assert "ε = 10" in ledger.words


def test_report_of_a_device_run_claims_no_round(learn: Learn) -> None:
    page = read(learn("privacy.mode=device"))

    learned = section(page, "learned")
    assert "there is one model only" in learned.one("figcaption").words
    assert learned.all("polyline") == []
    assert [row.all("th")[0].words for row in section(page, "trace").one("tbody").all("tr")] == [
        "enrolled",
        "ratings committed",
    ]
    assert "nothing leaves a device after that" in section(page, "trace").words
    assert "nothing left a device" in page.one("dl", **{"class": "tiles"}).words


def test_report_says_what_the_ledger_holds_and_how_to_check_it(learn: Learn) -> None:
    run = learn("privacy.mode=plain")

    ledger = section(read(run), "ledger")

    assert "Verified." in ledger.words
    assert "Never trusted: whoever knows the seed of a simulation has its keys" in ledger.words
    kinds = {
        item.all("dt")[0].words: item.all("dd")[0].words for item in ledger.one("dl", **{"class": "kinds"}).all("div")
    }
    expected = {"genesis": "1", "enrol": "31", "dataset": "30", "round": "3", "update": "90", "model": "3"}
    assert expected.items() <= kinds.items()
    assert kinds["all"] == str(run.result.entry_count)
    assert run.result.root in ledger.words
    command, checkpoint = (block.text for block in ledger.all("pre"))
    assert command == f"liberate ledger verify {run.folder.name} --key {run.verifier_key}"
    assert checkpoint.split("\n")[:2] == [run.record.origin, str(run.result.entry_count)]


def share(run: Run, sender: str, recipient: str) -> None:
    """Let one participant hand a copy to another, who accepts it, and take the consent back."""
    with open_run_federation(run) as standing:
        ledger, devices = standing.ledger, standing.devices
        participants = [devices.find(user_id=name) for name in (sender, recipient)]
        source, target = (each for each in participants if each is not None)
        terms = ConsentTerms(recipients=(target.number or 0,), expiry=1000, max_shares=1)
        random = SimulatedRandomness(1, b"sharing")
        consent = decode_entry(ledger.entry(give_consent(ledger, devices, source, terms, random))).leaf_hash
        scale = RatingScale(low=1.0, step=1.0, n_levels=5)
        _, sealed_copy = hand_over(ledger, devices, source, consent, target.number or 0, scale, random)
        accept_copy(ledger, devices, target, sealed_copy, 20)
        (again,) = (each for each in [devices.find(user_id=sender)] if each is not None)
        withdraw(ledger, devices, again, consent)


def test_report_traces_the_first_who_shared_with_what_became_of_the_copy(learn: Learn) -> None:
    plain = learn("privacy.mode=plain").folder
    run = load_run(shutil.copytree(plain, plain.with_name("shared")))
    share(run, "u04", "u02")

    trace = section(read(run), "trace")

    assert re.search(r"user u04 of the data set", trace.one("caption").words)
    names = [name.words for name in trace.all("dt")]
    assert dict(zip(names, [text.words for text in trace.all("dd")], strict=True)) == {
        "Consents": "1, 1 of them withdrawn",
        "Handed over": "1 copy to 1 recipient, 1 accepted",
        "Used by others": "0 uses for 0 models",
    }
    steps = [row.all("th")[0].words for row in trace.one("tbody").all("tr")]
    recipient = trace_participant(run, "user:u02").number
    assert steps[-4:] == ["consented", "copy handed over", f"copy accepted by {recipient}", "consent withdrawn"]
    drawing = b64decode(trace.one("img").attributes["src"].removeprefix(SVG)).decode()
    assert "Where the data of participant" in drawing
    assert f"participant {recipient}" in drawing


def test_report_without_copies_draws_none(learn: Learn) -> None:
    trace = section(read(learn("privacy.mode=plain")), "trace")

    assert trace.all("img") == []
    assert trace.all("dt") == []


def entry(kind: str, author: int) -> EntryAnswer:
    return EntryAnswer(position=9, kind=kind, author=author, block=1, time_us=0, leaf_hash=Digest(bytes(32)), proof=())


def answered(kind: str, author: int, number: int) -> ContributionAnswer:
    """An update, or a pool, of a round that used it for no model."""
    return ContributionAnswer(
        **vars(entry(kind, author)), round=number, outcome="open", version=None, descendants=0, membership=None
    )


def used(kind: str, author: int, number: int) -> UseAnswer:
    return UseAnswer(**vars(answered(kind, author, number)), by=author, shares=(4,))


@pytest.mark.parametrize(
    ("kind", "author", "contribution", "said"),
    [
        ("update", 3, answered("update", 3, 2), "answered round 2"),
        ("update", 5, used("update", 5, 2), "copy used by 5, round 2"),
        ("pool", 2, used("pool", 2, 1), "copy in the pool, round 1"),
        ("share", 5, None, "copy from 5"),
        ("receipt", 3, None, "copy accepted"),
        ("erasure", 2, None, "erased"),
        ("erasure", 3, None, "erasure requested"),
        ("disclosure", 7, None, "looked up by auditor 7"),
        ("key", 0, None, "key recovered"),
        ("survivors", 2, None, "survivors"),
    ],
)
def test_a_step_is_told_from_the_participants_side(
    kind: str, author: int, contribution: ContributionAnswer | None, said: str
) -> None:
    assert step(entry(kind, author), 3, contribution) == said


def test_report_traces_the_first_participant_into_every_model(learn: Learn) -> None:
    trace = section(read(learn("privacy.mode=plain")), "trace")

    rows = [[cell.words for cell in row.all("th", "td")] for row in trace.one("tbody").all("tr")]
    assert [row[0] for row in rows] == ["enrolled", "ratings committed", *(f"answered round {i}" for i in (1, 2, 3))]
    assert [row[4] for row in rows] == ["", "", "version 1", "version 2", "version 3"]
    assert [row[6] for row in rows] == ["", "", "2", "1", "0"]
    assert re.search(r"user u0+ of the data set", trace.one("caption").words)
    assert re.search(r"\d+ proofs were checked", trace.words)
    assert len(trace.all("svg")[0].all("circle")) == 5


def test_parts_of_the_time_add_up_to_the_whole() -> None:
    parts = time_parts({"fit": 1.0, "sign": 3.0, "noise": 0.0}, 10.0)

    assert [(part.name, part.seconds, part.share) for part in parts] == [
        ("sign", 3.0, 0.3),
        ("fit", 1.0, 0.1),
        ("other", 6.0, 0.6),
    ]


def test_parts_measured_on_more_than_one_core_leave_no_negative_rest() -> None:
    parts = time_parts({"verify": 3.0, "sign": 2.0}, 4.0)

    assert [(part.name, part.share) for part in parts] == [("verify", 0.6), ("sign", 0.4)]


def test_report_shows_each_measured_part(learn: Learn) -> None:
    run = learn("privacy.mode=plain")

    names = {row.all("th")[0].words for row in section(read(run), "time").one("tbody").all("tr")}

    assert names == set(run.record.seconds) | {"other"}


@pytest.mark.parametrize("settings", [("mode=plain",), ("mode=device",), ("mode=local", "epsilon=2")])
def test_same_run_gives_the_same_bytes(learn: Learn, settings: tuple[str, ...]) -> None:
    run = learn(*(f"privacy.{setting}" for setting in settings))

    assert report.write(run).read_bytes() == report.write(run).read_bytes()
    assert [path.name for path in run.folder.glob("report*")] == ["report.html"]


@pytest.mark.parametrize("settings", [("mode=plain",), ("mode=device",), ("mode=local", "epsilon=2")])
def test_page_loads_and_runs_nothing(learn: Learn, settings: tuple[str, ...]) -> None:
    text = report.write(learn(*(f"privacy.{setting}" for setting in settings))).read_text("utf-8")

    elements = parse(text).all()
    assert not {"script", "iframe", "object", "embed", "img", "base", "form"} & {element.tag for element in elements}
    assert not [name for element in elements for name in element.attributes if name == "src" or name.startswith("on")]
    links = [element.attributes["href"] for element in elements if "href" in element.attributes]
    assert all(link == "data:," or link.startswith("#") for link in links)
    assert not re.search(r"@import|url\(|https?:|//[a-z]", text)
    targets = {element.attributes["id"] for element in elements if "id" in element.attributes}
    assert {link[1:] for link in links if link.startswith("#")} <= targets


@pytest.mark.parametrize("settings", [("mode=plain",), ("mode=device",), ("mode=local", "epsilon=2")])
def test_page_can_be_read_without_seeing_it(learn: Learn, settings: tuple[str, ...]) -> None:
    page = read(learn(*(f"privacy.{setting}" for setting in settings)))

    assert page.one("html").attributes["lang"] == "en"
    assert len(page.all("main")) == len(page.all("h1")) == 1
    levels = [int(heading.tag[1]) for heading in page.all("h1", "h2", "h3", "h4")]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for drawing in page.all("svg"):
        assert drawing.attributes.get("aria-hidden") == "true" or len(drawing.attributes["aria-label"]) > 20
    for table in page.all("table"):
        assert table.one("caption").words
        assert all(cell.attributes["scope"] in ("col", "row") for cell in table.all("th"))
        widths = {len(row.all("th", "td")) for row in table.all("tr")}
        assert len(widths) == 1
    identifiers = [element.attributes["id"] for element in page.all() if "id" in element.attributes]
    assert len(identifiers) == len(set(identifiers))


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colours (WCAG 2.2, relative luminance)."""

    def luminance(colour: str) -> float:
        channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, light = sorted([luminance(first), luminance(second)])
    return (light + 0.05) / (dark + 0.05)


def test_colours_can_be_told_from_their_ground_in_light_and_dark(learn: Learn) -> None:
    style = read(learn("privacy.mode=plain")).one("style").text
    schemes = [
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", block)) for block in re.findall(r":root {.*?}", style, re.DOTALL)
    ]

    assert len(schemes) == 2
    for scheme in schemes:
        for name in ("ink", "muted", "accent", "warm", "good", "bad"):
            assert contrast(scheme[name], scheme["paper"]) >= 4.5, name
            assert contrast(scheme[name], scheme["wash"]) >= 4.5, name


def test_text_from_the_data_never_becomes_markup(tmp_path: Path) -> None:
    # a file's name may hold no slash
    source = tmp_path / "<script>alert(1)<b>.csv"
    rows = [f'"{EVIL}{u}","{EVIL}&{i}",{1 + (u + i) % 5}' for u in range(8) for i in range(6) if (u + i) % 3]
    source.write_text("user,item,rating\n" + "\n".join(rows) + "\n", "utf-8")
    settings = resolve(None, ["federation.rounds=1", "model.n_factors=1", "ledger.origin=example/<i>&"], environment={})
    settings = replace(settings, data=replace(settings.data, source=str(source)))
    train(settings, tmp_path / "<u>")

    page = read(load_run(tmp_path / "<u>"))

    assert {"script", "b", "i", "u"} & {element.tag for element in page.one("header").all()} == set()
    assert page.all("script") == []
    assert page.one("h1").words == "<script>alert(1)<b>, plain mode"
    assert page.one("head").one("title").words.startswith("<script>alert(1)<b>, plain")
    assert f"user {EVIL}0 of the data set" in section(page, "trace").one("caption").words
    assert "liberate ledger verify '<u>' --key 'example/<i>&+" in section(page, "ledger").all("pre")[0].text


def test_damaged_ledger_is_reported_as_such(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "small.csv", low_rank_ratings())
    train(resolve(None, [f"data.source={data}", "federation.rounds=1"], environment={}), tmp_path / "run")
    with closing(sqlite3.connect(tmp_path / "run" / "ledger" / "ledger.sqlite")) as connection, connection:
        connection.execute("DELETE FROM about WHERE principal = 4")

    page = read(load_run(tmp_path / "run"))

    assert "The ledger is not sound." in page.one("header").words
    assert "the check failed" in page.one("dl", **{"class": "tiles"}).words
    assert "Not verified." in section(page, "ledger").words
    assert "about 4" in section(page, "ledger").all("li")[0].words
    assert "Verified." not in page.words


def test_real_run_shows_the_date_and_no_label_of_a_simulation(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "small.csv", low_rank_ratings())
    settings = resolve(None, [f"data.source={data}", "federation.rounds=1", "run.simulated=false"], environment={})
    train(settings, tmp_path / "run")

    page = read(load_run(tmp_path / "run"))

    assert "Simulated." not in page.words
    assert "hold it against one you have from elsewhere" in section(page, "ledger").words
    assert "simulat" not in page.one("header").words
    assert "user" not in section(page, "trace").one("caption").words, "a number on the ledger is tied to nobody"
    written = datetime.fromisoformat(page.one("time").attributes["datetime"])
    assert abs((datetime.now(UTC) - written).total_seconds()) < 3600


def test_run_with_nothing_held_out_says_so(tmp_path: Path) -> None:
    data = tmp_path / "two.csv"
    data.write_text("user,item,rating\na,x,1\nb,x,5\n", "utf-8")
    train(resolve(None, [f"data.source={data}", "federation.rounds=1"], environment={}), tmp_path / "run")

    learned = section(read(load_run(tmp_path / "run")), "learned")

    assert "No ratings were held out" in learned.words
    assert learned.all("svg") == []
    assert "RMSE" not in [cell.words.partition(" ")[0] for cell in learned.all("th")]


def test_unfinished_run_has_no_report(learn: Learn) -> None:
    run = learn("privacy.mode=plain")
    record = msgspec.structs.replace(run.record, last_position=None, result=None)

    with pytest.raises(LiberateError, match="not finished"):
        report.write(replace(run, record=record))


@pytest.mark.engines
@pytest.mark.parametrize("settings", [("mode=plain",), ("mode=device",), ("mode=local", "epsilon=2")])
def test_browser_shows_the_page_and_asks_for_nothing(
    learn: Learn, browser: Browser, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    file = report.write(learn(*(f"privacy.{setting}" for setting in settings)))

    page = browser.open(file)
    browser.picture(file, tmp_path / "page.png")

    assert page.requests == ()
    shown = parse(page.dom)
    assert [heading.words for heading in shown.all("h2")] == HEADINGS
    assert len(shown.one("dl", **{"class": "tiles"}).all("div")) == 6
    picture = (matplotlib.image.imread(tmp_path / "page.png")[:, :, :3] * 255).round()
    # the curve of this run, in its own colour, and a page that is neither blank nor a wall
    is_accent = np.abs(picture[500:] - [0x23, 0x53, 0x9C]).max(axis=2) < 8
    assert is_accent.sum() > 1_000
    assert 0.7 < (picture.min(axis=2) > 240).mean() < 0.99


def test_a_run_for_good_lists_is_judged_by_its_lists(learn: Learn) -> None:
    """There is no RMSE, no curve of it, and no "nothing was held out" where something was."""
    text = read(learn("model.objective=implicit")).text

    assert "The model orders items and predicts no ratings. In lists of ten its NDCG on" in text
    assert "trained to rank items: no rating is predicted" in text
    assert "RMSE on held-out ratings" not in text
    assert "nothing was held out" not in text
    assert "nan" not in text.lower().split()
