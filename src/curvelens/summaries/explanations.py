"""The index of the stored explanations."""

from __future__ import annotations

from curvelens.tables import IMAGE_COLUMNS, RUN_COLUMNS, Column, schema

EXPLANATIONS = schema(
    "explanations",
    "Index of the stored explanations: one row per image and method, beside the arrays in npz.",
    {
        **IMAGE_COLUMNS,
        "target": Column(int, "Class whose score is explained.", ge=0),
        "scalar": Column(str, "The number that is explained, e.g. `predicted_logit`."),
        "value": Column(float, "The scalar at the image."),
        "method": Column(str, "Registered name of the method."),
        "parameters": Column(str, "The method's parameters, as JSON."),
        "seed": Column(
            int, "Seed of the method for this image, derived from (seed, image id, purpose).", ge=0
        ),
        **RUN_COLUMNS,
    },
    keys=("method", "image_id"),
)
