"""Layers: parameters, initial values and repr. The maths is in cnnlib.ops, under the same file name."""

from cnnlib.nn import init
from cnnlib.nn.activation import ELU, LeakyReLU, LogSoftmax, NoisyReLU, ReLU, Sigmoid, Softmax, Softplus, Tanh
from cnnlib.nn.attention import AdditiveAttention
from cnnlib.nn.container import Flatten, Identity, ModuleList, Sequential
from cnnlib.nn.conv import Conv1d, Conv2d, ConvTranspose2d
from cnnlib.nn.dropout import Dropout, GaussianNoise, MaskingNoise, SaltAndPepperNoise
from cnnlib.nn.embedding import Embedding
from cnnlib.nn.linear import DropConnect, Linear, LocallyConnected2d, Maxout
from cnnlib.nn.loss import BCEWithLogitsLoss, CrossEntropyLoss, HingeLoss, L1Loss, MSELoss, NLLLoss
from cnnlib.nn.module import Module
from cnnlib.nn.norm import BatchNorm1d, BatchNorm2d, LayerNorm, LocalContrastNorm, LocalResponseNorm
from cnnlib.nn.pool import AvgPool1d, AvgPool2d, GlobalAvgPool2d, GlobalMaxPool2d, LPPool1d, LPPool2d, MaxPool1d, MaxPool2d
from cnnlib.nn.recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from cnnlib.nn.summary import summary
