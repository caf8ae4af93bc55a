"""SMoG's groups and loss, written out from Eqs. 3 and 4 in float64, and gradients through the groups against finite
differences."""

import pytest
import torch
from torch.nn.functional import normalize

from methods.smog.groups import Groups
from methods.smog.loss import group_contrast
from methods.smog.spec import ALGORITHMS

K, D, B, TAU = 6, 4, 9, 0.1


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def groups_of(features, algorithm="momentum", seen=None):
    groups = Groups(*features.shape, algorithm=algorithm)
    groups.features, groups.seen = features.clone(), torch.zeros(len(features), dtype=features.dtype)
    if seen is not None:
        groups.seen += torch.tensor(seen, dtype=features.dtype)
    return groups


def unit(v):
    return v / v.norm()


def sim(u, vectors):
    """sim(u, v) of each v."""
    return (vectors @ u) / (u.norm() * vectors.norm(dim=1))


def assignments(z, g):
    """c of Eq. 4, one instance after the other."""
    return [sim(x, g).argmax().item() for x in z]


def equation_4(z, g, share):
    """g_k <- (1 - share) g_k + share mean of its members; share is 1 - beta, or depends on (k, members)."""
    c, updated = assignments(z.detach(), g), []
    for k in range(len(g)):
        members = [unit(z[t]) for t in range(len(z)) if c[t] == k]
        if members:
            part = share(k, len(members))
            updated.append(unit((1 - part) * g[k] + part * sum(members) / len(members)))
        else:
            updated.append(g[k])
    return torch.stack(updated)


def equation_3(p, g, c):
    terms = []
    for i in range(len(p)):
        e = torch.exp(sim(p[i], g) / TAU)
        terms.append(-torch.log(e[c[i]] / e.sum()))
    return sum(terms) / len(terms)


def setting(seed=0, k=K):
    g = normalize(draw(k, D, seed=seed), dim=1)
    return g, draw(B, D, seed=seed + 1), draw(B, D, seed=seed + 2), draw(B, D, seed=seed + 3)


# -- the equations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, K, 40])
def test_instances_go_to_the_group_of_the_largest_cosine(k):
    g, z, *_ = setting(k=k)
    assert groups_of(g).assign(z * 7).tolist() == assignments(z, g)


@pytest.mark.parametrize("beta", [1.0, 0.99, 0.5, 0.0])
@pytest.mark.parametrize("k", [2, K, 40])
def test_several_steps_of_the_momentum_update_are_equation_4(k, beta):
    g, *_ = setting(k=k)
    groups = groups_of(g)
    for step in range(4):
        z = draw(B, D, seed=10 + step)
        g = equation_4(z, g, lambda *_: 1 - beta)
        update = groups.updated(z, beta=beta)
        assert update.members.tolist() == [assignments(z, groups.features).count(j) for j in range(k)]
        groups.keep(update)
        torch.testing.assert_close(groups.features, g)


def test_averaging_is_sequential_k_means_and_latest_the_means_of_the_batch():
    g, z, *_ = setting()
    seen = [5, 0, 2, 1, 0, 30]
    groups = groups_of(g, "average", seen)
    found = groups.updated(z, beta=0.99)
    torch.testing.assert_close(found.features, equation_4(z, g, lambda k, members: 1 / (seen[k] + members)))
    groups.keep(found)
    assert groups.seen.tolist() == [n + assignments(z, g).count(k) for k, n in enumerate(seen)]
    latest = groups_of(g, "latest").updated(z, beta=0.99)
    torch.testing.assert_close(latest.features, equation_4(z, g, lambda *_: 1.0))


@pytest.mark.parametrize("k", [K, B, 40])
def test_random_groups_are_different_instances_of_the_batch(k):
    g, z, *_ = setting(k=k)
    groups = groups_of(g, "random")
    found = groups.updated(z, beta=0.99, seed=3).features
    cosines = normalize(found, dim=1) @ normalize(z, dim=1).T
    chosen = [row.argmax().item() for row in cosines if row.max() > 1 - 1e-9]
    assert len(chosen) == len(set(chosen)) == min(k, B)
    assert (found == groups.updated(z, beta=0.99, seed=3).features).all()
    assert (found != groups.updated(z, beta=0.99, seed=4).features).any()
    assert (found == g).all(dim=1).sum() == k - min(k, B)


def test_a_group_without_members_keeps_its_bytes():
    g, z, *_ = setting(k=40)
    found = groups_of(g).updated(z, beta=0.5)
    assert (found.features[found.members == 0] == g[found.members == 0]).all()
    assert (groups_of(g).updated(z, beta=1.0).features == g).all()


@pytest.mark.parametrize("views", [None, 1, 3])
def test_the_loss_is_equation_3_and_its_mean_over_views(views):
    g, z, p, other = setting()
    c = assignments(other, g)
    updated = groups_of(g).updated(z, beta=0.9).features
    labels = torch.tensor(c)
    given = p if views is None else torch.stack([p + view for view in range(views)])
    expected = sum(equation_3(each, updated, c) for each in given.view(-1, B, D)) / (views or 1)
    torch.testing.assert_close(group_contrast(given, updated, labels, temperature=TAU), expected)
    single = group_contrast(given.float(), updated.float(), labels, temperature=TAU)
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-5)


def test_similarities_are_float32_under_autocast():
    g, z, p, _ = (each.float() for each in setting())
    labels = torch.zeros(B, dtype=torch.int64)
    expected = group_contrast(p, g, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert group_contrast(p, g, labels) == expected
        assert (groups_of(g).assign(z) == groups_of(g).assign(z)).all()
        assert groups_of(g).updated(z.bfloat16(), beta=0.9).features.dtype == torch.float32


# -- the gradient ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_gradient_flows_through_the_groups_as_finite_differences_say(algorithm):
    g, z, p, other = setting()
    labels = groups_of(g).assign(other)

    def loss(z, p):
        return group_contrast(p, groups_of(g, algorithm, [3] * K).updated(z, beta=0.8, seed=1).features, labels)

    assert torch.autograd.gradcheck(loss, (z.requires_grad_(), p.requires_grad_()))
    (through_groups,) = torch.autograd.grad(loss(z, p), z)
    assert through_groups.abs().max() > 1e-4


def test_the_gradient_through_the_groups_is_that_of_the_equations():
    g, z, p, other = setting()
    z.requires_grad_()
    c = assignments(other, g)
    expected = equation_3(p, equation_4(z, g, lambda *_: 0.2), c)
    found = group_contrast(p, groups_of(g).updated(z, beta=0.8).features, torch.tensor(c), temperature=TAU)
    torch.testing.assert_close(*(torch.autograd.grad(each, z)[0] for each in (found, expected)))


def test_the_gradient_through_the_groups_fades_as_beta_nears_one():
    g, z, p, other = setting()
    labels, sizes = groups_of(g).assign(other), []
    for beta in (1.0, 0.999, 0.99):
        given = z.clone().requires_grad_()
        loss = group_contrast(p.clone().requires_grad_(), groups_of(g).updated(given, beta=beta).features, labels)
        (gradient,) = torch.autograd.grad(loss, given, allow_unused=True, materialize_grads=True)
        sizes.append(gradient.norm().item())
    assert sizes[0] == 0
    assert sizes[2] / sizes[1] == pytest.approx(10, rel=0.05)  # in proportion to 1 - beta


def test_groups_may_be_kept_before_the_backward_pass_and_hold_no_gradient():
    g, z, p, other = setting()
    groups, given = groups_of(g), z.clone().requires_grad_()
    labels = groups.assign(other)
    update = groups.updated(given, beta=0.9)
    loss = group_contrast(p, update.features, labels)
    (expected,) = torch.autograd.grad(loss, given, retain_graph=True)
    groups.keep(update)
    (found,) = torch.autograd.grad(loss, given)
    assert (found == expected).all() and not groups.features.requires_grad
    assert (groups.features == update.features).all()


# -- k-means, state ----------------------------------------------------------------------------------------------------


def test_refitted_groups_are_the_directions_of_the_clusters_and_remember_their_sizes():
    directions = torch.eye(5)
    cached = directions.repeat(4, 3, 1) * torch.rand(4, 15, 1, generator=torch.Generator().manual_seed(0)).add(0.5)
    groups = Groups(5, 5, seed=1)
    clusters = groups.refit(cached, seed=0)
    assert torch.equal(groups.features[groups.features.argmax(0)].round(decimals=5), directions)
    assert clusters.counts.tolist() == groups.seen.tolist() == [12] * 5


def test_groups_that_collapsed_are_relocated():
    cached = normalize(torch.randn(6, 20, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    groups = Groups(10, 8)
    groups.features.copy_(groups.features[:1].expand(10, 8))
    clusters = groups.refit(cached, seed=0)
    assert (clusters.counts > 0).all()
    assert len(groups.assign(cached.flatten(0, 1)).unique()) == 10
    torch.testing.assert_close(groups.features.norm(dim=1), torch.ones(10))


def test_every_cached_feature_may_be_a_group_of_its_own():
    cached = torch.eye(6).view(2, 3, 6)
    groups = Groups(6, 6)
    groups.refit(cached, seed=0)
    assert groups.assign(cached.flatten(0, 1)).unique().tolist() == list(range(6))


def test_more_groups_than_cached_features_are_refused():
    with pytest.raises(ValueError, match="groups=10: more than the 6 cached features"):
        Groups(10, 8).refit(torch.ones(2, 3, 8), seed=0)


def test_groups_that_go_on_are_the_groups_that_were():
    _, z, *_ = setting()
    one, other = Groups(K, D, seed=1), Groups(K, D, seed=2)
    assert (one.features != other.features).any()
    one.keep(one.updated(z.float(), beta=0.9))
    other.load_state({key: value.clone() for key, value in one.state().items()})
    for groups in (one, other):
        groups.keep(groups.updated(z.float() + 1, beta=0.9))
    assert (one.features == other.features).all() and (one.seen == other.seen).all()


def test_the_first_groups_are_a_function_of_the_seed():
    assert (Groups(K, D, seed=4).features == Groups(K, D, seed=4).features).all()
    torch.testing.assert_close(Groups(K, D).features.norm(dim=1), torch.ones(K))


def test_extreme_projections_give_finite_losses_and_gradients():
    g, z, p, _ = (each.float() for each in setting())
    for scale in (0.0, 1e-30, 1e18):
        given, predicted = (z * scale).requires_grad_(), (p * scale).requires_grad_()
        groups = groups_of(g)
        update = groups.updated(given, beta=0.9)
        loss = group_contrast(predicted, update.features, groups.assign(given))
        loss.backward()
        assert torch.isfinite(update.features).all() and torch.isfinite(loss)
        assert torch.isfinite(given.grad).all() and torch.isfinite(predicted.grad).all()


def test_what_is_no_choice_is_refused():
    with pytest.raises(ValueError, match="algorithm=mean"):
        Groups(K, D, algorithm="mean")
    with pytest.raises(ValueError, match="temperature=0"):
        group_contrast(torch.ones(2, 3), torch.ones(2, 3), torch.zeros(2, dtype=torch.int64), temperature=0)
