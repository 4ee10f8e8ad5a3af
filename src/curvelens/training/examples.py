"""Which images can be learnt from: those of a class that the network has."""

from __future__ import annotations

import logging

import numpy as np
import torch

from curvelens.errors import DataError
from curvelens.store import ImageSet
from curvelens.targets import evaluation_mode

logger = logging.getLogger(__name__)


def labelled(model: torch.nn.Module, images: ImageSet, where: str, purpose: str) -> ImageSet:
    """Return the images whose class is known.

    Args:
        model: Classifier; it is left as it was.
        images: Images, of which some may have the label -1.
        where: What is being done, for messages.
        purpose: What the images are for, for messages.

    Raises:
        DataError: There are none, or a label is no class of the network; the line names the image.
    """
    known = np.flatnonzero(images.labels >= 0)
    if not len(known):
        raise DataError(
            f"{where}: the data set has no images with a label {purpose}; choose another one, or a network "
            "that is trained already"
        )
    like = next(model.parameters())
    with evaluation_mode(model), torch.no_grad():
        classes = model(images.tensor([0]).to(like)).shape[1]
    require_known(images, classes, where, purpose)
    if len(known) == len(images):
        return images
    logger.info("%s: %d images %s have no label: left out", where, len(images) - len(known), purpose)
    return images.subset(known)


def require_known(images: ImageSet, classes: int, where: str, purpose: str = "") -> None:
    """Refuse labels that are no class of a network.

    Args:
        images: Images.
        classes: Number of the network's classes.
        where: What is being done, for the message.
        purpose: What the images are for, for the message.

    Raises:
        DataError: A label is beyond the classes; the line names the first such image.
    """
    beyond = np.flatnonzero(images.labels >= classes)
    if len(beyond):
        first = int(beyond[0])
        told = f"{len(beyond):,} of {len(images):,} images {purpose}".rstrip()
        raise DataError(
            f"{where}: {told} have a label beyond the network's {classes} classes, first "
            f"{images.ids[first]!r} with {images.labels[first]}; correct the labels, or the data "
            "set's class names"
        )
