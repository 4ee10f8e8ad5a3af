"""A network that stumbles over flat pictures, such pictures, and every stage that looks at images."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from curvelens.experiments import (
    attacks,
    competing,
    distances,
    evaluation,
    explanations,
    fidelity,
    judging,
    sparsity,
    spectra,
    spectra_sweep,
    superpixels,
    trust,
)
from curvelens.experiments.judging_again import Explainer
from curvelens.sections.competing import Competing
from curvelens.sections.judging import Judging
from curvelens.sections.sparsity import Sparsity
from curvelens.sections.superpixels import Superpixels
from curvelens.store import ImageSet

SIZE, CLASSES = 8, 3
METHODS = {
    "gradient": {},
    "smoothgrad": {"samples": 4},
    "caso": {},
    "occlusion": {"window": 0.5, "stride": 0.5},
}


class Standardised(nn.Module):
    """Each picture less its mean over its standard deviation, as many networks begin.

    Of a flat picture that is 0/0 where ``epsilon`` is 0. Where it is not, the logits are finite, but the
    derivative of the square root at 0 is not.
    """

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        z = x.flatten(1)
        z = z - z.mean(1, keepdim=True)
        return z / (z.square().mean(1, keepdim=True).sqrt() + self.epsilon)


def network(epsilon: float, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    layers = [Standardised(epsilon), nn.Linear(3 * SIZE**2, 12), nn.Softplus(), nn.Linear(12, CLASSES)]
    return nn.Sequential(*layers).to(dtype).eval()


def images(count: int = 4, flat: int | None = 1) -> ImageSet:
    """Pictures of noise, one of which is replaced by a flat one."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, SIZE, SIZE), dtype=np.uint8)
    plain = ImageSet(pixels, np.zeros(count, np.int64), [f"own/{index}" for index in range(count)])
    with torch.no_grad():
        labels = network(1e-3)(plain.tensor()).argmax(1).numpy()
    if flat is not None:
        pixels[flat] = 128
    return ImageSet(pixels, labels, plain.ids)


def explained(model: nn.Module, some: ImageSet) -> dict[str, tuple[dict[str, np.ndarray], pd.DataFrame]]:
    trusted = {"threshold": 0.5, "smallest": 0.1, "largest": 2.0, "samples": 8}
    return explanations.explain_images(model, some, METHODS, scalar="predicted_logit", trust=trusted)


def judged(model: nn.Module, some: ImageSet, missing: tuple[str, str] | None = None) -> pd.DataFrame:
    """Judge maps as if another network had made them; of one method and image it may have failed to."""
    maps = {
        name: {
            one: np.random.default_rng([ord(one[-1]), place]).normal(size=some.shape).astype(np.float32)
            for one in some.ids
        }
        for place, name in enumerate(METHODS)
    }
    if missing is not None:
        maps[missing[0]][missing[1]][:] = np.nan
    settings = Judging.model_validate(
        {
            "images": len(some),
            "steps": 3,
            "radii": [0.1],
            "samples": 8,
            "stability": None,
            "randomization": None,
        }
    )
    judge = judging.Judge(model, settings, Explainer(METHODS, "predicted_logit", 0), maps, {})
    return judge.images(some)[0]


def compared(model: nn.Module, some: ImageSet) -> pd.DataFrame:
    settings = Competing.model_validate(
        {
            "mistakes": 4,
            "methods": {"gradient": {}, "smoothgrad": {"samples": 4}},
            "scenes": {"odd": some.ids[:2]},
        }
    )
    names = competing.Described(["a", "b", "c"], {}, "here")
    return competing.competing(model, some, some, settings, names)[0]


def measured(model: nn.Module, some: ImageSet) -> pd.DataFrame:
    return fidelity.measure(
        model, some, split="validation", radii=[0.5], laws=["ball"], scalars=["predicted_logit"],
        methods=["SH+SG", "SG", "G"], covariance=["isotropic"], sigma_factors=[0.5], betas=[], swish_betas=[],
        calls=32, samples=16,
    )  # fmt: skip


def trusted(model: nn.Module, some: ImageSet) -> pd.DataFrame:
    return trust.measure(
        model, some, split="test", methods=["SH+SG", "SG", "G"], thresholds=[0.5], scalar="predicted_logit",
        law="ball", smoothing_radii=[0.5], betas=[], smallest=0.1, largest=1.0, calls=32, samples=8, seed=0,
    )  # fmt: skip


def doubled(
    measure: Callable[[nn.Module, ImageSet], pd.DataFrame],
) -> Callable[[nn.Module, ImageSet], pd.DataFrame]:
    return lambda model, some: measure(model.double(), some)


STAGES: Mapping[str, Callable[[nn.Module, ImageSet], pd.DataFrame]] = {
    "explanations": lambda model, some: pd.concat([index for _, index in explained(model, some).values()]),
    "evaluation": evaluation.predictions,
    "spectra": lambda model, some: spectra.spectra(model, some, None, "m", "softplus")[0],
    "spectra_sweep": lambda model, some: spectra_sweep.sweep(
        model, model, some, ("m", "m"), settings=spectra_sweep.Settings(betas=())
    ),
    "distances": distances.distances,
    "fidelity": measured,
    "attacks": lambda model, some: attacks.attack_images(
        model,
        some,
        split="validation",
        magnitudes=[0.5],
        sigma_squared=[0.01],
        methods=["SH+SG", "SG"],
        calls=32,
    ),
    "trust": trusted,
    "sparsity": lambda model, some: sparsity.sparsity_paths(
        model, some, Sparsity(blocks=["values"], halvings=3)
    )[0],
    "superpixels": lambda model, some: superpixels.superpixels(
        model, some, Superpixels(segments=(3, 6), methods=["SH+SG"], calls=16, samples=8)
    )[0],
    "judging": judged,
    "competing": compared,
}
