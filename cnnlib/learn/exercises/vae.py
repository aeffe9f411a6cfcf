"""Variational autoencoder: go back through a dice roll, and the price of a code

A decoder that turns noise z ~ N(0, 1) into pictures is half of a generative model. To learn it one must know which z a
picture comes from, and the encoder guesses: not a number but a distribution q(z|x) = N(μ, σ²) per code unit. Two things
are new.

**Reparameterisation.** z is drawn from q, and one cannot differentiate a draw. But one can move the dice out of the
network: draw ε ~ N(0, 1) first, then *compute*

    z = μ + σ ε,   σ = exp(½ v)                 v = ln σ², what the network gives: any number will do
    ∂z/∂μ = 1,     ∂z/∂v = ½ σ ε                ε is a constant, like a pixel

**The price.** What q says beyond the prior N(0, 1) costs nats, their Kullback–Leibler divergence, for each sample

    kl[n] = ½ Σ_k (μ² + σ² − v − 1)             0 where μ = 0 and σ = 1, else above; σ² = exp(v)
    ∂kl/∂μ = μ,    ∂kl/∂v = ½ (σ² − 1)

The loss is the reconstruction's, which pulls on z, plus kl; so two adjoints arrive, and both go to μ and to v.

Write vae_code(dz, dkl, mean, log_var, noise). mean, log_var and noise (μ, v, ε) are (N, K), the upstream gradients are
dz (N, K) and dkl (N,), one number per sample. Return z (N, K), kl (N,), dmean and dlog_var (N, K). The noise comes in
as an argument: so the answer is determined, and so it is in the library, where the backward pass must see the very ε of
the forward pass.

Source: lecture: variational autoencoder; Kingma & Welling, "Auto-encoding variational Bayes", 2014 (appendix B for kl);
Rezende, Mohamed & Wierstra, "Stochastic backpropagation", 2014.
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant, Numerical, Train


def vae_code(dz, dkl, mean, log_var, noise):
    std = np.exp(0.5 * log_var)
    z = mean + std * noise
    kl = 0.5 * (mean**2 + std**2 - log_var - 1).sum(axis=1)
    price = dkl[:, None]
    dmean = dz + price * mean
    dlog_var = dz * noise * 0.5 * std + price * 0.5 * (std**2 - 1)
    return z, kl, dmean, dlog_var


def draw_and_divergence(dz, dkl, mean, log_var, noise):
    """kl as the sum of E_q[ln q] = −½ (v + ln 2π + 1) and −E_q[ln p] = ½ (μ² + σ² + ln 2π)."""
    log_2pi = np.log(2 * np.pi)
    entropy = 0.5 * (log_var + log_2pi + 1)
    cross = 0.5 * (mean**2 + np.exp(log_var) + log_2pi)
    return mean + np.exp(log_var) ** 0.5 * noise, (cross - entropy).sum(axis=1)


def cases(rng):
    def case(N, K, *features, spread=1.0):
        arrays = (rng.normal(size=(N, K)), rng.normal(size=N))
        return Case((*arrays, *(s * rng.normal(size=(N, K)) for s in (1.0, spread, 1.0))), features)

    return [
        case(4, 3),
        case(1, 2, "N = 1"),
        case(5, 1, "one code unit"),
        case(3, 3, "N = K"),
        case(3, 4, "σ far from 1", spread=3.0),
    ]


EXERCISE = Exercise(
    number=33,
    name="vae",
    topic="lecture: variational autoencoder",
    function=vae_code,
    outputs=("z", "kl", "dmean", "dlog_var"),
    starter='''\
import numpy as np


def vae_code(dz, dkl, mean, log_var, noise):
    """dz (N, K) and dkl (N,) upstream; mean, log_var, noise (N, K) -> z (N, K), kl (N,), dmean, dlog_var (N, K)"""
    # the draw z, by way of the standard deviation
    # kl, a sum over the code units of each sample
    # what dz and dkl send to the mean, and to log_var
    ...
''',
    cases=cases,
    numerical=Numerical(draw_and_divergence, wrt={"dmean": 2, "dlog_var": 3}, upstream=(0, 1)),
    hints=(
        "Which of the two outputs depends on the noise, and on which of the inputs do both depend?",
        "d exp(½ v)/dv = ½ exp(½ v). dkl is one number per sample: dkl[:, None] reaches all its code units.",
        "dmean = dz + dkl[:, None] * mean; dlog_var = dz * noise * 0.5 * std + dkl[:, None] * 0.5 * (std**2 - 1).",
    ),
    question="Early in training the kl of all units falls to 0 and stays there, while pictures get blurred means. What has "
    "happened, "
    "and what would you change?",
    answer="The posterior has collapsed: saying nothing, μ = 0 and σ = 1, is free, and the decoder had not yet learnt to use "
    "z, so "
    "nothing held against it. Start with a small weight β of kl and raise it over some epochs, or take a weaker decoder.",
    link="cnnlib/distributions.py",
    explanations=(
        Explanation("variance", "your z takes the variance for the standard deviation: σ = exp(½ v), as v = ln σ²."),
        Explanation("log_is_std", "your z multiplies the noise by log_var itself: σ = exp(½ v)."),
        Explanation("no_noise_z", "your z is the mean: without σ ε nothing is drawn, and dz cannot reach log_var."),
        Explanation("log_std", "your kl takes v for ln σ: v is ln σ², so σ² = exp(v)."),
        Explanation("no_half", "your kl lacks the factor ½, in the value."),
        Explanation("kl_sign", "your kl has the wrong sign: it is never negative, ½ Σ (μ² + σ² − v − 1)."),
        Explanation("v_sign", "your kl adds v: the term is − ln σ², which makes small σ expensive."),
        Explanation("no_one", "your kl lacks the − 1: it is 0 where μ = 0 and σ = 1."),
        Explanation("kl_mean", "your kl is the mean over the code units: the divergence of independent units is their sum."),
        Explanation("no_kl_mean", "your dmean leaves out the kl: add dkl · μ to dz."),
        Explanation("no_kl_var", "your dlog_var leaves out the kl: add dkl · ½ (σ² − 1)."),
        Explanation("no_dz_mean", "your dmean leaves out what came through z: ∂z/∂μ = 1, add dz."),
        Explanation("no_dz_var", "your dlog_var leaves out what came through z: ∂z/∂v = ½ σ ε."),
        Explanation(
            "no_chain_half", "your dlog_var is that of ln σ: with v = ln σ² the way through z has a factor ½, ∂z/∂v = ½ σ ε."
        ),
        Explanation("dstd", "your dlog_var is the adjoint of σ: to get to v it must go through exp(½ v), times ½ σ."),
        Explanation("no_noise", "your dlog_var forgets the noise: ∂z/∂σ = ε."),
        Explanation("no_price", "your gradient of the kl does not use dkl: multiply it by dkl[:, None], for μ and for v."),
        Explanation("no_std", "your dlog_var forgets σ in what came through z: ∂z/∂v = ½ σ ε."),
        Explanation("var_alone", "your dlog_var leaves out the − 1 from the kl: ∂kl/∂v = ½ (σ² − 1), 0 where σ = 1."),
        Explanation("kl_var_half", "your dlog_var takes σ² − 1 from the kl: the ½ of the kl stays, ½ (σ² − 1)."),
        Explanation("std_minus", "your dlog_var has σ − 1 from the kl: it is the variance, ½ (σ² − 1)."),
        Explanation("noise_not_scaled", "your z adds ε itself: it is scaled by the standard deviation, μ + σ ε."),
        Explanation("dvariance", "your dlog_var is the adjoint of σ²: to get to v = ln σ² it must go through exp, times σ²."),
        Explanation("kl_plus", "your dlog_var adds 1 to σ² for the kl: its slope is ½ (σ² − 1), 0 where σ = 1."),
    ),
    mutants=(
        Mutant("z = mean + std * noise", "z = mean + std**2 * noise", says="variance"),
        Mutant("z = mean + std * noise", "z = mean + log_var * noise", says="log_is_std"),
        Mutant("z = mean + std * noise", "z = mean + 0 * noise", says="no_noise_z"),
        Mutant("(mean**2 + std**2 - log_var - 1)", "(mean**2 + np.exp(2 * log_var) - 2 * log_var - 1)", says="log_std"),
        Mutant("kl = 0.5 * (mean**2", "kl = (mean**2", says="no_half"),
        Mutant("kl = 0.5 * (mean**2", "kl = -0.5 * (mean**2", says="kl_sign"),
        Mutant("std**2 - log_var - 1", "std**2 + log_var - 1", says="v_sign"),
        Mutant("std**2 - log_var - 1", "std**2 - log_var", says="no_one"),
        Mutant(".sum(axis=1)", ".mean(axis=1)", says="kl_mean"),
        Mutant(".sum(axis=1)", ".sum(axis=0)", says="shape"),
        Mutant("dmean = dz + price * mean", "dmean = dz", says="no_kl_mean"),
        Mutant("dz * noise * 0.5 * std + price * 0.5 * (std**2 - 1)", "dz * noise * 0.5 * std", says="no_kl_var"),
        Mutant("dmean = dz + price * mean", "dmean = price * mean", says="no_dz_mean"),
        Mutant("dz * noise * 0.5 * std + price", "price", says="no_dz_var"),
        Mutant("dz * noise * 0.5 * std", "dz * noise * std", says="no_chain_half"),
        Mutant("dz * noise * 0.5 * std", "dz * noise", says="dstd"),
        Mutant("dz * noise * 0.5 * std", "dz * 0.5 * std", says="no_noise"),
        Mutant("dz * noise * 0.5 * std", "dz * noise * 0.5", says="no_std"),
        Mutant("price * 0.5 * (std**2 - 1)", "price * 0.5 * std**2", says="var_alone"),
        Mutant("price = dkl[:, None]", "price = 1.0", says="no_price"),
        Mutant("price * 0.5 * (std**2 - 1)", "price * (std**2 - 1)", says="kl_var_half"),
        Mutant("price * 0.5 * (std**2 - 1)", "price * 0.5 * (std - 1)", says="std_minus"),
        Mutant("z = mean + std * noise", "z = mean + noise", says="noise_not_scaled"),
        Mutant(
            "dz * noise * 0.5 * std + price * 0.5 * (std**2 - 1)",
            "dz * noise * 0.5 / std + price * 0.5 * (1 - 1 / std**2)",
            says="dvariance",
        ),
        Mutant("(std**2 - 1)", "(std**2 + 1)", says="kl_plus"),
    ),
    alternatives=(
        """\
import numpy as np


def vae_code(dz, dkl, mean, log_var, noise):
    # one step of the chain rule after the other: v -> variance -> std -> z
    variance = np.exp(log_var)
    std = np.sqrt(variance)
    z = mean + std * noise
    kl = 0.5 * np.sum(mean * mean + variance - np.log(variance) - 1.0, axis=-1)
    dmean, dstd = dz.copy(), dz * noise
    dvariance = dstd / (2 * std)
    dmean += np.outer(dkl, np.ones(mean.shape[1])) * mean
    dvariance += dkl.reshape(-1, 1) * 0.5 * (1 - 1 / variance)
    return z, kl, dmean, dvariance * variance
""",
        """\
from math import exp


def vae_code(dz, dkl, mean, log_var, noise):
    z, kl, dmean, dlog_var = [], [], [], []
    for n, price in enumerate(dkl.tolist()):
        rows, total = ([], [], []), 0.0
        for m, v, e, d in zip(mean[n].tolist(), log_var[n].tolist(), noise[n].tolist(), dz[n].tolist()):
            s = exp(v / 2)
            total += (m * m + s * s - v - 1) / 2
            rows[0].append(m + s * e)
            rows[1].append(d + price * m)
            rows[2].append((d * e * s + price * (s * s - 1)) / 2)
        for found, row in zip((z, dmean, dlog_var), rows):
            found.append(row)
        kl.append(total)
    return z, kl, dmean, dlog_var
""",
    ),
    train=Train(lambda f: {"vae_code": f}, "vae"),
)
