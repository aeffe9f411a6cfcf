"""Counting a layer: fully connected, locally connected, convolutional

Before you build a layer, count it: it is where the idea of convolution shows. Take the lecture's picture, 200×200 with 3
colours, and 120,000 hidden units:

    fully connected      every unit sees every pixel                          120,000 · 200·200·3  =  14.4 billion weights
    locally connected    every unit sees 3×3 pixels of all colours            120,000 · 3·3·3      =  3.24 million
    convolutional        ... and the units of a map share one set of weights  maps · 3·3·3         =  27 per map

How many units are there? A window of F×F pixels that moves in steps of S over a picture of H×W, with P rows and columns of
zeros put around it, stands at

    OH = (H − F + 2P) / S + 1        OW = (W − F + 2P) / S + 1             rounded down: a window must fit

places, and K maps make K·OH·OW units. A unit that sees C·F·F inputs has so many weights, and one bias if there are biases; in
a convolution a map's units share the bias, too. With G groups (AlexNet's two graphics cards: G = 2) a unit sees only the C/G
channels of its own group; a fully connected unit sees them all.

    AlexNet, first layer: 227×227×3, K = 96, F = 11, S = 4, P = 0     55×55 places, 96·(11·11·3 + 1) = 34,944 parameters

Write ``conv_counts(channels, height, width, maps, field, stride, padding, groups, bias)``, all whole numbers, bias True or
False. Return five whole numbers: OH, OW, and how many parameters the K·OH·OW units have if the layer were fully connected,
if it were locally connected, and as a convolution.

Among the cases are AlexNet's layers. Its fully connected ones are convolutions, too, with a window as large as the picture:
6×6×256 → 4096.

Source: lecture: convolutional networks, from fully connected to convolutional; Krizhevsky, Sutskever & Hinton, "ImageNet
classification with deep convolutional neural networks", 2012.
"""

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant
from cnnlib.ops.conv import output_size


def conv_counts(channels, height, width, maps, field, stride, padding, groups, bias):
    pads = (padding, padding, padding, padding)
    oh, ow = output_size((height, width), (field, field), (stride, stride), pads, (1, 1))
    units = maps * oh * ow
    of_all = channels * height * width + bias  # True counts 1
    of_field = channels // groups * field * field + bias
    return oh, ow, units * of_all, units * of_field, maps * of_field


STARTER = """def conv_counts(channels, height, width, maps, field, stride, padding, groups, bias):
    oh = ...  # // divides whole numbers and rounds down
    ow = ...
    units = ...
    fully_connected = ...
    locally_connected = ...
    convolutional = ...
    return oh, ow, fully_connected, locally_connected, convolutional
"""

# channels, height, width, maps, field, stride, padding, groups
ALEXNET = {
    "AlexNet's layer 1": (3, 227, 227, 96, 11, 4, 0, 1),
    "AlexNet's layer 2": (96, 27, 27, 256, 5, 1, 2, 2),
    "AlexNet's layer 3": (256, 13, 13, 384, 3, 1, 1, 1),
    "AlexNet's layer 4": (384, 13, 13, 384, 3, 1, 1, 2),
    "AlexNet's layer 5": (384, 13, 13, 256, 3, 1, 1, 2),
    "AlexNet's layer 6": (256, 6, 6, 4096, 6, 1, 0, 1),
    "AlexNet's layer 7": (4096, 1, 1, 4096, 1, 1, 0, 1),
    "AlexNet's layer 8": (4096, 1, 1, 1000, 1, 1, 0, 1),
}


def cases(rng):
    pick = [list(ALEXNET)[i] for i in (0, 1, 3, 5)]
    return [
        *(Case((*ALEXNET[name], True), (name,)) for name in pick),
        Case((3, 200, 200, 3, 3, 1, 1, 1, False), ("the lecture's picture", "no bias")),
        Case((2, 9, 14, 5, 4, 3, 1, 1, True), ("height ≠ width", "a window that does not fit")),
        Case((4, int(rng.integers(8, 30)), int(rng.integers(31, 50)), 6, 3, 2, 0, 2, False), ("height ≠ width", "no bias")),
    ]


def _counts(
    channels,
    height,
    width,
    maps,
    field,
    stride,
    padding,
    groups,
    bias,
    *,
    pad=2,
    one=1,
    up=False,
    whole=True,
    exchanged=False,
    all_groups=False,
    full_groups=False,
    square=True,
    bias_per_unit=False,
):
    """The counts with a choice of mistakes in it."""
    spans = [n - field + pad * padding for n in (height, width)]
    oh, ow = (-(-n // stride) + one if up else (n // stride if whole else n / stride) + one for n in spans)
    if exchanged:
        oh, ow = ow, oh
    units = maps * oh * ow
    seen = (channels if all_groups else channels // groups) * (field * field if square else field)
    every = (channels // groups if full_groups else channels) * height * width
    shared = maps * seen + (bias * units if bias_per_unit else bias * maps)
    return oh, ow, units * (every + bias), units * (seen + bias), shared


def _without_biases(*a):
    return conv_counts(*a[:-1], False)


def _with_biases(*a):
    return conv_counts(*a[:-1], True)


EXERCISE = Exercise(
    number=12,
    name="conv_counts",
    topic="lecture: convolutional networks",
    function=conv_counts,
    uses=(output_size,),
    outputs=("oh", "ow", "fully_connected", "locally_connected", "convolutional"),
    starter=STARTER,
    cases=cases,
    hints=(
        "Count places first, then units, then what one unit needs. The three answers differ only in what one unit sees, and "
        "in who shares.",
        "oh = (height - field + 2 * padding) // stride + 1. A fully connected unit sees channels · height · width inputs, "
        "the two others channels // groups · field². Each has one bias more, where there are biases.",
        "seen = channels // groups * field * field + bias; locally_connected = maps * oh * ow * seen; convolutional = maps * "
        "seen; fully_connected = maps * oh * ow * (channels * height * width + bias).",
    ),
    question="AlexNet has 61 million parameters: 2.3 million in its five convolutions, the rest in three fully connected "
    "layers. Where are the multiplications?",
    answer="In the convolutions: a shared weight is used once per place, 55·55 times in the first layer, a weight of a fully "
    "connected layer once. About 92 % of the multiply–adds are convolutions, with 4 % of the parameters. So convolutions "
    "decide the speed, fully connected layers the size of the file: later networks (GoogLeNet, ResNet) dropped them but for "
    "the last.",
    link="cnnlib/models/counting.py",
    explanations=(
        Explanation(
            "one-sided padding",
            "you count the padding once: zeros stand on both sides, so the picture grows by 2P.",
            lambda *a: _counts(*a, pad=1),
        ),
        Explanation(
            "no padding",
            "your size leaves out the padding: (H − F + 2P) / S + 1.",
            lambda *a: _counts(*a, pad=0),
        ),
        Explanation(
            "plus one",
            "your size lacks the + 1: a window that fits exactly, H = F, stands at one place, not at none.",
            lambda *a: _counts(*a, one=0),
        ),
        Explanation(
            "not rounded",
            "your size is no whole number where the steps do not come out even: a window that does not fit does not count, so "
            "round down (//).",
            lambda *a: _counts(*a, whole=False),
        ),
        Explanation(
            "rounded up",
            "you round up: a window that hangs over the edge does not count, so round down (//).",
            lambda *a: _counts(*a, up=True),
        ),
        Explanation(
            "exchanged",
            "you exchanged height and width: OH comes from the height.",
            lambda *a: _counts(*a, exchanged=True),
        ),
        Explanation(
            "groups",
            "your locally connected and convolutional units see all channels: with G groups a unit sees those of its own "
            "group, C/G.",
            lambda *a: _counts(*a, all_groups=True),
        ),
        Explanation(
            "groups everywhere",
            "your fully connected units see only a group's channels: fully connected means all of them.",
            lambda *a: _counts(*a, full_groups=True),
        ),
        Explanation(
            "biases missing",
            "you left out the biases: one for each unit, in a convolution one for each map.",
            _without_biases,
        ),
        Explanation(
            "biases always",
            "you count biases where there are none: look at the argument bias.",
            _with_biases,
        ),
        Explanation(
            "one bias per unit",
            "your convolution has a bias for every unit: the units of a map share their bias as they share their weights.",
            lambda *a: _counts(*a, bias_per_unit=True),
        ),
        Explanation(
            "one dimension",
            "your window has F weights per channel: it is F×F, two-dimensional.",
            lambda *a: _counts(*a, square=False),
        ),
        Explanation(
            "maps",
            "you counted one map: there are K of them, each with units and weights of its own.",
        ),
    ),
    mutants=(
        Mutant("(padding, padding, padding, padding)", "(padding, 0, padding, 0)", says="one-sided padding"),
        Mutant("(padding, padding, padding, padding)", "(0, 0, 0, 0)", says="no padding"),
        Mutant("(size + pad - d * (k - 1) - 1) // s + 1", "(size + pad - d * (k - 1) - 1) // s", says="plus one"),
        Mutant("(size + pad - d * (k - 1) - 1) // s + 1", "-(-(size + pad - d * (k - 1) - 1) // s) + 1", says="rounded up"),
        Mutant("(size + pad - d * (k - 1) - 1) // s + 1", "(size + pad - d * (k - 1) - 1) / s + 1", says="not rounded"),
        Mutant("output_size((height, width)", "output_size((width, height)", says="exchanged"),
        Mutant("channels // groups * field * field", "channels * field * field", says="groups"),
        Mutant("channels * height * width", "channels // groups * height * width", says="groups everywhere"),
        Mutant("    units = maps * oh * ow", "    units, bias = maps * oh * ow, 0", says="biases missing"),
        Mutant("    units = maps * oh * ow", "    units, bias = maps * oh * ow, 1", says="biases always"),
        Mutant("maps * of_field", "maps * (of_field - bias) + units * bias", says="one bias per unit"),
        Mutant("field * field + bias", "field + bias", says="one dimension"),
        Mutant("units = maps * oh * ow", "units, maps = oh * ow, 1", says="maps"),
        Mutant("units * of_all, units * of_field", "units * of_field, units * of_all", says="swapped"),
    ),
    equivalent={
        "output_size: d * (k - 1) -> k - 1": "the dilation is 1 here",
        "output_size: left -> right": "the padding is the same on all sides here",
        "output_size: top -> bottom": "the padding is the same on all sides here",
        "output_size: bottom -> left": "the padding is the same on all sides here",
    },
    alternatives=(
        '''def places(size, field, stride, padding):
    """Count them by walking."""
    count, at = 0, -padding
    while at + field <= size + padding:
        count, at = count + 1, at + stride
    return count


def conv_counts(channels, height, width, maps, field, stride, padding, groups, bias):
    oh, ow = (places(n, field, stride, padding) for n in (height, width))
    b = 1 if bias else 0
    per_map = (channels // groups) * field**2 + b
    return [oh, ow, maps * oh * ow * (channels * height * width + b), maps * oh * ow * per_map, maps * per_map]
''',
    ),
)
