"""Tables of the theorems of Singla et al. 2019 as experiments."""

from __future__ import annotations

from curvelens.tables import Column, schema

FAMILIES = ("orthonormal", "gaussian", "zipf")
METHODS = ("paper", "accelerated", "conjugate gradients", "closed form")

_NETWORK = {
    "classes": Column(int, "Classes c.", ge=2),
    "network": Column(int, "Which random network.", ge=0),
}

HESSIAN_FACTS = schema(
    "hessian_facts",
    "Hessian of the cross-entropy of one random ReLU network at one input, by automatic differentiation.",
    {
        **_NETWORK,
        "features": Column(int, "Input features d.", ge=2),
        "confidence": Column(float, "Probability of the predicted class.", ge=0, le=1),
        "smallest_eigenvalue": Column(float, "Smallest eigenvalue; rounding may make it negative."),
        "largest_eigenvalue": Column(float, "Largest eigenvalue L.", ge=0),
        "rounding": Column(float, "d times the rounding unit times L: smaller eigenvalues count as 0.", ge=0),
        "rank": Column(int, "Eigenvalues above rounding.", ge=0),
        "bound": Column(int, "c − 1, or d where that is less.", ge=1),
        "kernel": Column(float, "‖(diag p − ppᵀ)1‖, zero because that matrix is singular.", ge=0),
        "difference": Column(float, "Relative Frobenius distance of the closed form (Proposition 1).", ge=0),
    },
    keys=("classes", "network"),
)

CONCAVITY = schema(
    "concavity",
    "CASO's objective on both sides of λ₂ = L/2 (Theorem 3), λ₁ being a tenth of the largest |gᵢ|.",
    {
        **_NETWORK,
        "multiple": Column(float, "λ₂ as a multiple of L/2.", ge=0),
        "l2": Column(float, "λ₂.", gt=0),
        "modulus": Column(float, "Modulus of strong concavity by Theorem 3, 2λ₂ − L; negative: not concave."),
        "measured_modulus": Column(float, "Smallest eigenvalue of 2λ₂I − H by automatic differentiation."),
        "steps": Column(int, "Proximal gradient steps of length 1/(2λ₂) from Δ = 0.", ge=1),
        "value": Column(float, "Objective after that many steps."),
        "value_doubled": Column(float, "Objective after twice as many."),
        "optimum": Column(float, "Its maximum; missing where there is none.", nullable=True),
    },
    keys=("classes", "network", "multiple"),
)

RANK_ONE = schema(
    "rank_one",
    "Rank-one approximation of the Hessian of a linear model with one probable class (App. F.1).",
    {
        "family": Column(
            str,
            "`orthonormal`: logits' gradients orthogonal, other classes equally probable; `gaussian`: "
            "gradients random, others equal; `zipf`: gradients orthogonal, others ∝ 1, 1/2, 1/3, …",
            isin=FAMILIES,
        ),
        "classes": Column(int, "Classes c.", ge=3),
        "doubt": Column(float, "1 − p, p being the probability of the predicted class.", gt=0, le=0.5),
        "largest_eigenvalue": Column(float, "Largest eigenvalue L of H.", gt=0),
        "paper_error": Column(float, "‖H − ggᵀ/(1 − p)‖_F over ‖H‖_F, the paper's approximation.", ge=0),
        "best_error": Column(float, "The same of the best matrix of rank one.", ge=0, le=1),
        "exact_paper_error": Column(float, "paper_error in closed form for `orthonormal`.", ge=0),
        "exact_best_error": Column(float, "best_error in closed form for `orthonormal`.", ge=0),
        "asymptote": Column(float, "Limit of both as p → 1, √((c − 2)/((c − 1)(c + 2))).", ge=0),
        "angle": Column(float, "Between g and the leading eigenvector.", unit="°", ge=0, le=90),
        "distance": Column(float, "Of CASO and CAFO of unit length, λ₁ = 0, λ₂ = L/2 + c₁.", ge=0, le=2),
        "kantorovich_bound": Column(float, "Largest distance that L and λ₂ allow.", ge=0, le=2),
    },
    keys=("family", "classes", "doubt"),
)

RELAXATION = schema(
    "relaxation",
    "Best k features of CASO found by enumeration, and by following λ₁ (App. E).",
    {
        "curvature": Column(float, "L/c₁.", gt=0),
        "instance": Column(int, "Which random problem.", ge=0),
        "size": Column(int, "Features k that may change.", ge=1),
        "condition": Column(float, "Condition number of 2λ₂I − H.", ge=1),
        "off_diagonal": Column(
            float, "Largest Σ|aᵢⱼ|/aᵢᵢ, j ≠ i, of A = 2λ₂I − H; below 1: A is diagonally dominant.", ge=0
        ),
        "restricted_eigenvalue": Column(
            float, "γ² of App. E, at least (λ₂ − L/2)/d, for c₁ = 1: positive always.", gt=0
        ),
        "supports": Column(int, "Supports enumerated.", ge=1),
        "optimum": Column(float, "Objective of the best support, λ₁ = 0.", ge=0),
        "met": Column(bool, "Whether the λ₁ path has a support of k features."),
        "same": Column(bool, "Whether the path has the best one."),
        "loss": Column(
            float, "1 − objective/optimum, refitted on the best support of the path with at most k features.",
            ge=0, le=1,
        ),
        "gradient_same": Column(bool, "Whether the k largest |gᵢ| (CAFO) are the best support."),
        "gradient_loss": Column(float, "The same loss for the k largest |gᵢ|.", ge=0, le=1),
    },
    keys=("curvature", "instance", "size"),
)  # fmt: skip

CONVERGENCE = schema(
    "convergence",
    "Distance of CASO's solvers from the exact solution after some iterations from Δ = 0.",
    {
        "curvature": Column(float, "Largest eigenvalue L of H; λ₂ = L/2 + c₁.", gt=0),
        "l1": Column(float, "λ₁ as a share of the largest |gᵢ|.", ge=0, lt=1),
        "instance": Column(int, "Which random problem.", ge=0),
        "method": Column(
            str,
            "`paper`: FISTA with backtracking, first step 0.1; `accelerated`: curvelens' solver; at λ₁ = 0 "
            "also `conjugate gradients` and the `closed form`.",
            isin=METHODS,
        ),
        "iterations": Column(int, "Most iterations allowed; 0 for the closed form.", ge=0),
        "made": Column(int, "Iterations made: fewer where the solution became exact.", ge=0),
        "seconds": Column(float, "Wall time of these iterations.", unit="s", ge=0),
        "error": Column(float, "‖Δ − Δ*‖/‖Δ*‖.", ge=0),
        "gap": Column(float, "Objective at Δ* less that at Δ; rounding may make it negative."),
        "printed_bound": Column(float, "Bound on gap of Corollary 1 as printed, α = λ₂ − L/2.", ge=0),
        "step_bound": Column(
            float, "The same with α = 1/(4λ₂), the least step that backtracking leaves.",
            ge=0,
        ),
        "exact_residual": Column(float, "Relative KKT residual of Δ*.", ge=0, le=1e-12),
    },
    keys=("curvature", "l1", "instance", "method", "iterations"),
)  # fmt: skip
