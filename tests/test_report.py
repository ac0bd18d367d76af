"""A run as a page: what it says, that it needs nothing else, and that it stays small."""
import base64
import re
from html.parser import HTMLParser

import pytest
from browser import browser, missing, opened
from torch import nn

import minifast
from minifast.callbacks import EarlyStoppingCallback, StopAfterNBatches
from minifast.fakes import fake_data, fake_learner
from minifast.learner import Learner
from minifast.metrics import accuracy
from minifast.report import write_report

LIMIT = 2**20


class Page(HTMLParser):
    """The page's tables as lists of rows, its pictures as (alternative text, SVG), and every address in it."""

    def __init__(self, path):
        super().__init__()
        self.rows, self.pictures, self.addresses, self.text = [], [], [], path.read_text()
        self.cell = None
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.addresses += [attrs[name] for name in ("src", "href") if name in attrs]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.cell = self.rows[-1]
        elif tag == "img":
            svg = base64.b64decode(attrs["src"].removeprefix("data:image/svg+xml;base64,")).decode()
            self.pictures.append((attrs["alt"], svg))

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell[-1] += data

    def setting(self, name):
        return next(row[1:] for row in self.rows if row and row[0] == name)


@pytest.fixture
def learn():
    learn = fake_learner(metrics=[accuracy], train_length=100, path=".")
    learn.lr_find(num_it=30)
    learn.fit_one_cycle(2, 0.1)
    return learn


def test_it_says_what_the_run_did(learn, tmp_path):
    page = Page(learn.report(tmp_path / "report.html"))
    r = learn.recorder
    assert page.rows[0] == r.names
    assert page.rows[1:3] == r.rows() and page.rows[2][1] == f"{r.train_losses[1]:.6f}"
    assert page.setting("learning rates") == [f"{min(r.lrs):.3g} to 0.1"]
    assert page.setting("epochs") == ["2"] and page.setting("batches trained") == ["40"]
    assert page.setting("OneCycleScheduler")[0].startswith("lr_max=0.1, moms=[0.95, 0.85], div_factor=25.0")
    assert page.setting("model") == ["Sequential"] and page.setting("parameters") == ["24"]
    assert page.setting("ended") == ["as planned"]
    assert page.setting("torch")[0].startswith("2.") and page.setting("minifast") == [minifast.__version__]
    assert str(r.range_test).splitlines()[1] in page.text
    assert [alt.split()[0] for alt, _ in page.pictures] == ["Training", "accuracy", "Learning", "Loss"]
    assert all("<svg" in svg for _, svg in page.pictures)


def test_it_needs_no_other_file(learn, tmp_path):
    page = Page(learn.report(tmp_path / "report.html"))
    assert page.addresses and all(address.startswith("data:") for address in page.addresses)
    assert "<script" not in page.text and "@import" not in page.text and "url(" not in page.text


def test_a_stopped_run_says_so(tmp_path):
    learn = fake_learner(metrics=[accuracy])
    learn.fit(5, 0.01, callbacks=[EarlyStoppingCallback(learn, patience=1, min_delta=9)])
    page = Page(learn.report(tmp_path / "report.html"))
    assert page.setting("ended") == ["by a callback after epoch 1"]
    assert page.setting("EarlyStoppingCallback")[0].startswith("monitor=valid_loss")


def test_callbacks_are_those_of_the_last_fit(tmp_path):
    learn = fake_learner()
    learn.fit(1, callbacks=[EarlyStoppingCallback(learn)])
    learn.fit(1, callbacks=[StopAfterNBatches(1)])
    text = learn.report(tmp_path / "report.html").read_text()
    assert "StopAfterNBatches" in text and "EarlyStopping" not in text


def test_a_refused_fit_changes_nothing(tmp_path):
    learn = fake_learner()
    learn.fit(1, callbacks=[StopAfterNBatches(1)])
    with pytest.raises(ValueError, match="monitors"):
        learn.fit(1, callbacks=[EarlyStoppingCallback(learn, monitor="nothing")])
    assert StopAfterNBatches in learn.recorder.taking_part


def test_runs_side_by_side(learn, tmp_path):
    other = fake_learner(metrics=[accuracy], train_length=100)
    other.fit(2, 0.1)
    page = Page(learn.report(tmp_path / "report.html", compare={"constant": other}, name="1cycle"))
    assert page.setting("learning rates") == [f"{min(learn.recorder.lrs):.3g} to 0.1", "0.1 to 0.1"]
    assert re.search(r"<tr class=other><th scope=\"row\">learning rates", page.text)
    assert not re.search(r"<tr class=other><th scope=\"row\">epochs", page.text)
    assert "1cycle: Train, smoothed" in page.pictures[0][1] and "constant: Train, smoothed" in page.pictures[0][1]


def test_runs_with_other_columns(learn, tmp_path):
    other = fake_learner(train_length=100)
    other.fit(1, 0.1)
    page = Page(learn.report(tmp_path / "report.html", compare={"no metric": other}))
    assert [alt.split()[0] for alt, _ in page.pictures] == ["Training", "Learning", "Loss"]


def test_what_users_name_is_text(tmp_path):
    learn = fake_learner(metrics=[{"<b>&": accuracy}])
    learn.fit(1, 0.1)
    page = Page(learn.report(tmp_path / "report.html", compare={"<script>x": learn}))
    assert "<b>&" not in page.text and "<script>" not in page.text
    assert page.rows[0][3] == "<b>&"


def test_a_range_test_alone(tmp_path):
    learn = fake_learner(train_length=100)
    learn.lr_find(num_it=20, wds=[0.0, 0.1])
    page = Page(learn.report(tmp_path / "report.html"))
    assert [alt for alt, _ in page.pictures] == ["Loss against learning rate in the range test"]


def test_a_long_run_stays_small(tmp_path):
    learn = Learner(fake_data(train_length=200, valid_length=0), nn.Linear(5, 4), silent=True)
    learn.fit(1, 0.01)
    r = learn.recorder
    for name in ("_losses", "_raw_losses", "lrs", "moms"):
        getattr(r, name).extend([0.5 + 0.4 * ((7919 * i) % 101) / 101 for i in range(200_000)])
    for name in ("train_losses", "val_losses", "metrics", "nb_batches", "times"):
        getattr(r, name).extend(getattr(r, name) * 5000)
    path = learn.report(tmp_path / "report.html")
    assert path.stat().st_size < LIMIT
    page = Page(path)
    assert len(page.rows[:page.rows.index(["data", *page.setting("data")])]) == 401
    assert page.rows[400][0] == "5000" and "of 5001 epochs" in page.text


@pytest.mark.parametrize("arguments, error, says", [
    ({"compare": [1]}, TypeError, r"compare must be a dict of learners by name, .* not \[1\]"),
    ({"compare": {"other": 3}}, TypeError, "compare must be a dict of learners"),
    ({"compare": {"this run": fake_learner()}}, ValueError, "a run of the name 'this run'"),
    ({"compare": {"new": fake_learner()}}, ValueError, "nothing to report of new: call fit"),
    ({"path": 3}, TypeError, "path must be"),
])
def test_bad_input_writes_nothing(learn, arguments, error, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=says):
        write_report(learn, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_report(tmp_path):
    with pytest.raises(ValueError, match="nothing to report of this run: call fit"):
        fake_learner().report(tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
@pytest.mark.parametrize("width, scheme", [(390, "light"), (1280, "dark")])
def test_it_opens_in_a_browser(learn, tmp_path, width, scheme):
    path = learn.report(tmp_path / "report.html", compare={"again": learn})
    with browser() as chromium, opened(chromium, path, width, color_scheme=scheme) as (page, said):
        assert page.title() == "Runs of minifast: this run, again"
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 100)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert said == []
