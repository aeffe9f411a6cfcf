"""GAN: two players, three losses, and why the generator does not play the game as it is written

A generator G draws, a discriminator D says how likely a picture is real. D is a network that ends in one logit s per
picture, D = σ(s). It learns to say 1 for real ones and 0 for drawn ones:

    loss_d = mean −ln σ(s_real) + mean −ln(1 − σ(s_fake))

The generator wants the opposite. Written as a game it would minimise the very term that D minimises, with the other
sign:

    minimax          mean ln(1 − σ(s_fake))                 ∂/∂s = −σ(s) / N
    non-saturating   mean −ln σ(s_fake)                     ∂/∂s = (σ(s) − 1) / N = −(1 − σ(s)) / N

Both want s_fake up. But at the start D sees through every drawing, σ(s_fake) is nearly 0, and with it the first
gradient: the generator that has most to learn is told least. The second is largest just there. So everybody trains with
the second, and it is what you are to return.

    ln σ(s) = −softplus(−s),   ln(1 − σ(s)) = −softplus(s),   softplus(s) = ln(1 + eˢ) = max(s, 0) + ln(1 + e^−|s|)

A discriminator that is sure has s = ±1000. Then 1 − σ(s) rounds to 0, its logarithm is −∞, and eˢ overflows: take
softplus in the form on the right.

Write gan_losses(real, fake), logits (N,) and (M,) of real and of drawn pictures. Return loss_d and loss_g, two numbers,
and d_real (N,) = ∂loss_d/∂real, d_fake (M,) = ∂loss_d/∂fake, g_fake (M,) = ∂loss_g/∂fake, each the gradient of one
player's loss.

Source: lecture: generative adversarial networks; Goodfellow et al., "Generative adversarial nets", 2014, section 3.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant, Numerical
from cnnlib.ops.activation import sigmoid_forward, softplus_forward


def gan_losses(real, fake):
    loss_d = softplus_forward(-real).mean() + softplus_forward(fake).mean()
    loss_g = softplus_forward(-fake).mean()
    d_real = -sigmoid_forward(-real) / real.size
    d_fake = sigmoid_forward(fake) / fake.size
    g_fake = -sigmoid_forward(-fake) / fake.size
    return loss_d, loss_g, d_real, d_fake, g_fake


def discriminator_loss(real, fake):
    return np.logaddexp(0, -real).mean() + np.logaddexp(0, fake).mean()


def drawn_as_real(real, fake):
    _, loss_g, d_real, _, g_fake = gan_losses(real, fake)
    return np.logaddexp(0, -real).mean() + loss_g, loss_g, d_real, g_fake, g_fake


def generator_loss(real, fake):
    return np.logaddexp(0, -fake).mean()


def cases(rng):
    return [
        Case((rng.normal(size=5), rng.normal(size=5))),
        Case((rng.normal(size=6), rng.normal(size=3)), ("more real than drawn pictures",)),
        Case((rng.normal(size=1), rng.normal(size=1)), ("N = 1",)),
        Case((4 + rng.normal(size=4), -4 + rng.normal(size=4)), ("a discriminator that is nearly sure",)),
        Case((1000 + rng.normal(size=3), -1000 + rng.normal(size=3)), ("logits of ±1000, all right",)),
        Case((-1000 + rng.normal(size=3), 1000 + rng.normal(size=3)), ("logits of ±1000, all wrong",)),
    ]


EXERCISE = Exercise(
    number=34,
    name="gan_losses",
    topic="lecture: generative adversarial networks",
    function=gan_losses,
    uses=(sigmoid_forward, softplus_forward),
    outputs=("loss_d", "loss_g", "d_real", "d_fake", "g_fake"),
    starter='''\
import numpy as np


def gan_losses(real, fake):
    """real (N,), fake (M,) logits -> loss_d, loss_g, d_real (N,), d_fake (M,), g_fake (M,)"""
    # a sigmoid and a softplus that do not overflow
    # the discriminator's loss and its gradient with respect to both
    # the generator's, non-saturating
    ...
''',
    cases=cases,
    numerical=(
        Numerical(discriminator_loss, wrt={"d_real": 0, "d_fake": 1}, upstream=None),
        Numerical(generator_loss, wrt={"g_fake": 1}, upstream=None),
    ),
    hints=(
        "loss_d is the binary cross-entropy with targets 1 for real and 0 for drawn ones, loss_g that with target 1 for "
        "drawn ones. "
        "What is its derivative with respect to a logit?",
        "It is (σ(s) − target) / number of pictures. For σ(s) without overflow: e = np.exp(-np.abs(s)), then 1 / (1 + e) or "
        "e / (1 + e).",
        "softplus = lambda s: np.maximum(s, 0) + np.log1p(np.exp(-np.abs(s))); loss_g = softplus(-fake).mean(); g_fake = "
        "(sigmoid(fake) - 1) / fake.size.",
    ),
    question="The generator draws exactly like the data. What does the best discriminator say, what are the losses, and what "
    "is the "
    "generator's gradient good for?",
    answer="½ everywhere: loss_d = 2 ln 2 = 1.386, loss_g = ln 2. By then g_fake is the same for all pictures, and a D that "
    "says ½ "
    "everywhere has no slope in x: nothing pulls at G any more. That is the equilibrium; if you see 1.386 from the first "
    "step on, "
    "D has learnt nothing.",
    link="cnnlib/models/gan.py",
    explanations=(
        Explanation(
            "players",
            "your d_fake and g_fake are interchanged: the discriminator pushes the drawn pictures' logits down, the "
            "generator pulls them up.",
        ),
        Explanation(
            "drawn_as_real", "your discriminator takes drawn pictures for real ones: its target for them is 0.", drawn_as_real
        ),
        Explanation(
            "saturating", "your generator plays minimax, ln(1 − σ(s)): its gradient dies where D is sure; take −ln σ(s_fake)."
        ),
        Explanation("saturating_loss", "your loss_g is the game's ln(1 − σ(s)): the non-saturating one is −ln σ(s_fake)."),
        Explanation("no_fake", "your loss_d has no term of the drawn pictures: add mean −ln(1 − σ(s_fake))."),
        Explanation("labels", "your discriminator's targets are interchanged: real ones are 1, drawn ones 0."),
        Explanation(
            "one_mean",
            "your loss_d is one mean over all pictures: real and drawn ones have a mean each, and the two are added.",
        ),
        Explanation("half", "your loss_d is the mean of its two terms: it is their sum."),
        Explanation("sum", "your losses are sums over the pictures, your gradients of means: take the mean in both."),
        Explanation("no_mean", "your gradients are those of the sum: divide by the number of pictures."),
        Explanation(
            "wrong_count", "your d_fake is divided by the number of real pictures: its own mean is over the drawn ones."
        ),
        Explanation(
            "adversary", "your g_fake pulls s down like the discriminator: the generator wants D to say 1, (σ(s) − 1) / M."
        ),
        Explanation(
            "slope_of_sigma", "your d_fake goes through the derivative of σ once more: with a logarithm of σ it has cancelled."
        ),
        Explanation("g_sign", "your g_fake has the wrong sign: a higher logit lowers −ln σ(s), the gradient is negative."),
        Explanation("overflow", "your loss overflows for sure discriminators: ln(1 + eˢ) = max(s, 0) + ln(1 + e^−|s|)."),
        Explanation("wasserstein", "your losses are the means of the logits, Wasserstein's: here they go through −ln σ."),
    ),
    mutants=(
        Mutant(
            "softplus_forward(-real).mean() + softplus_forward(fake).mean()",
            "np.concatenate((softplus_forward(-real), softplus_forward(fake))).mean()",
            says="one_mean",
        ),
        Mutant("g_fake = -sigmoid_forward(-fake)", "g_fake = -sigmoid_forward(fake)", says="saturating"),
        Mutant("loss_g = softplus_forward(-fake).mean()", "loss_g = -softplus_forward(fake).mean()", says="saturating_loss"),
        Mutant(
            "softplus_forward(-real).mean() + softplus_forward(fake).mean()", "softplus_forward(-real).mean()", says="no_fake"
        ),
        Mutant(
            "softplus_forward(-real).mean() + softplus_forward(fake).mean()",
            "softplus_forward(real).mean() + softplus_forward(-fake).mean()",
            says="labels",
        ),
        Mutant(
            "softplus_forward(-real).mean() + softplus_forward(fake).mean()",
            "(softplus_forward(-real).mean() + softplus_forward(fake).mean()) / 2",
            says="half",
        ),
        Mutant(
            "softplus_forward(-real).mean() + softplus_forward(fake).mean()",
            "softplus_forward(-real).sum() + softplus_forward(fake).sum()",
            says="sum",
        ),
        Mutant("-sigmoid_forward(-real) / real.size", "-sigmoid_forward(-real)", says="no_mean"),
        Mutant("d_fake = sigmoid_forward(fake) / fake.size", "d_fake = sigmoid_forward(fake) / real.size", says="wrong_count"),
        Mutant("g_fake = -sigmoid_forward(-fake)", "g_fake = sigmoid_forward(fake)", says="adversary"),
        Mutant(
            "d_fake = sigmoid_forward(fake) /",
            "d_fake = sigmoid_forward(fake) * sigmoid_forward(-fake) /",
            says="slope_of_sigma",
        ),
        Mutant("g_fake = -sigmoid_forward(-fake)", "g_fake = sigmoid_forward(-fake)", says="g_sign"),
        Mutant("loss_g = softplus_forward(-fake).mean()", "loss_g = np.log(1 + np.exp(-fake)).mean()", says="overflow"),
        Mutant("loss_g = softplus_forward(-fake).mean()", "loss_g = -fake.mean()", says="wasserstein"),
        Mutant("return loss_d, loss_g,", "return loss_g, loss_d,", says="swapped"),
        Mutant("d_real, d_fake, g_fake", "d_real, g_fake, d_fake", says="players"),
    ),
    alternatives=(
        """\
import numpy as np


def cross_entropy(logits, target):
    \"\"\"Mean binary cross-entropy and its gradient.\"\"\"
    losses = np.maximum(logits, 0) - target * logits + np.log1p(np.exp(-np.abs(logits)))
    return losses.mean(), (0.5 * (1 + np.tanh(logits / 2)) - target) / len(logits)


def gan_losses(real, fake):
    loss_real, d_real = cross_entropy(real, 1)
    loss_fake, d_fake = cross_entropy(fake, 0)
    loss_g, g_fake = cross_entropy(fake, 1)
    return loss_real + loss_fake, loss_g, d_real, d_fake, g_fake
""",
    ),
)
