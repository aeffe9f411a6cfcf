"""Data: sets that come with the library or are downloaded, your own pictures and tables, batches, augmentation, text.

>>> train, test = digits()                                      # or load("digits")
>>> loader = DataLoader(train, batch_size=64, transform=Normalize.fit(train))
"""

from cnnlib.data import emoji, series, transforms, words
from cnnlib.data.catalogues import parallel
from cnnlib.data.dataset import Dataset, arrays
from cnnlib.data.datasets import Info, cifar10, digits, fashion, fashion_subset, info, load, mnist, names, prefetch
from cnnlib.data.download import cache_dir
from cnnlib.data.film_reviews import reviews
from cnnlib.data.folder import ImageFolder, csv
from cnnlib.data.formats import read_cifar, read_idx
from cnnlib.data.generated import dates, number_words
from cnnlib.data.loader import DataLoader
from cnnlib.data.pairs import Pairs
from cnnlib.data.pictures import image
from cnnlib.data.resize import Resize
from cnnlib.data.ring import Coverage, coverage, ring
from cnnlib.data.text import Alphabet, Streams, Text, numbered, sequences, sonnets
from cnnlib.data.texts import read_text, text_names
from cnnlib.data.transforms import (
    CentreCrop,
    Compose,
    GaussianNoise,
    Normalize,
    Pad,
    PCAColour,
    RandomCrop,
    RandomFlip,
    ten_crops,
)
from cnnlib.data.words import Vocabulary

__all__ = [
    "Alphabet",
    "CentreCrop",
    "Compose",
    "Coverage",
    "DataLoader",
    "Dataset",
    "GaussianNoise",
    "ImageFolder",
    "Info",
    "Normalize",
    "PCAColour",
    "Pad",
    "Pairs",
    "RandomCrop",
    "RandomFlip",
    "Resize",
    "Streams",
    "Text",
    "Vocabulary",
    "arrays",
    "cache_dir",
    "cifar10",
    "coverage",
    "csv",
    "dates",
    "digits",
    "emoji",
    "fashion",
    "fashion_subset",
    "image",
    "info",
    "load",
    "mnist",
    "names",
    "number_words",
    "numbered",
    "parallel",
    "prefetch",
    "read_cifar",
    "read_idx",
    "read_text",
    "reviews",
    "ring",
    "sequences",
    "series",
    "sonnets",
    "ten_crops",
    "text_names",
    "transforms",
    "words",
]
