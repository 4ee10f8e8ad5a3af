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
        "crate",
        "jobtimes",
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


def forget():
    for function in vars(provenance).values():
        if hasattr(function, "cache_clear"):
            function.cache_clear()


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

    def version():
        forget()
        return provenance.code_version("curvelens.a")

    try:
        original = version()
        (package / "c.py").write_text("y = 3\n")
        assert version() == original
        (package / "b.py").write_text('"""What it is."""\n# a comment\ndef f():\n\n    return 1\n')
        assert version() == original
        (package / "b.py").write_text('def f():\n    """Return one."""\n    return 1\n')
        assert version() == original
        (package / "b.py").write_text("def f():\n    return 2\n")
        assert version() != original
    finally:
        forget()


def test_names_that_a_package_passes_on_lead_to_their_modules(tmp_path, monkeypatch):
    package = tmp_path / "curvelens"
    texts = {
        "a.py": "from curvelens.p import f",
        "b.py": "from curvelens import p",
        "c.py": "from curvelens.q import f",
        "d.py": "if TYPE_CHECKING:\n    from curvelens.p import f",
        "p/__init__.py": '"""P."""\nfrom curvelens.p.m import f\nfrom curvelens.p.n import g\n__all__ = []',
        "p/m.py": "def f(): ...",
        "p/n.py": "def g(): ...",
        "q/__init__.py": "from curvelens.p.m import f\nfrom curvelens.p.n import g\ng()",
    }
    for name, text in texts.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    monkeypatch.setattr(provenance, "_ROOT", package)
    try:
        forget()
        closures = {
            name: {
                module.removeprefix("curvelens.") for module in provenance.source_closure(f"curvelens.{name}")
            }
            for name in "abcd"
        }
    finally:
        forget()
    assert closures == {
        "a": {"a", "p", "p.m"},
        "b": {"b", "p", "p.m", "p.n"},  # whatever of it may be used
        "c": {"c", "q", "p.m", "p.n"},  # q does something itself
        "d": {"d"},
    }


def test_a_script_counts_with_what_it_imports(tmp_path):
    script = tmp_path / "script.py"

    def version(text):
        script.write_text(text)
        provenance._parse_file.cache_clear()
        return provenance.code_version(script=script)

    importing = version("from curvelens import seeds\n")
    assert version("# written anew\nfrom curvelens import seeds") == importing
    assert version("from curvelens import errors\n") != importing
    assert version("from curvelens import seeds\nprint(1)\n") != importing


def test_files_count_by_name_and_size_and_tables_by_what_they_say(tmp_path):
    folder = tmp_path / "pictures"

    def version():
        return provenance.files_version(folder)

    gone = version()
    (folder / "cat").mkdir(parents=True)
    seen = [gone, version()]
    for name, content in (
        ("cat/1.png", b"12"),
        ("cat/1.png", b"123"),
        ("list.csv", b"3"),
        ("list.csv", b"4"),
    ):
        (folder / name).write_bytes(content)
        seen.append(version())
    (folder / "cat/1.png").rename(folder / "cat/2.png")
    seen.append(version())
    assert len(set(seen)) == len(seen)
    (folder / "cat/2.png").touch()
    assert version() == seen[-1]
    assert provenance.files_version(folder / "a.csv") != provenance.files_version(folder / "cat/2.png")


def test_a_module_that_does_not_exist_is_named():
    with pytest.raises(ArgumentError, match=r"curvelens\.nothing"):
        provenance.code_version("curvelens.nothing")


def test_public_names_load():
    for name in curvelens.__all__:
        assert getattr(curvelens, name) is not None
