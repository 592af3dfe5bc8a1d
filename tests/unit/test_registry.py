"""Names to plug-ins: discovery, one new file, broken plug-ins, nothing overwritten."""

from __future__ import annotations

import sys
import threading
import time
from importlib.metadata import EntryPoint

import pytest

from naswot import registry
from naswot.errors import OptionError, RegistrationError, UnknownNameError
from naswot.proxy import get_proxy, list_proxies, proxies, register_proxy
from naswot.registry import Registry

PLUGIN = "from {home} import things\nthings.register({name!r}, {value})\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package ``plugs_x`` with one registry, and a function that puts entry points to it."""
    folder = tmp_path / "plugs_x"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "_home.py").write_text(
        "from naswot.registry import Registry\nthings = Registry('thing', 'x.things', 'x ls')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [EntryPoint("builtin", "plugs_x", "x.things")]
    monkeypatch.setattr(registry, "entry_points", lambda group: [p for p in points if p.group == group])
    yield folder, points
    for name in [name for name in sys.modules if name.split(".")[0] == "plugs_x"]:
        del sys.modules[name]


def things():
    import importlib

    return importlib.import_module("plugs_x._home").things


def add(folder, name, value=1, text=None):
    (folder / f"{name}.py").write_text(text or PLUGIN.format(home="plugs_x._home", name=name, value=value))


def test_one_new_file_is_enough(package):
    folder, _ = package
    for name, value in [("beta", 2), ("alpha", 1)]:
        add(folder, name, value)
    add(folder, "_private", text="raise RuntimeError('never imported')")
    assert things().names() == ["alpha", "beta"]
    assert things().get("beta") == 2
    assert list(things()) == [("alpha", 1), ("beta", 2)]
    assert things().failures() == {}


def test_a_single_module_and_a_module_with_an_attribute(package):
    folder, points = package
    add(folder, "alpha")
    points[:] = [EntryPoint("one", "plugs_x.alpha:anything", "x.things"), EntryPoint("other", "nowhere", "y.things")]
    assert things().names() == ["alpha"]


def test_patterns_and_exceptions(package):
    folder, _ = package
    for name in ("snip", "synflow", "grasp", "naswot"):
        add(folder, name)
    assert things().names("s*") == ["snip", "synflow"]
    assert things().names("*s*", without=["snip"]) == ["grasp", "naswot", "synflow"]
    assert things().names("nothing*") == []
    assert things().names("[ns]*p") == ["snip"]


def test_a_broken_plug_in_is_reported_and_takes_no_other_down(package):
    folder, points = package
    add(folder, "alpha")
    add(folder, "broken", text="import a_package_that_is_not_there\n")
    add(folder, "zeta")
    points.append(EntryPoint("gone", "no_such_module_x", "x.things"))
    assert things().names() == ["alpha", "zeta"]
    failures = things().failures()
    assert failures.keys() == {"plugs_x.broken", "gone"}
    assert "ModuleNotFoundError: No module named 'a_package_that_is_not_there'" in failures["plugs_x.broken"]
    with pytest.raises(UnknownNameError, match=r"Plug-in plugs_x\.broken failed to load: ModuleNotFoundError"):
        things().get("broken")


def test_names_are_never_overwritten(package):
    folder, _ = package
    add(folder, "alpha", 1)
    add(folder, "beta", text=PLUGIN.format(home="plugs_x._home", name="alpha", value=2))
    assert things().get("alpha") == 1
    assert "RegistrationError: thing 'alpha' is registered already, by 1" in things().failures()["plugs_x.beta"]
    with pytest.raises(RegistrationError, match="thing 'alpha' is registered already"):
        things().register("alpha", 3)


def test_nearest_name(package):
    folder, _ = package
    add(folder, "synflow")
    with pytest.raises(UnknownNameError, match=r"unknown thing 'sinflow'; did you mean 'synflow'\? `x ls` shows all 1"):
        things().get("sinflow")
    with pytest.raises(LookupError, match=r"unknown thing 'q'\. `x ls`"):
        things().get("q")


def test_a_plug_in_may_look_names_up_while_it_is_imported(package):
    folder, _ = package
    add(folder, "alpha")
    add(folder, "beta", text="from plugs_x._home import things\nthings.register('beta', things.get('alpha') + 1)\n")
    assert things().get("beta") == 2


def test_two_threads_discover_together(package):
    folder, _ = package
    add(
        folder,
        "slow",
        text="import time; time.sleep(0.2)\nfrom plugs_x._home import things\nthings.register('slow', 1)\n",
    )
    home, found = things(), []
    threads = [threading.Thread(target=lambda: found.append(home.names())) for _ in range(2)]
    threads[0].start()
    time.sleep(0.05)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert found == [["slow"], ["slow"]]


def test_empty_registry():
    empty = Registry("thing", "no.such.group")
    assert empty.names() == []
    with pytest.raises(UnknownNameError, match=r"unknown thing 'a'\. None is installed"):
        empty.get("a")


# --- proxies -----------------------------------------------------------------------------------------------------


def test_built_in_proxies_are_found():
    assert {"naswot", "naswot_size", "naswot_diversity", "params", "flops", "trainable_layers"} <= set(list_proxies())
    assert list_proxies("naswot*") == ["naswot", "naswot_diversity", "naswot_size"]
    assert "params" not in list_proxies(without=["params"])
    assert proxies.failures() == {}


def test_proxy_names_are_those_of_their_functions_and_files():
    for name, proxy in proxies:
        assert proxy.name == name == proxy.function.__name__
        home = proxy.function.__module__
        assert home.split(".")[0] != "proxies" or home == f"proxies.{name}"


def test_a_proxy_cannot_take_a_name_or_go_without_words():
    def params(seen, passes):
        """Something else."""

    def unheard(seen, passes):
        return None

    get_proxy("params")
    with pytest.raises(RegistrationError, match="proxy 'params' is registered already"):
        register_proxy(reference="x")(params)
    with pytest.raises(RegistrationError, match="proxy 'unheard' has no docstring"):
        register_proxy(reference="x")(unheard)
    assert "unheard" not in list_proxies()


def test_options_of_a_proxy():
    import dataclasses

    def scaled(seen, passes, *, factor=1.0, shift=0.0):
        """Scaled."""
        return factor + shift

    proxy = dataclasses.replace(get_proxy("params"), name="scaled", function=scaled)
    bound = proxy.with_options(factor=3.0).with_options(shift=1.0)
    assert bound({}, None) == 4.0
    assert proxy({}, None) == 1.0
    with pytest.raises(OptionError, match=r"proxy 'scaled' has no option 'factr'; it has \['factor', 'shift'\]"):
        proxy.with_options(factr=3)
    with pytest.raises(OptionError, match="proxy 'params' has no option 'x'; it has none"):
        get_proxy("params", x=1)
