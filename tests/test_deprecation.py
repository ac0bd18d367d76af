"""What goes away warns where it is used, and works on."""
import warnings

import pytest

from minifast.deprecation import deprecated, renamed_arguments


class Thing:
    @deprecated("Thing.new()", removed_in="0.4")
    def old(self, x, y=2):
        "Its docstring."
        return x + y

    @renamed_arguments("0.5", b="beta", a="alpha")
    def call(self, alpha, beta=1):
        return alpha, beta


def test_a_deprecated_method_works_and_warns_at_its_call():
    says = r"^Thing\.old is deprecated and goes away in minifast 0\.4: use Thing\.new\(\)$"
    with pytest.warns(FutureWarning, match=says) as w:
        assert Thing().old(1, y=3) == 4
    assert [one.filename for one in w] == [__file__]
    assert Thing.old.__doc__ == "Its docstring."


def test_old_arguments_reach_the_new_ones():
    with pytest.warns(FutureWarning, match=r"^Thing\.call's argument b is deprecated .* 0\.5: use beta$") as w:
        assert Thing().call(3, b=5) == (3, 5)
    assert [one.filename for one in w] == [__file__]
    with pytest.warns(FutureWarning) as w:
        assert Thing().call(a=3, b=5) == (3, 5)
    assert len(w) == 2


def test_new_arguments_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Thing().call(3, beta=5) == (3, 5)


def test_both_names_are_an_error():
    with pytest.raises(TypeError, match="Thing.call got beta twice, also by its old name b: leave b out"):
        Thing().call(3, b=1, beta=2)
    with pytest.raises(TypeError, match="multiple values for argument 'alpha'"), pytest.warns(FutureWarning):
        Thing().call(3, a=1)


@pytest.mark.parametrize("names", [{"old": "missing"}, {"x": "y"}])
def test_a_wrong_renaming_is_refused_where_it_is_written(names):
    with pytest.raises(ValueError, match=r"f must have an argument '(missing|y)' and none '(old|x)'"):
        @renamed_arguments("0.4", **names)
        def f(x, y):
            return x
