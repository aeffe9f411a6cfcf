"""The emoji: the bundled sheet cut into pictures, the folders of two vendors, names and captions."""

import json

import numpy as np
import pytest
from PIL import Image

from cnnlib.data.emoji import captions, emoji, emoji_people
from cnnlib.data.words import Vocabulary
from cnnlib.errors import DataError, ShapeError, UnknownNameError


def test_people_of_the_library():
    pictures, names = emoji_people()
    assert pictures.shape == (396, 3, 32, 32) and pictures.dtype == np.float32
    assert 0 <= pictures.min() and pictures.max() == 1
    assert len({" ".join(name) for name in names}) == 396 == len({p.tobytes() for p in pictures})
    assert sum(name[0] == "woman" for name in names) == 198
    for i, name in enumerate(names):  # skin is lighter in a light tone than in a dark one
        if name[-1] == "light":
            assert pictures[i].mean() > pictures[names.index([*name[:-1], "dark"])].mean()


def vendor(folder, name, has_other=True):
    """Two emoji, one of them in two tones and once as a pair."""
    pictures = folder / "emoji" / name / "img" / name / "64"
    pictures.mkdir(parents=True)
    flags = {"has_img_google": True, "has_img_twitter": True}
    variations = {tone: {"image": f"{tone}.png", **flags} for tone in ("1F3FB", "1F3FF", "1F3FB-1F3FF")}
    listed = [
        {"name": "HOT DOG", "image": "dog.png", "category": "Food", **flags},
        {"name": "WAVING HAND SIGN", "image": "hand.png", "category": "People", **flags, "skin_variations": variations},
        {"name": "ONLY HERE", "image": "missing.png", **flags, "has_img_twitter": False},
    ]
    for k, file in enumerate(["dog.png", "hand.png", "1F3FB.png", "1F3FF.png"]):
        Image.new("RGB", (64, 64), (60 * k, 0, 0)).save(pictures / file)
    (folder / "emoji" / name / "emoji.json").write_text(json.dumps(listed))


def test_emoji_of_a_vendor(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNLIB_DATA", str(tmp_path))
    vendor(tmp_path, "twitter")
    pictures, names = emoji("twitter")
    hand = ["waving", "hand", "sign"]
    assert names == [["hot", "dog"], hand, [*hand, "light"], [*hand, "dark"]]
    assert pictures.shape == (4, 3, 32, 32)
    np.testing.assert_allclose(pictures[:, 0, 5, 5], np.array([0, 60, 120, 180]) / 255, atol=1e-6)


def test_missing_emoji_and_vendors(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNLIB_DATA", str(tmp_path))
    with pytest.raises(
        DataError, match=r"google has no pictures: unpack the npm package emoji-datasource-google, version 16\.0\.0"
    ):
        emoji()
    with pytest.raises(UnknownNameError, match="vendor of emoji 'goggle': did you mean 'google'"):
        emoji("goggle")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not the package's list"),
        ('{"a": 1}', "is not the package's list"),
        ('[{"name": "HOT DOG"}]', r"is not the package's list \(KeyError\('has_img_google'\)\): unpack it again"),
        ("[]", "lists no emoji that both google and twitter have drawn"),
    ],
)
def test_a_damaged_list_of_emoji_is_named(tmp_path, monkeypatch, content, message):
    monkeypatch.setenv("CNNLIB_DATA", str(tmp_path))
    (tmp_path / "emoji" / "google").mkdir(parents=True)
    (tmp_path / "emoji" / "google" / "emoji.json").write_text(content)
    with pytest.raises(DataError, match=f"emoji.json {message}"):
        emoji()


def test_captions_end_and_are_padded():
    names = [["hot", "dog"], ["hand"]]
    vocabulary = Vocabulary.build(names)
    data = captions(np.zeros((2, 3, 32, 32), np.float32), names, vocabulary)
    assert data.y.tolist() == [[vocabulary["hot"], vocabulary["dog"], 3], [vocabulary["hand"], 3, 0]]
    with pytest.raises(ShapeError, match="2 pictures need as many names, got 1"):
        captions(np.zeros((2, 3, 32, 32), np.float32), names[:1], vocabulary)
