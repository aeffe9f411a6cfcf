"""Transforms against slow references, and that a sample's augmentation does not depend on its batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnnlib as cl
from cnnlib.data import (
    CentreCrop,
    Compose,
    DataLoader,
    GaussianNoise,
    Normalize,
    Pad,
    PCAColour,
    RandomCrop,
    RandomFlip,
    arrays,
    ten_crops,
)
from cnnlib.data.streams import COLOUR, CROP, FLIP, NOISE
from cnnlib.data.transforms import sample_generators
from cnnlib.errors import DataError, ShapeError, ValueRangeError

COLOURS = PCAColour([0.5, 0.1], [[0.8, -0.6], [0.6, 0.8]], std=0.3)
RANDOM = [
    RandomCrop(5, padding=2),
    RandomCrop((3, 6)),
    RandomFlip(),
    GaussianNoise(0.5),
    COLOURS,
    Compose([RandomCrop(4), RandomFlip(), COLOURS]),
    Compose([RandomCrop(6, padding=1), RandomFlip(0.3), GaussianNoise(0.1), GaussianNoise(0.1)]),
]


def pictures(n=12, channels=2, dtype=np.float32):
    return np.random.default_rng(0).random((n, channels, 6, 7)).astype(dtype)


def stream(index, seed, epoch, which):
    return np.random.Generator(np.random.Philox(key=[seed, which], counter=[0, index, epoch, 0]))


@pytest.mark.parametrize("transform", RANDOM, ids=repr)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 1000), order=st.permutations(range(12)), size=st.integers(1, 12))
def test_a_sample_does_not_depend_on_its_batch(transform, seed, epoch, order, size):
    x, order = pictures(), np.array(order)
    whole = transform(x, np.arange(12), seed, epoch)
    for k in range(0, 12, size):
        some = order[k : k + size]
        assert np.array_equal(transform(x[some], some, seed, epoch), whole[some])


@pytest.mark.parametrize("transform", RANDOM, ids=repr)
def test_seed_epoch_and_index_all_matter(transform):
    x = np.repeat(pictures(1), 64, axis=0)
    base = transform(x, np.arange(64), 1, 1)
    assert not np.array_equal(base, transform(x, np.arange(64), 2, 1))
    assert not np.array_equal(base, transform(x, np.arange(64), 1, 2))
    assert not (base == base[0]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "transform", [*RANDOM, Normalize([0.1, 0.2], 0.5), Pad(1), Pad(0), CentreCrop(4), CentreCrop(8), Compose([])], ids=repr
)
def test_input_is_not_written_and_the_result_is_new(transform, dtype):
    x = pictures(dtype=dtype)
    x.flags.writeable = False
    out = transform(x, np.arange(12), 0, 0)
    assert not np.shares_memory(out, x) and out.dtype == dtype and out.flags.c_contiguous


def test_crop_against_a_slow_reference():
    x = pictures()
    out = RandomCrop((4, 5), padding=2)(x, np.arange(100, 112), 7, 3)
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)))
    for k in range(12):
        u, v = stream(100 + k, 7, 3, CROP).random(2)
        top, left = int(u * (10 - 4 + 1)), int(v * (11 - 5 + 1))
        assert np.array_equal(out[k], padded[k, :, top : top + 4, left : left + 5])


def test_crop_reaches_every_place_equally_often():
    x = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3).repeat(9000, axis=0)
    counts = np.bincount(RandomCrop(1)(x, np.arange(9000), 0, 0).astype(int).reshape(-1))
    assert len(counts) == 9 and np.abs(counts - 1000).max() < 150  # 5 standard deviations


def test_flip_against_a_slow_reference():
    x = pictures()
    out = RandomFlip(0.5)(x, np.arange(12), 7, 3)
    flips = [stream(k, 7, 3, FLIP).random() < 0.5 for k in range(12)]
    assert 0 < sum(flips) < 12
    for k, flip in enumerate(flips):
        assert np.array_equal(out[k], x[k, :, :, ::-1] if flip else x[k])
    assert np.array_equal(RandomFlip(0)(x, np.arange(12), 0, 0), x)
    assert np.array_equal(RandomFlip(1)(x, np.arange(12), 0, 0), x[..., ::-1])


def test_noise_against_a_slow_reference():
    x = pictures()
    out = GaussianNoise(0.5)(x, np.arange(12), 7, 3)
    for k in range(12):
        noise = stream(k, 7, 3, NOISE).standard_normal(x[k].shape, dtype=np.float32)
        np.testing.assert_allclose(out[k], x[k] + 0.5 * noise, rtol=1e-6)
    noise = GaussianNoise(2.0)(np.zeros((1000, 1, 10, 10), np.float32), np.arange(1000), 0, 0)
    assert abs(noise.mean()) < 0.04 and abs(noise.std() - 2) < 0.04


def colourful(n=300):
    """Pictures whose three channels vary together, in float32."""
    rng = np.random.default_rng(3)
    mixed = np.einsum("dc,nchw->ndhw", [[0.3, 0.1, 0.0], [0.2, 0.1, 0.1], [0.2, -0.1, 0.05]], rng.standard_normal((n, 3, 4, 5)))
    return arrays((0.5 + mixed).astype(np.float32), np.zeros(n, int))


def test_the_components_are_those_of_the_covariance_of_all_pixels():
    data = colourful()
    covariance = np.cov(data.x.astype(np.float64).transpose(1, 0, 2, 3).reshape(3, -1), bias=True)
    made = PCAColour.fit(data)
    P, values = made.eigenvectors, made.eigenvalues
    np.testing.assert_allclose(P @ np.diag(values) @ P.T, covariance, atol=1e-9)
    np.testing.assert_allclose(P.T @ P, np.eye(3), atol=1e-12)
    assert values[0] >= values[1] >= values[2] >= 0 and (P[abs(P).argmax(axis=0), range(3)] > 0).all()


def test_the_added_colour_has_the_covariance_of_the_formula():
    data = colourful()
    covariance = np.cov(data.x.astype(np.float64).transpose(1, 0, 2, 3).reshape(3, -1), bias=True)
    x = np.zeros((20_000, 3, 2, 2))
    colours = PCAColour.fit(data, std=0.2)(x, np.arange(20_000), 5, 0)
    assert (colours == colours[:, :, :1, :1]).all(), "one colour for all pixels of a picture"
    added = colours[:, :, 0, 0]
    expected = 0.2**2 * covariance @ covariance  # std² P Λ² Pᵀ
    deviation = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / 20_000)
    assert (abs(np.cov(added.T) - expected) < 5 * deviation).all()
    assert (abs(added.mean(axis=0)) < 5 * np.sqrt(np.diag(expected) / 20_000)).all()


def test_colours_against_a_slow_reference():
    x = pictures()
    out = COLOURS(x, np.arange(12), 7, 3)
    for k in range(12):
        a, b = stream(k, 7, 3, COLOUR).standard_normal(2)
        colour = 0.3 * (a * 0.5 * np.array([0.8, 0.6]) + b * 0.1 * np.array([-0.6, 0.8]))
        np.testing.assert_allclose(out[k], x[k] + colour[:, None, None], rtol=1e-5, atol=1e-6)


def test_grey_pictures_stay_grey():
    grey = np.repeat(np.random.default_rng(0).random((50, 1, 4, 4), np.float32), 3, axis=1)
    data = arrays(grey, np.zeros(50, int))
    made = PCAColour.fit(data)
    np.testing.assert_allclose(made.eigenvectors[:, 0], 3**-0.5, rtol=1e-6)
    out = made(grey, np.arange(50), 0, 0)
    np.testing.assert_allclose(out, np.repeat(out[:, :1], 3, axis=1), atol=1e-6)
    assert not np.allclose(out, grey, atol=1e-3)


@pytest.mark.parametrize("have, want", [((6, 7), (4, 4)), ((6, 7), (3, 7)), ((5, 5), (8, 6)), ((6, 3), (4, 8))])
def test_the_centre_crop_is_the_middle(have, want):
    x = np.random.default_rng(0).random((2, 3, *have)).astype(np.float32)
    out = CentreCrop(want)(x)
    wide = np.pad(x, ((0, 0), (0, 0), (10, 10), (10, 10)))
    top, left = (10 + (h - w) // 2 if h >= w else 10 - (w - h) // 2 for h, w in zip(have, want, strict=True))
    assert np.array_equal(out, wide[:, :, top : top + want[0], left : left + want[1]])


def test_ten_crops_are_corners_centre_and_their_mirror_images():
    x = pictures()
    crops = ten_crops(x, (3, 4))
    places = [(0, 0), (0, 3), (3, 0), (3, 3), (1, 1)]
    for crop, mirrored, (top, left) in zip(crops[:5], crops[5:], places, strict=True):
        assert np.array_equal(crop, x[:, :, top : top + 3, left : left + 4])
        assert np.array_equal(mirrored, x[:, :, top : top + 3, left : left + 4][..., ::-1])
    whole = ten_crops(x, (6, 7))
    assert len(whole) == 10 and all(np.array_equal(c, x) for c in whole[:5])


def test_a_model_that_looks_ten_times_gives_the_mean_of_the_probabilities():
    cl.manual_seed(0)
    net = cl.nn.Sequential(cl.nn.Flatten(), cl.nn.Linear(2 * 4 * 4, 3))
    x = pictures()
    y = cl.train.TenCrops(net, 4)(cl.Tensor(x)).numpy()
    mean = sum(cl.ops.softmax(net(crop)).numpy() for crop in ten_crops(x, 4)) / 10
    np.testing.assert_allclose(y, np.log(mean), rtol=1e-5, atol=1e-6)
    net[1].bias.set(np.array([0.0, 0.0, 500.0], np.float32))
    far = cl.train.TenCrops(net, 4)(x).numpy()
    assert np.isfinite(far).all() and far.min() < -400, "probabilities smaller than any float32 above 0"


def test_a_trainer_evaluates_a_model_that_looks_ten_times():
    train, test = cl.data.digits()
    cl.manual_seed(0)
    net = cl.nn.Sequential(cl.nn.Flatten(), cl.nn.Linear(36, 10))
    optimizer, loss = cl.optim.Adam(net.parameters(), lr=1e-2), cl.nn.CrossEntropyLoss()
    transform = Compose([RandomCrop(6), RandomFlip(0)])
    trainer = cl.Trainer(net, loss, optimizer, progress=False)
    trainer.fit(DataLoader(train, 64, transform=transform), test, epochs=2)
    ten = cl.train.TenCrops(net, 6)
    result = cl.Trainer(ten, loss, optimizer, progress=False, eval_transform=None).evaluate(test)
    right = ten(test.x).numpy().argmax(axis=1) == test.y
    assert result["accuracy"] == pytest.approx(right.mean()) and right.mean() > 0.5


def test_seeds_beyond_2_63_are_not_rounded_together():
    x = np.zeros((1, 1, 4, 4), np.float32)
    noise = [GaussianNoise(1.0)(x, [0], 2**64 - k, 0).tobytes() for k in range(1, 5)]
    assert len(set(noise)) == 4


def test_equal_transforms_in_a_compose_are_independent():
    x = np.zeros((4, 1, 8, 8), np.float32)
    once = GaussianNoise(1.0)(x, np.arange(4), 5, 0)
    twice = Compose([GaussianNoise(1.0), GaussianNoise(1.0)])(x, np.arange(4), 5, 0)
    assert np.array_equal(Compose([GaussianNoise(1.0)])(x, np.arange(4), 5, 0), once)
    assert abs(np.corrcoef((twice - once).ravel(), once.ravel())[0, 1]) < 0.4


def test_generators_give_each_sample_its_own_numbers_however_many_are_drawn():
    def draws(indices, n):
        return {i: g.random(n)[0] for i, g in zip(indices, sample_generators(indices, 1, 2, 3), strict=True)}

    assert draws([5, 6, 7], 1) == draws([7, 5, 6], 50)


def test_normalize_fit():
    data = arrays(np.random.default_rng(1).normal(3, 2, (500, 3, 4, 4)), np.zeros(500, int))
    out = Normalize.fit(data)(data.x)
    assert np.abs(out.mean(axis=(0, 2, 3))).max() < 1e-5 and np.abs(out.std(axis=(0, 2, 3)) - 1).max() < 1e-5
    table = arrays(np.array([[1.0, 5.0], [3.0, 5.0]]), [0, 1])
    assert Normalize.fit(table)(table.x).tolist() == [[-1, 0], [1, 0]]  # the constant column keeps std 1


def test_pad():
    assert np.array_equal(Pad(2)(pictures()), np.pad(pictures(), ((0, 0), (0, 0), (2, 2), (2, 2))))


@pytest.mark.parametrize(
    "build, error, words",
    [
        (lambda: Normalize(0.0, 0.0), ValueRangeError, "std above 0"),
        (lambda: Normalize(np.nan, 1.0), ValueRangeError, "finite"),
        (lambda: Normalize([[0.0]], 1.0), ShapeError, "one number per channel"),
        (lambda: Normalize([0, 0, 0], 1)(pictures()), ShapeError, "mean has 3 values but x has 2 channels"),
        (lambda: Normalize.fit(arrays(np.zeros((2, 2), int), [0, 1])), DataError, "float sample"),
        (lambda: Pad(-1), ValueRangeError, "at least 0; got -1"),
        (lambda: Pad(1)(np.zeros((2, 2))), ShapeError, "expected pictures"),
        (lambda: RandomCrop(0), ValueRangeError, "at least 1"),
        (lambda: RandomCrop(7)(pictures(), np.arange(12), 0, 0), ShapeError, r"window of \(7, 7\) does not fit"),
        (lambda: CentreCrop((3, 0)), ValueRangeError, "CentreCrop: size must be a whole number of pixels, at least 1; got 0"),
        (lambda: CentreCrop((1, 2, 3)), ValueRangeError, r"got \(1, 2, 3\)"),
        (lambda: CentreCrop(2)(np.zeros((2, 2))), ShapeError, "CentreCrop: expected pictures"),
        (
            lambda: ten_crops(pictures(), 7),
            ShapeError,
            r"ten_crops: a window of \(7, 7\) does not fit into pictures of \(6, 7\)",
        ),
        (lambda: PCAColour([1.0, 2.0], np.eye(3)), ShapeError, r"got shapes \(2,\) and \(3, 3\)"),
        (lambda: PCAColour([1.0, -2.0], np.eye(2)), ValueRangeError, "eigenvalues of a covariance are finite and at least 0"),
        (lambda: PCAColour([1.0], [[1.0]], std=-1), ValueRangeError, "std must be at least 0 and finite; got -1"),
        (lambda: PCAColour([1.0], [[1.0]])(pictures(), np.arange(12), 0, 0), ShapeError, "made for 1 channels, but x has 2"),
        (lambda: PCAColour.fit(arrays(np.zeros((2, 2)), [0, 1])), DataError, r"float picture \(N, C, H, W\), got \(2, 2\)"),
        (lambda: RandomFlip(1.5), ValueRangeError, "probability"),
        (lambda: RandomFlip()(np.zeros((2, 2)), np.arange(2), 0, 0), ShapeError, "expected pictures"),
        (lambda: GaussianNoise(-1), ValueRangeError, "at least 0"),
    ],
)
def test_settings_are_checked(build, error, words):
    with pytest.raises(error, match=words):
        build()


def test_augmented_epochs_resume():
    data = arrays(pictures(20), np.zeros(20, int))
    loader = DataLoader(data, 6, seed=4, transform=RANDOM[-1])
    full, rest = list(loader.iterate(2)), list(loader.iterate(2, start_batch=2))
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(full[2:], rest, strict=True))
