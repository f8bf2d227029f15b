"""What holds for every figure of every topic, without computing it."""

import pytest

import privlearn
from privlearn import claims, figures
from privlearn.figures.registry import PROFILES, REGISTRY

figures.discover()
claims.discover()
NAMES = REGISTRY.names()


@pytest.mark.parametrize("topic", privlearn.TOPICS)
def test_every_topic_has_figures_and_claims(topic):
    assert REGISTRY.names(topic)
    assert claims.names(topic)


@pytest.mark.parametrize("name", NAMES)
def test_every_check_that_a_figure_names_exists(name):
    for claim in figures.get(name).claims:
        assert claims.names(claim), f"{name} names the claim {claim!r}, which does not exist"


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_names_its_topic_first_and_tells_its_reader_enough(name):
    figure = figures.get(name)
    assert name.startswith(f"{figure.topic}-")
    assert len(figure.caption) > 100
    assert figure.topic in privlearn.TOPICS


@pytest.mark.parametrize("name", NAMES)
def test_every_random_figure_states_its_seed_in_both_profiles(name):
    for profile in PROFILES:
        settings = figures.get(name).profiles[profile]
        if any(key.startswith(("n_trials", "n_splits", "n_pairs")) for key in settings):
            assert "seed" in settings
