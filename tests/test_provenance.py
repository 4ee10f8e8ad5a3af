"""The import graph behind reruns, and the layers it must keep."""

import importlib
import pkgutil

import pytest

import curvelens
from curvelens import provenance
from curvelens.errors import ArgumentError

# From the bottom to the top: a module may import its own layer and those before it. A package stands for its
# modules.
LAYERS = [
    {"errors", "finite", "writing", "seeds", "registry", "chunks", "devices", "provenance", "owncode"},
    {"linearity", "targets", "forward"},
    {"chain", "stages", "products", "derivatives", "surrogates", "tracing", "rays", "patterns"},
    {"trust_region", "quadratic", "smoothing", "softmax_curvature", "regions", "known"}
    | {"nystrom", "softmax_products", "superpixels", "taylor", "loss_curvature"},
    {"context_aware", "methods"},
    {"fidelity", "control_variate", "trust", "attacks", "pgd"}
    | {"localization", "faithfulness", "stability", "sanity", "costs", "overlap"},
    {
        "tables",
        "store",
        "npz",
        "manifest",
        "datasets",
        "models",
        "training",
        "spirometry",
        "config",
        "sections",
        "schedules",
        "synthetic",
        "studies",
        "jobs",
        "workload",
    },
    {"summaries", "experiments", "figures", "attr"},
    {"reporting"},
]


def modules():
    found = [f"curvelens.{m.name}" for m in pkgutil.iter_modules(curvelens.__path__)]
    for name in list(found):
        module = importlib.import_module(name)
        if hasattr(module, "__path__"):
            found += [f"{name}.{m.name}" for m in pkgutil.walk_packages(module.__path__)]
    return found


def layer(module):
    top = module.split(".")[1]
    levels = [level for level, names in enumerate(LAYERS) if top in names]
    assert levels, f"{top} is in no layer; add it to LAYERS"
    return levels[0]


@pytest.mark.parametrize("module", modules())
def test_imports_point_downwards(module):
    upwards = {name for name in provenance.imports(module) if layer(name) > layer(module)}
    assert not upwards


def test_closure_follows_imports_at_any_depth_and_inside_functions():
    closure = provenance.source_closure("curvelens.methods.smoothgrad")
    # smoothgrad imports methods, which imports _noise inside a function, which imports smoothing and targets.
    assert {"curvelens.methods._noise", "curvelens.smoothing.smooth", "curvelens.targets"} <= closure
    assert "curvelens.methods.vargrad" not in closure
    assert "curvelens.training" not in closure


def test_code_version_sees_edits_but_not_layout(tmp_path, monkeypatch):
    package = tmp_path / "curvelens"
    package.mkdir()
    (package / "a.py").write_text("from curvelens import b\nx = 1\n")
    (package / "b.py").write_text("def f():\n    return 1\n")
    (package / "c.py").write_text("y = 2\n")
    monkeypatch.setattr(provenance, "_ROOT", package)

    def forget():
        for cached in (provenance.imports, provenance._path, provenance._parse, provenance._normalised):
            cached.cache_clear()

    def version():
        forget()
        return provenance.code_version("curvelens.a")

    try:
        original = version()
        (package / "c.py").write_text("y = 3\n")
        assert version() == original
        (package / "b.py").write_text("# a comment\ndef f():\n\n    return 1\n")
        assert version() == original
        (package / "b.py").write_text("def f():\n    return 2\n")
        assert version() != original
    finally:
        forget()


def test_a_module_that_does_not_exist_is_named():
    with pytest.raises(ArgumentError, match=r"curvelens\.nothing"):
        provenance.code_version("curvelens.nothing")


def test_public_names_load():
    for name in curvelens.__all__:
        assert getattr(curvelens, name) is not None
