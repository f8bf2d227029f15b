"""check_lossless: it must convict every known mistake, and acquit what is right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privlearn.decoding import theory
from privlearn.decoding.certificate import check_lossless, default_worlds
from privlearn.decoding.exact_coins import ExactCoins, enumerate_runs, law_of_uniforms


def norm(weights):
    return weights / weights.sum()


def pick(coins, weights):
    return int(coins.choice(len(weights), p=norm(weights)))


# ------------------------------------------------------------- right ones, as users write them


def token(coins, tokens, q, p, fault=None):
    for i, x in enumerate(tokens):
        if coins.random() > p[i, x] / q[i, x]:
            rest = p[i] if fault == "resample p" else np.maximum(p[i] - q[i], 0)
            return [*tokens[:i], pick(coins, rest)]
    bonus = p[-2] if fault == "bonus off by one" else p[-1]
    return [*tokens, pick(coins, bonus)]


def block(coins, tokens, q, p, fault=None):
    joint, keep, tau, scale = 1.0, True, 0, 1.0
    for i, x in enumerate(tokens):
        joint = min(joint * p[i, x] / q[i, x], 1.0)
        if i + 1 < len(tokens):
            at = i if fault == "q of the wrong position" else i + 1
            above = np.maximum(joint * p[i + 1] - q[at], 0).sum()
            chance = above / (above + 1 - joint) if above + 1 - joint > 0 else 1.0
        else:
            chance = joint
        yes = coins.random() < chance
        keep = keep and (yes or fault != "stop at the first failure")
        if yes and keep:
            tau, scale = i + 1, joint
    if tau == len(tokens):
        return [*tokens, pick(coins, p[-1])]
    rest = np.maximum((1 if fault == "old residual" else scale) * p[tau] - q[tau], 0)
    return [*tokens[:tau], pick(coins, rest if rest.sum() > 0 else p[tau])]


def kseq(coins, tokens, q, p, fault=None):
    alive, text = list(range(len(tokens))), []
    for d in range(tokens.shape[1]):
        law, draft = p[alive[0], d], q[alive[0], d]
        k = len(tokens) if fault == "K instead of the survivors" else len(alive)
        rho = 1.0 if fault == "rho = 1" else theory.kseq(law, draft, len(alive)).rho
        rho = rho * (1 + 1e-12)  # the upper side of the root
        beta = np.minimum(draft, law / rho).sum()
        accepted = 1 - (1 - beta) ** k
        y = None
        for j in alive:
            x = tokens[j, d]
            if coins.random() < law[x] / (rho * draft[x]):
                y = int(x)
                break
        if y is None:
            share = accepted / beta if beta > 0 else 0.0
            rest = np.maximum(law - np.minimum(draft, law / rho) * share, 0)
            y = pick(coins, rest if rest.sum() > 0 else law)
        text.append(y)
        alive = [j for j in alive if tokens[j, d] == y]
        if not alive:
            return text
    return [*text, pick(coins, p[alive[0], -1])]


def longest(coins, tokens, q, p):
    """The lazy way to use K drafts: verify each alone, keep the longest."""
    return max((token(coins, *chain) for chain in zip(tokens, q, p, strict=True)), key=len)


@pytest.mark.parametrize("verifier", [token, block])
def test_right_chain_verifiers_are_acquitted(verifier):
    found = check_lossless(verifier, gamma=2)
    assert found.lossless, str(found)
    assert found.exact
    assert found.largest_error < 1e-14
    assert found.failure is None


def test_expected_tau_of_a_foreign_verifier_is_exact():
    world = theory.TabularPair.random(3, 2, 5)
    found = check_lossless(block, gamma=2, worlds=[world]).expected_tau["random"]
    assert found == pytest.approx(theory.block_expected_tau(world, 2), abs=1e-12)


def test_right_kseq_is_acquitted():
    found = check_lossless(kseq, n_drafts=2, gamma=2, vocabulary=2)
    assert found.lossless, str(found)


# --------------------------------------------------------------------------------- known mistakes


@pytest.mark.parametrize(
    ("verifier", "fault", "least"),
    [
        (token, "resample p", 0.1),
        (token, "bonus off by one", 0.01),
        (block, "old residual", 1e-3),
        (block, "stop at the first failure", 0.01),
        (block, "q of the wrong position", 1e-3),
    ],
)
def test_wrong_chain_verifiers_are_convicted(verifier, fault, least):
    found = check_lossless(lambda *a: verifier(*a, fault=fault), gamma=2)
    assert not found.lossless
    assert found.largest_error > least
    assert "NOT LOSSLESS" in str(found)
    assert "first wrong" in str(found)


@pytest.mark.parametrize("fault", ["K instead of the survivors", "rho = 1"])
def test_wrong_kseq_is_convicted(fault):
    # The residual must sit on more than one token, else its weight does not matter.
    world = theory.TabularPair.context_free([0.2, 0.3, 0.5], [0.8, 0.15, 0.05], depth=2)
    found = check_lossless(lambda *a: kseq(*a, fault=fault), n_drafts=2, gamma=2, worlds=[world])
    assert not found.lossless
    assert found.largest_error > 1e-3


def test_taking_the_longest_of_k_verified_drafts_is_convicted():
    found = check_lossless(longest, n_drafts=2, gamma=1)
    assert not found.lossless


def test_published_biases_of_the_lazy_rules():
    world = theory.TabularPair.context_free([0.1, 0.2, 0.7], [0.5, 0.3, 0.2], depth=1)
    found = check_lossless(
        lambda *a: kseq(*a, fault="rho = 1"), n_drafts=2, gamma=1, worlds=[world]
    )
    np.testing.assert_allclose(found.failure.emitted, [0.15, 0.3, 0.55], atol=1e-9)
    lazy = theory.TabularPair.context_free([0.6, 0.3, 0.1], [0.2, 0.3, 0.5], depth=1)
    found = check_lossless(lambda *a: token(*a, fault="resample p"), gamma=1, worlds=[lazy])
    np.testing.assert_allclose(found.failure.emitted, [0.44, 0.42, 0.14], atol=1e-12)


def test_report_names_the_first_wrong_text():
    """An off-by-one bonus is right until the draft is fully accepted."""
    world = theory.TabularPair.random(2, 2, 3)
    found = check_lossless(lambda *a: token(*a, fault="bonus off by one"), gamma=2, worlds=[world])
    assert len(found.failure.context) == 2
    np.testing.assert_allclose(found.failure.emitted.sum(), 1)


# --------------------------------------------------------------------- other kinds of randomness


def test_law_given_by_the_user():
    def law(tokens, q, p, right=True):
        (x,) = tokens
        accept = min(1.0, p[0, x] / q[0, x])
        out = {(int(x), y): accept * p[1, y] for y in range(p.shape[1])}
        rest = np.maximum(p[0] - q[0], 0) if right else p[0]
        for y in np.flatnonzero(rest):
            out[(int(y),)] = (1 - accept) * norm(rest)[y]
        return out

    assert check_lossless(law, randomness="law", gamma=1).lossless
    assert not check_lossless(lambda *a: law(*a, right=False), randomness="law", gamma=1).lossless


def jax_token(u, tokens, q, p, resample=False):
    """Vectorised over uniforms, compiled, inverse transform."""
    gamma = tokens.shape[0]
    at = jnp.arange(gamma)
    yes = u[:gamma] < p[at, tokens] / q[at, tokens]
    tau = jnp.cumprod(yes).sum()
    rest = jnp.maximum(p[tau] - jnp.where(tau < gamma, q[jnp.minimum(tau, gamma - 1)], 0), 0)
    rest = jnp.where(resample, p[tau], rest)
    y = jnp.argmax(jnp.cumsum(rest) > u[gamma] * rest.sum())
    padded = jnp.append(jnp.where(at < tau, tokens, -1), -1)
    return padded.at[tau].set(y)


@pytest.mark.parametrize("resample", [False, True])
def test_compiled_jax_verifier_of_uniforms(resample):
    many = jax.jit(
        jax.vmap(lambda *a: jax_token(*a, resample=resample), in_axes=(0, None, None, None))
    )
    worlds = default_worlds(2, 2)[:3]
    found = check_lossless(
        many, randomness="uniforms", vectorised=True, arrays="jax", gamma=2, worlds=worlds
    )
    assert found.lossless == (not resample), str(found)
    assert found.exact


def test_uniforms_one_by_one():
    def scalar(u, tokens, q, p):
        draws = iter(u)

        class Coins:
            random = staticmethod(lambda: next(draws))

            @staticmethod
            def choice(n, p):
                return np.searchsorted(np.cumsum(p), next(draws) * np.sum(p), side="right")

        return token(Coins, tokens, q, p)

    worlds = default_worlds(2, 1)[1:2]
    found = check_lossless(scalar, randomness="uniforms", gamma=1, n_uniforms=2, worlds=worlds)
    assert found.lossless, str(found)


@pytest.mark.parametrize("fault", [None, "resample p"])
def test_sampled_examination_states_its_resolution(fault):
    """False alarm below 1e-6 by construction; the mistake is ten resolutions wide."""
    world = theory.TabularPair.context_free([0.6, 0.3, 0.1], [0.2, 0.3, 0.5], depth=1)
    found = check_lossless(
        lambda seed, *a: token(np.random.default_rng(seed), *a, fault=fault),
        randomness="seed", gamma=1, worlds=[world], n_draws=6000,
    )  # fmt: skip
    assert not found.exact
    assert 0 < found.resolution < 0.06
    assert found.lossless == (fault is None)


def test_torch_verifier_with_coins():
    torch = pytest.importorskip("torch")

    def verifier(coins, tokens, q, p):
        for i, x in enumerate(tokens.tolist()):
            if not coins.random() <= p[i, x] / q[i, x]:
                rest = torch.clamp(p[i] - q[i], min=0)
                return [*tokens.tolist()[:i], coins.choice(len(rest), p=rest / rest.sum())]
        return [*tokens.tolist(), coins.choice(p.shape[1], p=p[-1])]

    assert check_lossless(verifier, arrays="torch").lossless


def test_vectorised_numpy_with_coins():
    def verifier(coins, tokens, q, p):
        at = np.arange(len(tokens))
        yes = np.log(coins.random(len(tokens))) < np.log(p[at, tokens]) - np.log(q[at, tokens])
        tau = int(np.cumprod(yes).sum())
        rest = p[-1] if tau == len(tokens) else np.maximum(p[tau] - q[tau], 0)
        y = np.searchsorted(np.cumsum(rest), coins.random() * rest.sum())
        return np.array([*tokens[:tau], y, -1, -1])

    with np.errstate(divide="ignore"):
        found = check_lossless(verifier, worlds=default_worlds(3, 2)[:4])
    assert found.lossless, str(found)


# --------------------------------------------------------------------------------------- machinery


def test_exact_uniform_through_arithmetic():
    def outcome(coins):
        u = coins.random()
        return (1 - u > 0.75, 2 * u + 1 < 2.0, -u < -0.125, u / 2 >= 0.25)

    runs = list(enumerate_runs(outcome))
    assert sum(chance for chance, _ in runs) == pytest.approx(1)
    for index, chance in enumerate([0.25, 0.5, 0.875, 0.5]):
        assert sum(w for w, out in runs if out[index]) == pytest.approx(chance)


def test_exact_uniform_has_no_value():
    coins = ExactCoins([])
    with pytest.raises(TypeError, match="has no value"):
        float(coins.random())
    with pytest.raises(TypeError, match="times 0"):
        coins.random() * 0
    with pytest.raises(ValueError, match="sum to one"):
        coins.choice(2, p=[0.5, 0.6])


def test_endless_rejection_is_reported():
    def loop(coins):
        while coins.random() < 0.5:
            pass
        return 0

    with pytest.raises(RuntimeError, match="loop until"):
        list(enumerate_runs(loop))
    with pytest.raises(RuntimeError, match="more than 20 outcomes"):
        list(enumerate_runs(lambda coins: coins.choice(2, p=[0.5, 0.5]) + coins.choice(30), 20))


def test_outcomes_that_are_no_boxes_are_refused():
    with pytest.raises(ValueError, match="not constant on boxes"):
        law_of_uniforms(lambda u: (u[:, :1] < u[:, 1:]).astype(int), 2)


@pytest.mark.parametrize(
    ("result", "words"),
    [([], "emit 1 to 3"), ([0, 0, 0, 0], "emit 1 to 3"), ([7], "below 3"), ([0.5], "integers")],
)
def test_results_that_are_no_tokens_are_refused(result, words):
    with pytest.raises(ValueError, match=words):
        check_lossless(lambda coins, tokens, q, p: result)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"verifier": 3}, TypeError, "verifier must be"),
        ({"verifier": "fastest"}, ValueError, "verifier must be one of"),
        ({"verifier": token, "randomness": "keys"}, ValueError, "randomness"),
        ({"verifier": token, "arrays": "list"}, ValueError, "arrays"),
        ({"verifier": token, "worlds": []}, ValueError, "worlds"),
        ({"verifier": token, "vocabulary": 1}, ValueError, "vocabulary"),
        ({"verifier": token, "proposal": "best"}, ValueError, "proposal"),
        ({"verifier": "token", "n_drafts": 2}, ValueError, "verifies one chain"),
    ],
)
def test_bad_arguments_name_themselves(arguments, error, words):
    with pytest.raises(error, match=words):
        check_lossless(**arguments)
