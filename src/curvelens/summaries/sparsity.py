"""Tables of sparsity along λ₁ (Singla et al. 2019, Sec. 4.1), and their summary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curvelens.tables import IMAGE_COLUMNS, OK, RUN_COLUMNS, Column, frame, schema

if TYPE_CHECKING:
    import pandas as pd

BLOCKS = ("values", "channels", "patches", "superpixels")
"""What is zero as a whole or not at all, see :func:`curvelens.context_aware.block_labels`."""

CAFO, CASO, CLIPPED = "CAFO", "CASO", "clipped gradient"
METHODS = (CAFO, CASO, CLIPPED)

_BLOCK = Column(
    str,
    "What is zero as a whole: `values` (each for itself), `channels` of a pixel, `patches`, `superpixels`.",
    isin=BLOCKS,
)
_METHOD = Column(
    str,
    "CAFO, CASO, or the gradient of which only the largest blocks are kept, as many as CASO has.",
    isin=METHODS,
)


def _share(description: str, nullable: bool = True) -> Column:
    return Column(float, description, nullable=nullable, ge=0, le=1)


SPARSITY = schema(
    "sparsity",
    "CAFO, CASO and the clipped gradient of the cross-entropy along λ₁, and the choice of λ₁ (Singla et al. "
    "2019, Sec. 4.1, Fig. 3).",
    {
        **IMAGE_COLUMNS,
        "block": _BLOCK,
        "method": _METHOD,
        "lambda1": Column(float, "λ₁; the clipped gradient has that of the CASO row it resembles.", ge=0),
        "lambda2": Column(float, "λ₂ = L/2 + c₁, half of that in the authors' code.", gt=0),
        "step": Column(
            int,
            "Place in the walk to the choice, from 0; missing where λ₁ was solved along and not looked at.",
            nullable=True,
            ge=0,
        ),
        "chosen": Column(
            bool, "Whether λ₁ is the one chosen; of the clipped gradient, that chosen for CASO."
        ),
        "satisfied": Column(
            bool, "Whether η of the one chosen is in the range asked for; of the clipped gradient, CASO's."
        ),
        "least": _share("Smallest share of zero blocks asked for.", nullable=False),
        "blocks": Column(int, "Blocks of the image; pixels for `values`.", ge=1),
        "sparsity": _share("η, share of pixels that are zero in every channel.", nullable=False),
        "block_sparsity": _share(
            "Share of blocks that are zero, by which λ₁ is chosen; η for `values`.", nullable=False
        ),
        "loss": Column(float, "Cross-entropy at x + Δ; the clipped gradient is divided by 2λ₂ first."),
        "objective": Column(
            float, "gᵀΔ + ½ΔᵀHΔ − λ₁·penalty(Δ) − λ₂‖Δ‖²; missing for the clipped gradient.", nullable=True
        ),
        "kkt_residual": Column(
            float,
            "Relative violation of the optimality conditions; missing for the clipped gradient.",
            nullable=True,
            ge=0,
        ),
        "iterations": Column(
            int,
            "Iterations, for products alone: rounds with one product each; missing for the clipped gradient.",
            nullable=True,
            ge=0,
        ),
        "precision": Column(
            str,
            "Of the network: `float64` where `float32` left a residual above 1e-4.",
            isin=("float32", "float64"),
        ),
        "products": Column(
            int,
            "Hessian-vector products that the whole path took, all its λ₁ together, beyond those for L and "
            "those of the blocks before.",
            ge=0,
        ),
        "cosine": Column(
            float,
            "Cosine of Δ and the chosen Δ of this method; missing where one is zero.",
            nullable=True,
            ge=-1 - 1e-9,
            le=1 + 1e-9,
        ),
        "jaccard_gradient": _share(
            "Jaccard index of its blocks and those of the gradient clipped to as many; missing for none."
        ),
        "jaccard_cafo": _share("Jaccard index of its blocks and those of CAFO with as many; else missing."),
        "isolated": _share("Share of its pixels all of whose 8 neighbours are zero; missing for none."),
        "isolated_gradient": _share("The same for the gradient clipped to as many blocks; missing for none."),
        **RUN_COLUMNS,
    },
    keys=("image_id", "block", "method", "lambda1"),
)


SPARSITY_SUMMARY = schema(
    "sparsity_summary",
    "The explanations chosen by sparsity, over images.",
    {
        "block": _BLOCK,
        "method": Column(str, "CAFO or CASO.", isin=METHODS[:2]),
        "images": Column(int, "Images that did not fail.", ge=1),
        "satisfied": _share("Share of them with a λ₁ whose η is in the range asked for.", nullable=False),
        "powers": _share("Share of them for which the powers of ten sufficed.", nullable=False),
        "steps": Column(float, "Median number of λ₁ looked at.", ge=1),
        "lambda1": Column(float, "Median of the λ₁ chosen.", ge=0),
        "lambda1_low": Column(float, "Smallest.", ge=0),
        "lambda1_high": Column(float, "Largest.", ge=0),
        "sparsity": _share("Median η of the explanations chosen.", nullable=False),
        "sparsity_low": _share("Smallest.", nullable=False),
        "sparsity_high": _share("Largest.", nullable=False),
        "block_sparsity": _share("Median share of zero blocks.", nullable=False),
        "jaccard_gradient": _share("Median Jaccard index with the gradient clipped to as many blocks."),
        "jaccard_cafo": _share("Median Jaccard index with CAFO of as many blocks."),
        "isolated": _share("Median share of isolated pixels."),
        "isolated_gradient": _share("Median share of isolated pixels of the gradient clipped alike."),
        "kkt_residual": Column(float, "Largest residual over all λ₁.", ge=0),
        "products": Column(float, "Median number of Hessian-vector products of a path.", ge=0),
        "path": Column(float, "Median number of λ₁ solved together.", ge=1),
    },
    keys=("block", "method"),
)


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Summarise the explanations chosen.

    Args:
        table: The table :data:`SPARSITY`; failed rows are left out.

    Returns:
        The table :data:`SPARSITY_SUMMARY`; empty if no image succeeded.
    """
    fine = table[(table["status"] == OK) & (table["method"] != CLIPPED)]
    groups = fine.groupby(["block", "method"], sort=False)
    rows = [{"block": block, "method": method, **_group(rows)} for (block, method), rows in groups]
    return frame(rows, SPARSITY_SUMMARY)


def _group(rows: pd.DataFrame) -> dict[str, Any]:
    chosen = rows[rows["chosen"].astype(bool)].set_index("image_id")
    walked = rows[rows["step"].notna()]
    last = walked.loc[walked.groupby("image_id")["step"].idxmax()].set_index("image_id")
    powers = last["block_sparsity"].astype(float) == 1  # the walk through the powers of ten ends at Δ = 0
    medians = ("jaccard_gradient", "jaccard_cafo", "isolated", "isolated_gradient", "block_sparsity")
    found: dict[str, Any] = {name: chosen[name].astype(float).median() for name in medians}
    for name in ("lambda1", "sparsity"):
        values = chosen[name].astype(float)
        found |= {name: values.median(), f"{name}_low": values.min(), f"{name}_high": values.max()}
    return found | {
        "images": len(chosen),
        "satisfied": chosen["satisfied"].astype(float).mean(),
        "powers": (powers & chosen["satisfied"].astype(bool)).mean(),
        "steps": walked.groupby("image_id").size().median(),
        "kkt_residual": rows["kkt_residual"].astype(float).max(),
        "products": chosen["products"].astype(float).median(),
        "path": rows.groupby("image_id").size().median(),
    }
