"""The systems of the field, one file each, in the order of their invention.

>>> from cnnlib import models
>>> [name for name in models.list() if name.startswith("resnet")]
['resnet101', 'resnet152', 'resnet18', 'resnet20', 'resnet34', 'resnet50']
>>> net = models.create("lenet5", num_classes=3)
"""

from __future__ import annotations

import builtins
import inspect
from typing import Any

from cnnlib.errors import unknown_name
from cnnlib.models.adaline import Adaline
from cnnlib.models.alexnet import AlexNet, AlexNetSingle
from cnnlib.models.autoencoder import Autoencoder, ConvAutoencoder
from cnnlib.models.bayes_by_backprop import BayesByBackprop
from cnnlib.models.captioner import Captioner
from cnnlib.models.char_rnn import CharRNN
from cnnlib.models.counting import parameter_table
from cnnlib.models.deep_autoencoder import DeepAutoencoder
from cnnlib.models.deep_belief_net import DeepBeliefNet
from cnnlib.models.deep_probabilistic import BernoulliClassifier, CategoricalClassifier, GaussianRegression
from cnnlib.models.denoising_autoencoder import DenoisingAutoencoder
from cnnlib.models.forecaster import Forecaster
from cnnlib.models.frame_labeller import FrameLabeller
from cnnlib.models.gan import DCGAN, GAN
from cnnlib.models.googlenet import GoogLeNet, GoogLeNetBN
from cnnlib.models.lenet import LeNet5
from cnnlib.models.lenet_original import LeNet5Original
from cnnlib.models.linear_svm import LinearSVM
from cnnlib.models.mc_dropout import MCDropout
from cnnlib.models.mcculloch_pitts import McCullochPitts
from cnnlib.models.mixture_of_experts import MixtureOfExperts
from cnnlib.models.mlp import MLP
from cnnlib.models.overfeat import OverFeat
from cnnlib.models.perceptron import Perceptron
from cnnlib.models.rbm import RBM
from cnnlib.models.resnet import ResNet18, ResNet20, ResNet34, ResNet50, ResNet101, ResNet152
from cnnlib.models.sentiment import SentimentLSTM, TextCNN
from cnnlib.models.seq2seq import Seq2Seq
from cnnlib.models.sgld import SGLDNetwork
from cnnlib.models.stacked_autoencoder import StackedAutoencoder
from cnnlib.models.torchvision import load_torchvision
from cnnlib.models.vae import VAE, ConvVAE
from cnnlib.models.vgg import VGG11, VGG11BN, VGG13, VGG13BN, VGG16, VGG16BN, VGG19, VGG19BN, VGGSmall
from cnnlib.models.zfnet import ZFNet
from cnnlib.nn.module import Module

__all__ = [
    "DCGAN", "GAN", "MLP", "RBM", "VAE", "VGG11", "VGG11BN", "VGG13", "VGG13BN", "VGG16", "VGG16BN", "VGG19", "VGG19BN",
    "Adaline", "AlexNet", "AlexNetSingle", "Autoencoder", "BayesByBackprop", "BernoulliClassifier", "Captioner",
    "CategoricalClassifier", "CharRNN", "ConvAutoencoder", "ConvVAE", "DeepAutoencoder", "DeepBeliefNet",
    "DenoisingAutoencoder", "Forecaster", "FrameLabeller", "GaussianRegression", "GoogLeNet", "GoogLeNetBN", "LeNet5",
    "LeNet5Original", "LinearSVM", "MCDropout", "McCullochPitts", "MixtureOfExperts", "OverFeat", "Perceptron", "ResNet18",
    "ResNet20", "ResNet34", "ResNet50", "ResNet101", "ResNet152", "SGLDNetwork", "SentimentLSTM", "Seq2Seq",
    "StackedAutoencoder", "TextCNN", "VGGSmall", "ZFNet", "create", "get", "list", "load_torchvision", "parameter_table",
]  # fmt: skip

_MODELS: dict[str, type[Module]] = {
    "mcculloch_pitts": McCullochPitts,
    "perceptron": Perceptron,
    "adaline": Adaline,
    "linear_svm": LinearSVM,
    "mlp": MLP,
    "lenet5": LeNet5,
    "lenet5_original": LeNet5Original,
    "alexnet": AlexNet,
    "alexnet_single": AlexNetSingle,
    "zfnet": ZFNet,
    "overfeat": OverFeat,
    "vgg11": VGG11,
    "vgg13": VGG13,
    "vgg16": VGG16,
    "vgg19": VGG19,
    "vgg11_bn": VGG11BN,
    "vgg13_bn": VGG13BN,
    "vgg16_bn": VGG16BN,
    "vgg19_bn": VGG19BN,
    "vgg_small": VGGSmall,
    "googlenet": GoogLeNet,
    "googlenet_bn": GoogLeNetBN,
    "resnet18": ResNet18,
    "resnet34": ResNet34,
    "resnet50": ResNet50,
    "resnet101": ResNet101,
    "resnet152": ResNet152,
    "resnet20": ResNet20,
    "char_rnn": CharRNN,
    "autoencoder": Autoencoder,
    "conv_autoencoder": ConvAutoencoder,
    "denoising_autoencoder": DenoisingAutoencoder,
    "stacked_autoencoder": StackedAutoencoder,
    "rbm": RBM,
    "deep_belief_net": DeepBeliefNet,
    "deep_autoencoder": DeepAutoencoder,
    "vae": VAE,
    "conv_vae": ConvVAE,
    "gan": GAN,
    "dcgan": DCGAN,
    "gaussian_regression": GaussianRegression,
    "mixture_of_experts": MixtureOfExperts,
    "bernoulli_classifier": BernoulliClassifier,
    "categorical_classifier": CategoricalClassifier,
    "bayes_by_backprop": BayesByBackprop,
    "mc_dropout": MCDropout,
    "sgld": SGLDNetwork,
}


def list() -> builtins.list[str]:
    """The names that :func:`create` knows."""
    return sorted(_MODELS)


def get(name: str) -> type[Module]:
    """The class behind a name. Raises UnknownNameError that names the nearest match."""
    if name not in _MODELS:
        raise unknown_name("model", name, _MODELS)
    return _MODELS[name]


def create(name: str, **options: Any) -> Module:
    """A new model by name; the options are those of its class, such as ``create("lenet5", num_classes=3)``.

    Raises UnknownNameError for a name or an option that does not exist.
    """
    model = get(name)
    known = inspect.signature(model).parameters
    for option in options:
        if option not in known:
            raise unknown_name(f"option of {name}", option, known)
    return model(**options)
