"""Your own data: picture folders, single pictures, tables."""

import os
import struct
import warnings
import zlib

import numpy as np
import pytest

from cnnlib.data import ImageFolder, csv, image
from cnnlib.errors import DataError, ValueRangeError

Image = pytest.importorskip("PIL.Image")


def save(path, color=(255, 0, 0), size=(8, 8), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, **options)
    return path


@pytest.fixture
def root(tmp_path):
    for name, color in (("cat", (255, 0, 0)), ("dog", (0, 255, 0))):
        for k in range(3):
            save(tmp_path / "pets" / name / f"{k}.png", color)
    return tmp_path / "pets"


def link(path, target):
    try:
        path.symlink_to(target)
    except OSError:
        pytest.skip("this system does not allow symbolic links")


def test_a_folder_per_class(root):
    data = ImageFolder(root, size=4)
    assert data.x.shape == (6, 3, 4, 4) and data.x.dtype == np.float32 and data.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.classes == ("cat", "dog") and data.paths[3] == "dog/0.png" and data.skipped == []
    assert (data.x[0] == np.array([1, 0, 0])[:, None, None]).all()
    assert len(data.split(2)[1]) == 2


def test_size_and_channels(root):
    assert ImageFolder(root, (4, 6), channels=1).x.shape == (6, 1, 4, 6)
    with pytest.raises(ValueRangeError, match="size must be given"):
        ImageFolder(root, None)
    with pytest.raises(ValueRangeError, match=r"channels must be 1 .* or 3"):
        ImageFolder(root, 4, channels=4)
    with pytest.raises(ValueRangeError, match="number of pixels"):
        ImageFolder(root, 0)
    with pytest.raises(ValueRangeError, match="on_error"):
        ImageFolder(root, 4, on_error="ignore")


def test_hidden_and_system_files_are_ignored_and_subfolders_searched(root):
    (root / "cat" / ".DS_Store").write_bytes(b"x")
    (root / "cat" / "Thumbs.db").write_bytes(b"x")
    (root / ".git").mkdir()
    save(root / "cat" / ".thumbnails" / "0.png")
    save(root / "cat" / "more" / "9.png")
    (root / "README.md").write_text("about the pictures")
    assert ImageFolder(root, 4).paths == [
        "cat/0.png",
        "cat/1.png",
        "cat/2.png",
        "cat/more/9.png",
        "dog/0.png",
        "dog/1.png",
        "dog/2.png",
    ]


def spoil(root):
    (root / "cat" / "1.png").write_bytes((root / "cat" / "1.png").read_bytes()[:40])
    (root / "dog" / "notes.txt").write_text("no picture")
    (root / "dog" / "empty.jpg").write_bytes(b"")


def test_all_unusable_files_are_named(root):
    spoil(root)
    with pytest.raises(DataError) as error:
        ImageFolder(root, 4)
    message = str(error.value)
    assert "3 of 8 files" in message and 'on_error="skip"' in message
    assert all(name in message for name in ("cat/1.png", "dog/notes.txt", "dog/empty.jpg"))


def test_unusable_files_can_be_skipped_with_a_report(root):
    spoil(root)
    with pytest.warns(UserWarning, match=r"skipped 3 of 8 files"):
        data = ImageFolder(root, 4, on_error="skip")
    assert data.paths == ["cat/0.png", "cat/2.png", "dog/0.png", "dog/1.png", "dog/2.png"]
    assert [path for path, _ in data.skipped] == ["cat/1.png", "dog/empty.jpg", "dog/notes.txt"]
    assert data.x.shape[0] == 5 and (data.x[2, 1] == 1).all() and data.y.tolist() == [0, 0, 1, 1, 1]


def test_a_long_list_of_problems_is_cut_but_counted(root):
    for k in range(60):
        (root / "cat" / f"bad{k:02d}.png").write_bytes(b"?")
    with pytest.raises(DataError, match=r"60 of 66 files(.|\n)*and 10 more"):
        ImageFolder(root, 4)


def test_class_folders_need_pictures(root):
    (root / "owl").mkdir()
    with pytest.raises(DataError, match="no usable pictures for owl"):
        ImageFolder(root, 4)


def test_loose_pictures_and_missing_folders(tmp_path, root):
    with pytest.raises(DataError, match="is not a folder"):
        ImageFolder(tmp_path / "nowhere", 4)
    with pytest.raises(DataError, match="has no class folders"):
        ImageFolder(root / "cat", 4)
    save(root / "stray.jpg")
    with pytest.raises(DataError, match=r"1 pictures in .* are in no class folder \(stray.jpg\)"):
        ImageFolder(root, 4)


def test_given_classes_fix_the_numbers(root):
    data = ImageFolder(root, 4, classes=["ant", "dog", "cat"])
    assert data.y.tolist() == [1, 1, 1, 2, 2, 2] and data.classes == ("ant", "dog", "cat")
    with pytest.raises(DataError, match="folders for cat, which are not among the classes"):
        ImageFolder(root, 4, classes=["dog"])
    with pytest.raises(ValueRangeError, match="not distinct"):
        ImageFolder(root, 4, classes=["cat", "dog", "dog"])


def test_nothing_outside_the_folder_is_read(tmp_path, root):
    outside = save(tmp_path / "outside" / "secret.png")
    data = ImageFolder(root, 4, classes=["cat", "dog", "../outside"])
    assert all("secret" not in path for path in data.paths)
    link(root / "cat" / "link.png", outside)
    link(root / "dog" / "folder", outside.parent)
    with pytest.raises(DataError) as error:
        ImageFolder(root, 4)
    assert "cat/link.png: a link that leads out of the folder" in str(error.value)
    assert "dog/folder: a link to a folder is not followed" in str(error.value)


def test_links_within_the_folder(root):
    link(root / "cat" / "again.png", root / "cat" / "0.png")
    assert "cat/again.png" in ImageFolder(root, 4).paths
    link(root / "cat" / "gone.png", root / "cat" / "no.png")
    with pytest.raises(DataError, match=r"cat/gone.png: not a regular file"):
        ImageFolder(root, 4)
    link(root / "puma", root / "cat")
    with pytest.raises(DataError, match=r"puma in .*: links to folders are not followed"):
        ImageFolder(root, 4)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_opened(root):
    os.mkfifo(root / "cat" / "pipe.png")
    with pytest.raises(DataError, match=r"cat/pipe.png: not a regular file"):
        ImageFolder(root, 4)


# --- single pictures, unusual ones


def test_one_picture_is_a_batch_of_one(tmp_path):
    path = save(tmp_path / "a.png", (0, 51, 255), size=(6, 4))
    x = image(path)
    assert x.shape == (1, 3, 4, 6) and x.dtype == np.float32
    np.testing.assert_allclose(x[0, :, 0, 0], [0, 0.2, 1], rtol=1e-6)
    assert image(path, 5, channels=1).shape == (1, 1, 5, 5)
    with pytest.raises(DataError, match="no such picture file"):
        image(tmp_path / "b.png")


def test_the_middle_is_cut_out_and_proportions_kept(tmp_path):
    pixels = np.zeros((10, 30), np.uint8)
    pixels[:, 10:20] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert (image(tmp_path / "wide.png", 10, channels=1) == 1).all()


@pytest.mark.parametrize(
    "mode, color, options, red",
    [
        ("RGB", (200, 0, 0), {}, 200),
        ("RGBA", (200, 0, 0, 255), {}, 200),
        ("RGBA", (0, 0, 0, 0), {}, 255),  # transparent becomes white
        ("LA", (0, 0), {}, 255),
        ("L", 200, {}, 200),
        ("1", 1, {}, 255),
        ("I;16", 200 * 257, {}, 200),
        ("P", 0, {"transparency": 0}, 255),
    ],
)
def test_modes(tmp_path, mode, color, options, red):
    path = save(tmp_path / "a.png", color, mode=mode, **options)
    x = image(path)
    assert x.shape == (1, 3, 8, 8)
    np.testing.assert_allclose(x[0, 0], red / 255, rtol=1e-6)


def test_palette_and_cmyk(tmp_path):
    picture = Image.new("P", (2, 2), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    picture.save(tmp_path / "a.gif")
    np.testing.assert_allclose(image(tmp_path / "a.gif")[0, :, 0, 0] * 255, [10, 20, 30], rtol=1e-5)
    x = image(save(tmp_path / "b.jpg", (0, 255, 255, 0), mode="CMYK", quality=100))
    assert np.abs(x[0, :, 4, 4] - [1, 0, 0]).max() < 0.05


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90°
    picture = Image.fromarray(np.repeat(np.array([[255, 0]], np.uint8), 8, axis=1).repeat(8, axis=0))
    picture.save(tmp_path / "a.jpg", exif=exif, quality=100)
    x = image(tmp_path / "a.jpg", channels=1)[0, 0]
    assert x.shape == (16, 8) and x[:7].min() > 0.9 and x[9:].max() < 0.1


def test_floating_point_pictures_are_refused(tmp_path):
    with pytest.raises(DataError, match="floating-point numbers of unknown range"):
        image(save(tmp_path / "a.tiff", 0.5, mode="F"))


def png_claiming(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side, claim", [(9_500, "9500 × 9500"), (60_000, "over 178,956,970")])
def test_decompression_bombs_are_refused(tmp_path, root, side, claim):
    (tmp_path / "bomb.png").write_bytes(png_claiming(side, side))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=f"bomb.png: it claims {claim}.*decompression bomb"):
            image(tmp_path / "bomb.png")
    (root / "cat" / "bomb.png").write_bytes(png_claiming(side, side))
    with pytest.raises(DataError, match=r"1 of 7 files(.|\n)*cat/bomb.png: it claims"):
        ImageFolder(root, 4)


@pytest.mark.parametrize("suffix, options", [("png", {}), ("jpg", {}), ("gif", {}), ("bmp", {}), ("tiff", {}), ("webp", {})])
def test_every_truncation_is_an_error_or_a_whole_picture(tmp_path, suffix, options):
    rng = np.random.default_rng(0)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(rng.integers(0, 255, (16, 16, 3)).astype(np.uint8)).save(path, **options)
    data = path.read_bytes()
    for length in range(0, len(data) * 3 // 4, max(1, len(data) // 30)):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=f"a.{suffix}: "):
            image(path)


# --- tables


def table(tmp_path, text, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


IRIS = "length,width,kind\n1.5,2,rose\n3,4.25,iris\n\n5,6,rose\n"


@pytest.mark.parametrize("label", ["kind", 2, -1])
def test_csv(tmp_path, label):
    data = csv(table(tmp_path, IRIS), label)
    assert data.x.tolist() == [[1.5, 2], [3, 4.25], [5, 6]] and data.x.dtype == np.float32
    assert data.y.tolist() == [1, 0, 1] and data.classes == ("iris", "rose") and data.name == "t"


def test_csv_without_header_and_other_shapes(tmp_path):
    data = csv(table(tmp_path, "7;0.5\n10;1\n7;2\n"), 0, delimiter=";")
    assert data.classes == ("7", "10") and data.y.tolist() == [0, 1, 0] and data.x.tolist() == [[0.5], [1], [2]]
    data = csv(table(tmp_path, "\ufeffy,x\r\n0.5,1\r\n"), "y", regression=True)
    assert data.y.tolist() == [0.5] and data.y.dtype == np.float32 and data.classes == ()
    data = csv(table(tmp_path, IRIS), "kind", classes=["rose", "tulip", "iris"])
    assert data.y.tolist() == [0, 2, 0]
    assert len(csv(table(tmp_path, '"a, b","c"\n1,"x\ny"\n'), "c")) == 1


@pytest.mark.parametrize(
    "text, label, options, error, words",
    [
        ("a,b\n1,x\n2\n", "b", {}, DataError, r"t.csv, line 3: 1 cells, but the first row \(line 1\) has 2"),
        ("a,b\n\n1,x\n2,y,3\n", "b", {}, DataError, "line 4: 3 cells"),
        ("a,b\n1,x\ntwo,y\n", "b", {}, DataError, "line 3, column 'a': 'two' is not a finite number"),
        ("a,b\n1,x\n,y\n", "b", {}, DataError, "line 3, column 'a': the cell is empty"),
        ("a,b\n1,x\nnan,y\n", "b", {}, DataError, "line 3, column 'a': 'nan' is not a finite number"),
        ("a,b\n1,x\n1e39,y\n", "b", {}, DataError, "line 3, column 'a': '1e39'"),
        ("a,b\n1,x\n1_0,y\n", "b", {}, DataError, "'1_0' is not"),
        ("1,5.x,0\n1,2,1\n", -1, {}, DataError, "line 1, column '1': '5.x' is not"),  # not taken for a header
        ("a,b\n1,x\n2,\n", "b", {}, DataError, "line 3, column 'b': the label is empty"),
        ("a,b\n1,x\n", "c", {}, DataError, "no column is called 'c'; the columns are a, b"),
        ("a,a\n1,x\n", "a", {}, DataError, "2 columns are called 'a'"),
        ("a,b\n1,x\n", 2, {}, ValueRangeError, "place from 0 to 1"),
        ("a,b\n1,x\n", "b", {"header": False}, ValueRangeError, "header=False says"),
        ("a,b\n", "b", {}, DataError, "no rows of data"),
        ("", 0, {}, DataError, "the file is empty"),
        ("a\n1\n", "a", {}, DataError, "only one column"),
        ("a,b\n1,x\n2,y\n", "b", {"classes": ["x"]}, DataError, "line 3: the label 'y' is not among the classes"),
        ("a,b\n1,x\n", "b", {"regression": True}, DataError, "line 2, column 'b': 'x' is not a finite number"),
        (b"a,b\n1,\xff\n", "b", {}, DataError, "t.csv, after line 0: not UTF-8"),
        ('a,b\n1,"x\n', "b", {}, DataError, "line 2: unexpected end of data"),
    ],
)
def test_csv_errors_say_where(tmp_path, text, label, options, error, words):
    with pytest.raises(error, match=words):
        csv(table(tmp_path, text), label, **options)


def test_csv_missing_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        csv(tmp_path / "no.csv", 0)
