"""The stages of the pipeline on a library's network, an exported program and a function's network."""

import numpy as np
import pytest
from own_networks_world import NAMES, digits, make

from curvelens import models
from curvelens.experiments import attacks, distances, explanations, fidelity, rows, spectra
from curvelens.store import ImageSet
from curvelens.summaries import attacks as attack_summaries
from curvelens.summaries import fidelity as fidelity_summaries
from curvelens.summaries import paired_attacks

METHODS = {
    "gradient": {},
    "smoothgrad": {"samples": 8},
    "smoothhess": {"samples": 8},
    "integrated_gradients": {},
    "gradcam": {},
    "occlusion": {},
    "caso": {},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with three networks' files, and what a configuration says of them."""
    folder = tmp_path_factory.mktemp("own")
    return folder, make(folder)


@pytest.fixture(scope="module", params=["library", "program", "code"])
def network(request, files):
    """A network as a job gets it: stored, and read again."""
    folder, own = files[0] / request.param, files[1][request.param]
    entry = models.REGISTRY.get(own["architecture"])
    own["parameters"] = entry.parse(own.get("parameters")).model_dump(mode="json")
    described = models.described(own, {"class_names": NAMES, "image_shape": [1, 8, 8]})
    model = models.restore(own["weights"], **described)
    models.save(model, folder, **described)
    return request.param, models.load(folder)


@pytest.fixture(scope="module")
def images(network):
    """Three digits that the network recognises."""
    x, labels = digits()
    right = rows.predict(network[1], x[:60]).prediction == labels[:60]
    chosen = right.nonzero()[:3, 0]
    return ImageSet(
        (x[chosen].numpy() * 255).round().astype(np.uint8),
        labels[chosen].numpy(),
        [f"digits/{index}" for index in chosen.tolist()],
    )


def require_ok(table):
    assert (table["status"] == "ok").all(), table["error"].tolist()


def test_every_map_can_be_had(network, images):
    chosen = {name: values for name, values in METHODS.items() if network[0] != "code" or name != "gradcam"}
    found = explanations.explain_images(network[1], images, chosen)
    for name, (arrays, index) in found.items():
        require_ok(index)
        assert all(np.isfinite(array).all() for array in arrays.values()), name


def test_spectra_say_what_is_known(network, images):
    table, _, _ = spectra.spectra(network[1], images, [0], network[0], None)
    require_ok(table)
    assert table["activation"].tolist() == [{"code": "curved"}.get(network[0], "relu")]
    assert table["region_radius"].notna().all() == (network[0] != "code")
    # Second differences along the leading eigenvector, in float64.
    assert network[0] != "code" or table["curvature_error"].max() < 1e-4


def test_context_aware_explanations_are_compared(network, images):
    table = distances.distances(network[1], images)
    require_ok(table)


def test_local_models_are_held_against_it(network, images):
    surrogates = {} if network[0] == "code" else {"betas": [20.0], "swish_betas": [20.0]}
    settings = {
        "radii": [0.25],
        "laws": ["ball"],
        "scalars": ["predicted_logit"],
        "samples": 200,
        "calls": 128,
    }
    grid = {"sigma_factors": [1.0]} | surrogates
    tried = fidelity.measure(network[1], images.subset([0]), split="validation", **settings, **grid)
    require_ok(tried)
    choices = fidelity_summaries.choose(tried)
    tested = fidelity.measure(network[1], images.subset([1]), split="test", choices=choices, **settings)
    require_ok(tested)
    for table in (tried, fidelity_summaries.summarise(tested)):
        assert {"SH+SG", "SG", "G"} <= set(table["method"])
        assert ("SP H+G" in set(table["method"])) == bool(surrogates)


def test_it_is_attacked(network, images):
    surrogates = [] if network[0] == "code" else [20.0]
    settings = {"magnitudes": [1.0], "calls": 128, "truncation": 0.98}
    grid = {"sigma_squared": [0.05], "betas": surrogates}
    tried = attacks.attack_images(network[1], images.subset([0]), split="validation", **settings, **grid)
    require_ok(tried)
    choices = attack_summaries.choose(tried)
    tested = attacks.attack_images(
        network[1], images.subset([1, 2]), split="test", choices=choices, **settings
    )
    require_ok(tested)
    for table in (attack_summaries.summarise(tested, choices), paired_attacks.paired(tested)):
        assert {"SH+SG", "SG", "H+G"} <= set(table["method"])
        assert ("SP H+G" in set(table["method"])) == bool(surrogates)
