"""Right answers that put functions together, against the library's layers, models and optimisers on the tape."""

import numpy as np
import pytest

import cnnlib as cl
from cnnlib import models, nn, ops, optim
from cnnlib.learn import checker
from cnnlib.learn.exercise import find, reference, solution_text
from cnnlib.models.beam_search import beam_search
from cnnlib.tensor import Parameter


def right(exercise, function=None):
    return reference(find(exercise))[function or find(exercise).function_names[0]]


def drawn(exercise, function=None):
    name = function or find(exercise).function_names[0]
    return [c.args for c in find(exercise).cases_of(np.random.default_rng(5)) if c.function == name]


def tensors(*arrays):
    return [cl.Tensor(a, requires_grad=True) for a in arrays]


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)


def test_clipping_is_the_optimisers():
    for *gradients, max_norm in drawn("gradient_clipping"):
        params = [Parameter(np.zeros_like(g)) for g in gradients]
        for p, g in zip(params, gradients, strict=True):
            p.grad = g
        norm = optim.clip_grad_norm_(params, max_norm)
        *clipped, mine = right("gradient_clipping")(*gradients, max_norm)
        assert mine == pytest.approx(norm, rel=1e-12)
        for p, g in zip(params, clipped, strict=True):
            np.testing.assert_allclose(g, p.grad, rtol=1e-4)  # the optimiser adds 1e-6 to the norm


def test_norms_are_those_of_the_layers_own_jacobian():
    for h, w, f in drawn("vanishing_gradient"):
        T, H = h.shape
        before = np.concatenate([np.zeros((1, H)), h[:-1]])
        x = np.repeat((np.arctanh(h) - before @ w.T)[:, None], H, axis=1)  # a copy of the sequence for each unit of h_T
        norms, cell, _ = right("vanishing_gradient")(h, w, f)
        for t in range(T - 1):
            start = np.repeat(h[t : t + 1], H, axis=0)
            _, ctx = ops.RNN.run(x[t + 1 :], start, np.eye(H), w)
            assert norms[t] == pytest.approx(np.linalg.norm(ops.RNN.backward(ctx, None, np.eye(H))[1], 2))
            assert cell[t] == pytest.approx(f[t + 1 :].prod(axis=0).max())


def test_two_readers_are_the_bidirectional_layer():
    for dy, x, *weights in drawn("bidirectional", "bidirectional_bptt"):
        layer = nn.RNN(x.shape[2], dy.shape[2], bidirectional=True, merge="sum")
        for suffix, (w_ih, w_hh, b) in (("l0", weights[:3]), ("l0_reverse", weights[3:])):
            zero = np.zeros_like(b)
            for name, value in (("weight_ih", w_ih), ("weight_hh", w_hh), ("bias_ih", b), ("bias_hh", zero)):
                setattr(layer, f"{name}_{suffix}", Parameter(value))
        (x_,) = tensors(x)
        y, _ = layer(x_)
        (y * cl.Tensor(dy)).sum().backward()
        close(right("bidirectional")(x, *weights), y.data)
        dx, dw_ih, dw_hh, db, *back = right("bidirectional", "bidirectional_bptt")(dy, x, *weights)
        close(dx, x_.grad)
        for suffix, gradients in (("l0", (dw_ih, dw_hh, db)), ("l0_reverse", back)):
            for name, g in zip(("weight_ih", "weight_hh", "bias_ih"), gradients, strict=True):
                close(g, getattr(layer, f"{name}_{suffix}").grad)


def autoencoder(x, w, b, c, error):
    K, D = w.shape
    output = "identity" if error == "squared" else "sigmoid"
    net = models.Autoencoder(D, (K,), code="sigmoid", output=output, error=error, tied=True)
    net.encoder[0].weight = Parameter(w)
    net.encoder[0].bias = Parameter(b)
    net.decoder[0].weight = net.encoder[0].weight
    net.decoder[0].bias = Parameter(c)
    return net


def gradients_of(net):
    return net.encoder[0].weight.grad, net.encoder[0].bias.grad, net.decoder[0].bias.grad


def test_the_tied_autoencoder_is_the_librarys():
    for x, *weights in drawn("tied_autoencoder"):
        net = autoencoder(x, *weights, "squared")
        loss, _ = net.objective(cl.Tensor(x))
        loss.backward()
        J, *gradients = right("tied_autoencoder")(x, *weights)
        close(J, loss.item())
        for mine, theirs in zip(gradients, gradients_of(net), strict=True):
            close(mine, theirs)


def test_the_denoiser_is_the_librarys_with_that_noise():
    for x, keep, *weights in drawn("denoising"):
        net = autoencoder(x, *weights, "cross_entropy")
        net.corrupted = lambda x, keep=keep: x * cl.Tensor(keep)
        loss, _ = net.objective(cl.Tensor(x))
        loss.backward()
        J, *gradients = right("denoising")(x, keep, *weights)
        close(J, loss.item())
        for mine, theirs in zip(gradients, gradients_of(net), strict=True):
            close(mine, theirs)


def test_greedy_pre_training_is_a_step_of_sgd_for_each_layer_in_turn():
    for x, keep1, w1, b1, c1, keep2, w2, b2, c2, lr in drawn("denoising", "pretrain"):
        h, expected = cl.Tensor(x), []
        for keep, *weights in ((keep1, w1, b1, c1), (keep2, w2, b2, c2)):
            net = autoencoder(h.data, *weights, "cross_entropy")
            net.corrupted = lambda x, keep=keep: x * cl.Tensor(keep)
            net.objective(h)[0].backward()
            optim.SGD(net.parameters(), lr=lr).step()
            expected += [net.encoder[0].weight.data, net.encoder[0].bias.data]
            h = net.encode(h).detach()
        for mine, theirs in zip(
            right("denoising", "pretrain")(x, keep1, w1, b1, c1, keep2, w2, b2, c2, lr), (*expected, h.data), strict=True
        ):
            close(mine, theirs)


def test_draw_and_divergence_are_those_of_the_distributions():
    for dz, dkl, mean, log_var, noise in drawn("vae"):
        m, v = tensors(mean, log_var)
        q = cl.distributions.Normal(m, log_var=v)
        z = q.mean + q.std * cl.Tensor(noise)
        prior = cl.distributions.Normal(cl.Tensor(np.zeros_like(mean)), std=1.0)
        divergence = ops.sum(cl.distributions.kl(q, prior), axis=1)
        ((z * cl.Tensor(dz)).sum() + (divergence * cl.Tensor(dkl)).sum()).backward()
        for mine, theirs in zip(
            right("vae")(dz, dkl, mean, log_var, noise), (z.data, divergence.data, m.grad, v.grad), strict=True
        ):
            close(mine, theirs)


def test_both_players_losses_are_binary_cross_entropies():
    for real, fake in drawn("gan_losses"):
        loss_d, loss_g, d_real, d_fake, g_fake = right("gan_losses")(real, fake)
        r, f, g = tensors(real, fake, fake)
        bce = ops.binary_cross_entropy_with_logits
        discriminator = bce(r, np.ones_like(real)) + bce(f, np.zeros_like(fake))
        generator = bce(g, np.ones_like(fake))
        discriminator.backward()
        generator.backward()
        close([loss_d, loss_g], [discriminator.item(), generator.item()])
        for mine, theirs in ((d_real, r.grad), (d_fake, f.grad), (g_fake, g.grad)):
            close(mine, theirs)


def test_contrastive_divergence_goes_down_the_librarys_objective():
    for v, w, b, c, u_h, u_v in drawn("contrastive_divergence"):
        v_k, dw, db, dc = right("contrastive_divergence")(v, w, b, c, u_h, u_v)
        machine = models.RBM(w.shape[1], len(w), visible="grey")
        machine.weight, machine.visible_bias, machine.hidden_bias = Parameter(w), Parameter(b), Parameter(c)
        machine._end_of_chains = lambda v, v_k=v_k: v_k
        machine.objective(cl.Tensor(v))[0].backward()
        for mine, p in ((dw, machine.weight), (db, machine.visible_bias), (dc, machine.hidden_bias)):
            close(mine, -p.grad)


def test_the_search_is_the_librarys():
    for log_p, beam, length in drawn("sequence_to_sequence", "beam_search"):
        V = len(log_p)
        theirs = np.array([0, 2, 3, *range(4, V + 1)])  # the library has <unk> at 1, which is never said
        table = np.full((V + 1, V + 1), -50.0)
        table[np.ix_(theirs, theirs)] = log_p
        tokens, scores = beam_search(lambda last, state, table=table: (table[last], state), (), 1, beam, length)
        mine, mine_scores = right("sequence_to_sequence", "beam_search")(log_p, beam, length)
        np.testing.assert_array_equal(theirs[mine], tokens[0])
        close(mine_scores, scores[0])


def test_no_two_sentences_tie_in_the_search():
    """Sentences of the same pairs of words have equal scores: who adds them up in another order would be refused."""
    for seed in range(20):
        for case in checker.draw(find("sequence_to_sequence"), str(seed)):
            if case.function == "beam_search":
                log_p, beam, length = case.args
                rounded = np.round(log_p, 9)  # what ties is decided by rounding
                mine = right("sequence_to_sequence", "beam_search")
                np.testing.assert_array_equal(mine(log_p, beam, length)[0], mine(rounded, beam, length)[0])


def test_a_dream_is_neither_the_data_nor_that_of_one_step():
    """Else all changes are zero, wrong ones, too; or a chain that starts anew at every step is not found out."""
    dream = right("contrastive_divergence")
    for seed in range(20):
        for case in checker.draw(find("contrastive_divergence"), str(seed)):
            v, w, b, c, u_h, u_v = case.args
            v_k = dream(*case.args)[0]
            assert (v_k != v).any()
            if len(u_h) > 1:
                assert all((v_k != dream(v, w, b, c, u_h[i][None], u_v[i][None])[0]).any() for i in (0, -1))


def test_the_loss_of_teacher_forcing_is_the_cross_entropy_without_padding():
    for log_p, y in drawn("sequence_to_sequence", "teacher_forcing"):
        inputs, loss, _ = right("sequence_to_sequence", "teacher_forcing")(log_p, y)
        (table,) = tensors(log_p)
        said = ops.cross_entropy(ops.embedding(inputs.reshape(-1), table), y.reshape(-1), ignore_index=0)
        close(loss, said.item())  # the table's rows are logarithms of probabilities already


def test_the_first_wrong_step_of_an_lstm_with_peepholes_is_named():
    learners = find("peepholes").alternatives[0]
    assert checker.check_source(find("peepholes"), learners.encode()).passed
    for old, new, step in (
        (" + p_o * da_o", "", "da_o is right; dcell"),
        ("da_f = dcell * c_before * f * (1 - f)", "da_f = dcell * c_before * f", "da_o, dcell, da_i are right; da_f"),
        ("dc = dcell * f + p_i * da_i + p_f * da_f", "dc = dcell * f + p_i * da_i", "da_g are right; dc_before"),
        ("da_o = d * np.tanh(c[t])", "da_o = d * c[t]", "  da_o"),
    ):
        assert old in learners
        verdict = checker.check_source(find("peepholes"), learners.replace(old, new).encode())
        assert not verdict.passed and f"{step} is the first step that is wrong at t = 3" in str(verdict), str(verdict)


def test_a_solution_stands_alone():
    for name in ("rnn", "lstm", "peepholes", "gru", "vae", "sequence_to_sequence"):
        text = solution_text(find(name))
        assert "cnnlib" not in text and "xp" not in text.replace("exp", "")
