import importlib
import subprocess
import sys
import textwrap

import pytest
from pydantic import BaseModel, Field

from curvelens import datasets, methods, models
from curvelens.errors import ConfigError
from curvelens.registry import NoParameters, Parameters, Registry


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package on disk whose registry is ``<name>.REGISTRY``; gives a function that adds a module to it."""
    name = f"plugins_{tmp_path.name.replace('-', '_')}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text(
        f"from curvelens.registry import Registry\nREGISTRY = Registry('widget', {name!r})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    def add(module, text):
        (folder / f"{module}.py").write_text(textwrap.dedent(text).replace("PACKAGE", name))
        importlib.invalidate_caches()

    add.registry = lambda: importlib.import_module(name).REGISTRY
    yield add
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        del sys.modules[module]


WIDGET = """
    from curvelens.registry import Parameters
    from PACKAGE import REGISTRY

    class P(Parameters):
        size: int = 3

    @REGISTRY.register("{name}", parameters=P, reference="Someone 2020", shape=(1, 2))
    def make(parameters):
        \"\"\"Makes a widget
        of some size.

        Args: none.
        \"\"\"
        return parameters.size
"""


def test_one_new_file_adds_a_member(package):
    package("first", WIDGET.format(name="alpha"))
    package("second", WIDGET.format(name="beta"))
    registry = package.registry()
    assert registry.names() == ["alpha", "beta"]
    entry = registry.get("alpha")
    assert entry.description == "Makes a widget of some size."
    assert entry.reference == "Someone 2020"
    assert entry.traits == {"shape": (1, 2)}
    assert entry.function(entry.parse({"size": 5})) == 5
    assert "beta" in registry
    assert "gamma" not in registry
    assert [entry.name for entry in registry] == ["alpha", "beta"]
    assert len(registry) == 2


def test_helpers_with_an_underscore_are_not_imported(package):
    package("_helper", "raise RuntimeError('imported')")
    package("good", WIDGET.format(name="alpha"))
    assert package.registry().names() == ["alpha"]


def test_an_unknown_name_lists_near_and_known_names_on_one_line(package):
    package("first", WIDGET.format(name="smoothgrad"))
    package("second", WIDGET.format(name="vargrad"))
    with pytest.raises(ConfigError) as caught:
        package.registry().get("smothgrad", where="experiments.mnist.methods")
    text = str(caught.value)
    assert text.startswith("experiments.mnist.methods: unknown widget 'smothgrad'; did you mean smoothgrad?")
    assert "known: smoothgrad, vargrad" in text
    assert "\n" not in text


def test_a_file_that_cannot_be_imported_is_named(package):
    package("broken", "import a_module_that_does_not_exist")
    with pytest.raises(ConfigError, match=r"widget file .*\.broken cannot be imported .*does_not_exist"):
        package.registry().names()


def test_two_functions_cannot_share_a_name(package):
    package("first", WIDGET.format(name="alpha"))
    package("second", WIDGET.format(name="alpha"))
    with pytest.raises(ConfigError, match="'alpha' is registered by both"):
        package.registry().names()


def test_parameter_models_must_be_closed():
    class Open(BaseModel):
        size: int = 1

    with pytest.raises(TypeError, match="forbid"):
        Registry("widget", "nowhere").register("x", parameters=Open)


class Ranged(Parameters):
    sigma: float = Field(gt=0)
    samples: int = Field(10, ge=1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sigma": -1}, r"where\.sigma: .*greater than 0 \(it is -1\)"),
        ({"sigma": 1, "sampels": 3}, r"where\.sampels: unknown key"),
        ({}, r"where\.sigma: Field required"),
        ({"sigma": "much", "samples": 0}, r"where\.sigma: .*and 1 more"),
    ],
)
def test_bad_parameters_are_refused_on_one_line(values, message):
    registry = Registry("widget", "curvelens.methods")
    registry.register("x", parameters=Ranged)(lambda parameters: None)
    entry = registry._entries["x"]
    with pytest.raises(ConfigError, match=message) as caught:
        entry.parse(values, "where")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("x takes: sigma, samples")


def test_parameters_cannot_change_once_checked():
    with pytest.raises(ValueError, match="frozen"):
        Ranged(sigma=1).sigma = 2
    assert NoParameters().model_dump() == {}


@pytest.mark.parametrize("registry", [datasets.REGISTRY, models.REGISTRY, methods.REGISTRY])
def test_every_shipped_member_has_a_reference_and_a_description(registry):
    assert len(registry) > 0
    for entry in registry:
        assert entry.reference
        assert entry.description
        for name, field in entry.parameters.model_fields.items():
            assert field.description, f"{entry.name}.{name}"


def test_the_configuration_is_checked_without_torch_or_pandas():
    code = (
        "import sys; from curvelens import datasets, methods, models\n"
        "for registry in (datasets.REGISTRY, methods.REGISTRY, models.REGISTRY): registry.names()\n"
        "print(sorted({'torch', 'pandas', 'torchvision', 'sklearn', 'numpy'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
