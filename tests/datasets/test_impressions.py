"""The log of impressions: what is known about it from its publication."""

import importlib.util

import numpy as np
import pytest

from privlearn import datasets


def test_open_bandit_has_six_logs_in_order_of_time():
    frame = datasets.load_open_bandit().frame
    assert (frame.groupby(["campaign", "policy"], observed=True).size() == 10_000).all()
    assert frame["timestamp"].is_monotonic_increasing
    days = np.unique(frame["timestamp"].to_numpy() // 86_400_000_000)
    assert len(days) == 7
    assert np.datetime64(int(days[0]), "D") == np.datetime64("2019-11-24")
    clicks = frame.groupby(["policy", "campaign"], observed=True)["click"].sum()
    assert clicks["bts", "men"] == 69
    assert clicks["random", "all"] == 38


def test_the_random_policy_chose_every_item_with_the_same_probability():
    frame = datasets.load_open_bandit(policy="random").frame
    n_items = frame.groupby("campaign", observed=True)["item"].nunique()
    assert n_items.to_dict() == {"all": 80, "men": 34, "women": 46}
    uniform = 1 / frame["campaign"].astype(str).map(n_items.to_dict())
    np.testing.assert_allclose(frame["propensity"], uniform, rtol=1e-12)


def test_one_policy_is_the_rows_of_that_policy():
    both = datasets.load_open_bandit().frame
    one = datasets.load_open_bandit(policy="bts").frame
    rows = both[both["policy"] == "bts"].reset_index(drop=True)
    assert rows["timestamp"].equals(one["timestamp"])
    assert rows["click"].equals(one["click"])
    with pytest.raises(ValueError, match='policy must be "both", "random" or "bts", got 0'):
        datasets.load_open_bandit(policy=0)


def test_without_the_package_the_error_says_how_to_get_only_the_data(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "obp" else real(name, *a)
    )
    with pytest.raises(ImportError, match="pip install --no-deps obp"):
        datasets.load_open_bandit()
