"""Weights that are downloaded, and the networks of Singla et al. (2019) that they belong to."""

import hashlib
import io

import numpy as np
import pytest
import torch
import yaml
from workflow_runs import ROOT, output, snakemake

from curvelens import config, derivatives, models, store, targets
from curvelens.datasets import _download
from curvelens.errors import ArgumentError, ConfigError, DataError, ModelError
from curvelens.experiments import distances
from curvelens.softmax_curvature import softmax_hessian
from curvelens.softmax_products import softmax_products
from curvelens.store import ImageSet

PARAMETERS = {"hidden": [8]}


def published(network):
    """A network's weights as a PyTorch file, and its checksum."""
    stream = io.BytesIO()
    torch.save(network.state_dict(), stream)
    return stream.getvalue(), hashlib.sha256(stream.getvalue()).hexdigest()


@pytest.mark.parametrize("digits", [64, 8])
def test_weights_arrive_checked_from_the_first_mirror_that_has_them(server, tmp_path, digits):
    given = models.build("mlp", PARAMETERS, 10, (1, 8, 8), seed=1)
    content, digest = published(given)
    server.answers |= {"/gone.pth": [404], "/wrong.pth": [content[:-1] + b"x"], "/net.pth": [content]}
    path = tmp_path / "net.pth"
    urls = [server.url(name) for name in ("/gone.pth", "/wrong.pth", "/net.pth")]
    _download.fetch(urls, path, digest[:digits], pause=0.0)
    assert server.asked == ["/gone.pth", "/wrong.pth", "/net.pth"]
    other = models.build("mlp", PARAMETERS, 10, (1, 8, 8), seed=2)
    models.load_weights(other, path, digest[:digits])
    for name, tensor in given.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name
    _download.fetch(urls, path, digest[:digits], pause=0.0)
    assert len(server.asked) == 3  # the file is kept
    with pytest.raises(DataError, match=r"correct weights_sha256"):
        models.load_weights(other, path, "0" * digits)


def test_a_failed_download_names_the_remedy(server, tmp_path):
    with pytest.raises(
        DataError, match=r"net\.pth could not be .*404.*or set models\.net\.weights to the file"
    ):
        _download.fetch(
            [server.url("/net.pth")],
            tmp_path / "net.pth",
            "0" * 64,
            retries=1,
            remedy="set models.net.weights to the file",
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"weights_urls": ["https://host/w.pth"]}, r"weights_urls is given without weights_sha256"),
        ({"weights_urls": ["ftp://host/w.pth"], "weights_sha256": "0" * 64}, r"weights_urls"),
        ({"weights_urls": ["https://host/"], "weights_sha256": "0" * 64}, r"weights_urls"),
        ({"weights_urls": ["https://host/w.pth"], "weights_sha256": "0" * 7}, r"weights_sha256"),
        ({"weights_sha256": "0" * 64}, r"weights_sha256 is given without weights"),
    ],
)
def test_a_download_needs_an_address_and_a_checksum(changes, told):
    raw = yaml.safe_load((ROOT / "config/test.yaml").read_text())
    raw["models"]["digits_relu"] |= changes
    with pytest.raises(ConfigError, match=told) as error:
        config.load(raw)
    assert "\n" not in str(error.value)


@pytest.mark.workflow
@pytest.mark.slow
def test_the_workflow_downloads_imports_and_measures(server, tmp_path):
    given = models.build("mlp", PARAMETERS, 10, (1, 8, 8), seed=1)
    content, digest = published(given)
    server.answers["/w/net.pth"] = [content]
    raw = yaml.safe_load((ROOT / "config/test.yaml").read_text())
    network = raw["models"]["digits_relu"] | {
        "parameters": PARAMETERS,
        "weights_urls": [server.url("/w/net.pth")],
        "weights_sha256": digest[:8],
    }
    experiment = {"model": "net"} | dict.fromkeys(
        ("explanations", "spectra", "distances", "fidelity", "attacks", "path")
    )
    made = raw | {"models": {"net": network}, "experiments": {"only": experiment}, "studies": {}}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(made))
    done = snakemake(tmp_path, "models", config=tmp_path / "my.yaml")
    assert done.returncode == 0, output(done)
    assert (tmp_path / "results/weights/net/net.pth").read_bytes() == content
    described = store.load_json(tmp_path / "results/models/net/model.json")
    assert described["imported"] == server.url("/w/net.pth")
    found = models.load(tmp_path / "results/models/net").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in given.state_dict().items())


# ---------------------------------------------------------------- the networks of Singla et al. 2019


def test_timms_networks_are_timms():
    import timm

    model = models.build("timm", {"model": "seresnet18"}, 7, (3, 40, 40), seed=3)
    reference = timm.create_model("seresnet18", num_classes=7).eval()
    reference.load_state_dict(model.network.state_dict())
    x = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = reference((x - mean[:, None, None]) / std[:, None, None])
        torch.testing.assert_close(model(x), expected)
    with pytest.raises(ConfigError, match=r"timm has no classifier 'seresnet05'; try .*seresnet50"):
        models.build("timm", {"model": "seresnet05"}, 7, (3, 40, 40))
    with pytest.raises(ModelError, match="mean has 3 values, the images' channels are 1"):
        models.build("timm", {"model": "seresnet18"}, 7, (1, 40, 40))


@pytest.mark.slow
def test_a_network_with_sigmoids_is_differentiated_and_the_closed_form_refuses(monkeypatch):
    monkeypatch.setattr("curvelens.taylor.DENSE_FEATURES", 1)
    model = models.build("timm", {"model": "seresnet18"}, 6, (3, 8, 8), seed=3).double()
    assert not targets.logits(model).piecewise_linear
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8)).astype(np.uint8)
    images = ImageSet(pixels, np.array([0]), ["noise"])
    x = images.tensor(0).double()
    for closed in (softmax_hessian, softmax_products):
        with pytest.raises(ArgumentError, match=r"not known to be piecewise linear.*use (hessian|hvp)\("):
            closed(model, x)
    found = distances.distances(model, images, c1=10.0, dtype=torch.float64).iloc[0]
    assert (found["status"], found["error"], found["curvature"]) == ("ok", "", "differentiation")
    assert found["kkt_residual"] < 1e-6
    assert found["full_calls"] == x.numel()
    assert 0 < found["solving_calls"] <= 20
    # The largest eigenvalue against the whole matrix.
    H = derivatives.hessian(targets.loss(model, int(found["prediction"])), x)
    largest = float(torch.linalg.eigvalsh(H)[-1])
    assert found["largest_eigenvalue"] == pytest.approx(max(largest, 0.0), rel=1e-4, abs=1e-8)


@pytest.mark.slow
def test_resnet_50_has_the_closed_form():
    model = models.build("torchvision", {"model": "resnet50"}, 5, (3, 32, 32), seed=3)
    assert targets.logits(model).piecewise_linear
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32)).astype(np.uint8)
    images = ImageSet(pixels, np.array([0]), ["noise"])
    rows = distances.compare_forms(model, images, forms=("factor", "products"))
    assert rows["error"].tolist() == ["", ""]
    assert (rows["difference"] < 1e-3).all()
    assert rows["calls"].tolist()[1] < 20
