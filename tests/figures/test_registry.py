import polars as pl
import pytest

from privlearn.figures import Registry, registry


@pytest.mark.parametrize("name", ["", "Risk", "risk_curve", "-risk", "risk-", "1-risk", "a--b", 3])
def test_a_name_that_is_not_kebab_case_is_refused(make_figure, name):
    with pytest.raises(ValueError, match="kebab case"):
        make_figure(name)


@pytest.mark.parametrize("field", ["title", "caption", "source"])
def test_a_figure_that_does_not_say_what_it_is_is_refused(make_figure, field):
    with pytest.raises(ValueError, match=field):
        make_figure(**{field: "  "})


@pytest.mark.parametrize("topic", ["", "Aggregate", "a/b", "../a"])
def test_a_topic_that_is_no_package_name_is_refused(make_figure, topic):
    with pytest.raises(ValueError, match="topic"):
        make_figure(topic=topic)


@pytest.mark.parametrize("profiles", [{}, {"quick": {"n": 1, "seed": 0}}])
def test_a_missing_profile_is_refused(make_figure, profiles):
    with pytest.raises(ValueError, match="profiles must be exactly quick, paper"):
        make_figure(profiles=profiles)


def test_settings_that_compute_does_not_take_are_refused_at_definition(make_figure):
    profiles = {"quick": {"n": 1, "seed": 0}, "paper": {"n": 1, "sed": 0}}
    with pytest.raises(ValueError, match=r"profile 'paper' do not fit compute.*'seed'"):
        make_figure(profiles=profiles)


def test_claims_given_as_one_string_are_refused_and_not_taken_letter_by_letter(make_figure):
    with pytest.raises(TypeError, match="tuple of names"):
        make_figure(claims="demo/true")


@pytest.mark.parametrize("function", ["compute", "draw"])
def test_what_cannot_be_called_is_refused(make_figure, function):
    with pytest.raises(TypeError, match=f"{function} must be callable"):
        make_figure(**{function: 3})


def test_settings_cannot_be_changed_after_registration(make_figure):
    settings = {"n": 3, "seed": 0}
    figure = make_figure(profiles={"quick": settings, "paper": settings})
    settings["n"] = 4
    assert figure.settings("quick")["n"] == 3
    with pytest.raises(TypeError):
        figure.settings("quick")["n"] = 5


def test_an_unknown_profile_is_refused(make_figure):
    with pytest.raises(ValueError, match="one of quick, paper, got 'fast'"):
        make_figure().settings("fast")


@pytest.mark.parametrize(
    ("result", "error", "words"),
    [(3.0, TypeError, "a table, got float"), (pl.DataFrame({"x": []}), ValueError, "without rows")],
)
def test_a_compute_function_that_gives_no_table_is_named(make_figure, result, error, words):
    figure = make_figure(compute=lambda n, seed: result)
    with pytest.raises(error, match=f"'parabola'.*{words}"):
        figure.table()


def test_frames_of_other_libraries_and_lazy_ones_become_polars(make_figure):
    frame = pl.DataFrame({"x": [1, 2]})
    for native in (frame.to_pandas(), frame.to_arrow(), frame.lazy()):
        figure = make_figure(compute=lambda n, seed, native=native: native)
        assert figure.table()["x"].to_list() == [1, 2]


def test_two_figures_of_one_name_are_refused_and_the_same_one_twice_is_not(make_figure):
    first = make_figure("risk")
    figures = Registry([first, first])
    assert len(figures) == 1
    with pytest.raises(ValueError, match=r"two figures named 'risk'.*topic 'other'"):
        figures.register(make_figure("risk", topic="other"))
    assert figures.get("risk") is first
    with pytest.raises(TypeError, match="takes a Figure, got str"):
        figures.register("risk")


def test_figures_are_selected_by_name_topic_and_glob_once_and_in_order(demo):
    def names(*patterns):
        return [figure.name for figure in demo.select(patterns)]

    assert names() == ["curves", "facets", "band", "hostile"]
    assert names("band", "curves", "curves") == ["curves", "band"]
    assert names("other") == ["band", "hostile"]
    assert names("*s", "demo") == ["curves", "facets"]
    assert [figure.name for figure in demo.select("band")] == ["band"]
    assert demo.names("other") == ("band", "hostile")


@pytest.mark.parametrize("ask", ["get", "select"])
def test_an_unknown_name_gets_the_close_ones_in_the_error(demo, ask):
    with pytest.raises(LookupError, match=r"'curvs'; did you mean curves\?"):
        getattr(demo, ask)("curvs")
    with pytest.raises(LookupError, match="there are: demo, other, curves"):
        getattr(demo, ask)("zzzzzz")
    with pytest.raises(LookupError, match="no figures are registered"):
        getattr(Registry(), ask)("curves")


def test_one_unknown_name_among_known_ones_is_not_passed_over(demo):
    with pytest.raises(LookupError, match="'bnad'"):
        demo.select(["curves", "bnad"])


def test_a_topic_that_fails_on_import_leaves_no_figures_and_says_so_every_time(
    make_topic, make_figure
):
    make_topic(
        "import privlearn.figures.registry as r\n"
        "from stand_in import make_figure\n"
        "r.register(make_figure('half-done', topic='stand_in'))\n"
        "raise RuntimeError('half way')\n"
    )
    for _ in range(2):
        with pytest.raises(RuntimeError, match="half way"):
            registry.discover(["stand_in"])
        assert "half-done" not in registry.REGISTRY.names()


def test_a_topic_without_figures_is_passed_over(make_topic):
    make_topic(None)
    before = registry.REGISTRY.names()
    registry.discover(["stand_in"])
    assert registry.REGISTRY.names() == before


def test_discovery_registers_the_figures_of_a_topic(make_topic):
    make_topic(
        "import privlearn.figures.registry as r\n"
        "from stand_in import make_figure\n"
        "r.register(make_figure('found', topic='stand_in'))\n"
    )
    registry.discover(["stand_in"])
    registry.discover(["stand_in"])
    assert registry.REGISTRY.names("stand_in") == ("found",)
