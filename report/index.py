# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% tags=["parameters"]
contents = {}

# %%
from curvelens.reporting import Report

report = Report(contents)

# %%
report.front()

# %% [markdown]
# ## How far may you believe this saliency map?
#
# A map is a prediction: change these pixels, and the score changes like that. The relative fidelity of a
# local model $q$ at radius $\varepsilon$ is the share of the score's mean squared change that it predicts,
#
# $$R^2(\varepsilon) = 1 - \frac{E_{\|\delta\| \leq \varepsilon} \left( q(\delta) - f(x+\delta) \right)^2}
#   {E_{\|\delta\| \leq \varepsilon} \left( f(x+\delta) - f(x) \right)^2}$$
#
# A model that predicts no change has fidelity 0, a perfect one 1. The trust radius is the largest
# $\varepsilon$ up to which the fidelity stays above a threshold. Beyond it, the map is about another
# neighbourhood than the one that is asked about.

# %%
report.show("trust", missing="This run did not measure trust radii (stage trust).")

# %%
report.trust()

# %% [markdown]
# ## How curved is the network?
#
# A saliency map is the slope $g = \nabla f(x)$ of a score $f$ at an image $x$: a local model of the network
# that is exact only where $f$ is a plane. What it leaves out, to second order, is the Hessian $H$ of $f$ with
# respect to the pixels:
#
# $$f(x+\delta) \approx f(x) + g^{\top}\delta + \tfrac{1}{2}\,\delta^{\top} H \delta$$
#
# A positive eigenvalue of $H$ is a direction in which the score bends up, a negative one a direction in which
# it bends down, and the slope changes by about $\|Hv\|$ for each unit moved along $v$. A ReLU network is
# piecewise linear: inside a linear region its Hessian is zero, and the slope changes only by jumps at the
# borders of regions. The same network with SoftPlus bends everywhere.

# %%
report.show(
    "spectra",
    "spectra_classes",
    "eigenvectors",
    "regions",
    "spectra_sharpness",
    missing="This run did not compute Hessian spectra (stage spectra).",
)

# %%
report.spectra()

# %% [markdown]
# ## Where does first order mislead?
#
# CAFO and CASO ask for the change of the image that raises the loss most, under a penalty on its size, with
# and without curvature ([Singla et al. 2019](https://arxiv.org/abs/1902.00407)):
#
# $$\max_{\Delta}\; g^{\top}\Delta + \tfrac{1}{2}\,\Delta^{\top} H \Delta - \lambda_2 \|\Delta\|^2$$
#
# CAFO drops $H$. Where both point the same way, the gradient was enough; the further apart they lie, the more
# a first-order map leaves out. The Hessian of the loss is known in closed form for a ReLU network and fades
# as the prediction becomes certain, so theory expects the two to part where the network is unsure.

# %%
report.show(
    "distances",
    "distance_examples",
    missing="This run did not compare CASO with CAFO (stage distances).",
)

# %%
report.distances()

# %%
report.curvature_forms()

# %% [markdown]
# ## How sparse should an explanation be, and in what units?
#
# A penalty on the sum of magnitudes makes an explanation sparse: the features left act as a group
# ([Singla et al. 2019](https://arxiv.org/abs/1902.00407), Sec. 4):
#
# $$\max_{\Delta}\; g^{\top}\Delta + \tfrac{1}{2}\,\Delta^{\top} H \Delta - \lambda_1 \|\Delta\|_1
#   - \lambda_2 \|\Delta\|_2^2$$
#
# The sparsity ratio $\eta$ is the share of pixels that are zero. The paper raises $\lambda_1$ tenfold from
# $10^{-5}$ until nothing is left and, of the solutions with $0.75 \leq \eta < 1$, takes the one whose
# perturbed image has the highest loss; if there is none, it halves the first $\lambda_1$ that left nothing.
# It finds the result less noisy than a gradient clipped to the same sparsity. With
# $\sum_G \sqrt{n_G}\,\|\Delta_G\|_2$ in place of $\|\Delta\|_1$ whole blocks $G$ of $n_G$ values are zero
# together: the channels of a pixel, a patch, a super-pixel.

# %%
report.show(
    "sparsity_path",
    "sparsity",
    "blocks",
    missing="This run did not follow explanations along their sparsity (stage sparsity).",
)

# %%
report.sparsity()

# %% [markdown]
# ## What do sparsity, curvature and noise do to a picture?
#
# In full, CAFO and CASO also pay $\lambda_1\|\Delta\|_1$, which sets most pixels to exactly zero; $\lambda_1$
# is chosen image by image by the share of zero pixels ([Singla et al.
# 2019](https://arxiv.org/abs/1902.00407), Sec. 4.1). SmoothCAFO and SmoothCASO average gradient and Hessian
# over noisy copies $z = x + \mathcal{N}(0, \sigma^2 I)$ of the image first:
#
# $$\max_{\Delta}\; \frac{1}{n}\sum_{z} \left( \nabla\ell(z)^{\top}\Delta
#   + \tfrac{1}{2}\,\Delta^{\top} H_z \Delta \right) - \lambda_1\|\Delta\|_1 - \lambda_2\|\Delta\|^2$$
#
# The paper shows its methods beside others and calls them visually more coherent (Fig. 4 and 11 to 16); it
# prints no number for that. Here the maps stand on its scale, and the caption says how far they agree.

# %%
report.show(
    "method_comparison",
    missing="This run stored no context-aware explanations (stage explanations, methods cafo and caso).",
)

# %%
report.context_aware()

# %% [markdown]
# ## Which local model is faithful at which radius?
#
# A local model that is asked about a whole neighbourhood should be right on average over it. The perturbation
# mean squared error is its mean squared error over the ball of radius $\varepsilon$ ([Torop et al.
# 2023](https://arxiv.org/abs/2311.00858)):
#
# $$P_{\mathrm{MSE}}(\varepsilon) = E_{\|\delta\| \leq \varepsilon}
#   \left( f(x) + g^{\top}\delta + \tfrac{1}{2}\,\delta^{\top} H \delta - f(x+\delta) \right)^2$$
#
# SmoothGrad (SG) and SmoothHess (SH) are slope and Hessian of the network averaged over Gaussian noise; SP
# replaces each ReLU by a SoftPlus after training, SW by Swish; G is the plain gradient. The paper draws the
# radius uniformly, which puts most points near the centre, while a point uniform in the ball lies near its
# surface. Both laws are reported; the paper's numbers compare with its own alone. The error scales with the
# square of a network's scores, so between two networks compare the ratios of methods, not the values.

# %%
report.show(
    "fidelity",
    "fidelity_ratios",
    missing="This run did not measure how faithful local models are (stage fidelity).",
)

# %%
report.fidelity()

# %% [markdown]
# ## Which attacks work?
#
# The step within $\varepsilon$ that lowers a local model of the predicted class's probability most is an
# attack on the network. For second-order models (H+G: Hessian and gradient of the probability itself) it is
# the exact solution of a trust-region problem. A local model that has seen how the network bends should
# change more predictions than one that has not.

# %%
report.show("attacks", "attack_gaps", missing="This run did not attack the network (stage attacks).")

# %%
report.attacks()

# %% [markdown]
# ## Does it find interactions that are known?
#
# A network of two features is trained on a target whose interactions are known, sums of quadratics that hold
# in a part of the plane each, and its Hessian at the origin is estimated at every level of smoothing ([Torop
# et al. 2023](https://arxiv.org/abs/2311.00858), Fig. 2 and 5). For such a target $y$ the Hessian of the
# smoothed function is known exactly, $z$ standard normal:
#
# $$\nabla^2 (y * \mathcal{N}(0, \sigma^2 I))(0) = E\; y(\sigma z)\,\frac{z z^{\top} - I}{\sigma^2}$$
#
# Jumps and creases of the target count in it: an interaction that no piece of the target has may still be
# there at some level of smoothing.

# %%
report.show(
    "interactions",
    "smoothed_surface",
    missing="This run did not measure interactions that are known (no study of kind interactions).",
)

# %%
report.interactions()

# %% [markdown]
# ## Which parts of an image act together?
#
# The Hessian says how pairs of pixels act together: $H_{ij}$ is by how much the slope along pixel $j$ changes
# as pixel $i$ gets brighter. Summed over two regions $A$ and $B$ of the image it is an interaction of the
# regions ([Torop et al. 2023](https://arxiv.org/abs/2311.00858), Fig. 6):
#
# $$I_{AB} = \sum_{i \in A} \sum_{j \in B} H_{ij} = s_A^{\top} H s_B$$
#
# with $s_A$ the indicator of the region, so that one Hessian-vector product a region is enough and no Hessian
# is ever formed. The regions are super-pixels found by SLIC.

# %%
report.show("superpixels", missing="This run summed no interactions over super-pixels (stage superpixels).")

# %%
report.superpixels()

# %% [markdown]
# ## How many gradient calls does a Hessian need?
#
# SmoothHess is an average over random directions, so its error shrinks with the number of gradient calls. For
# its estimator as printed, with $n$ calls in $d$ dimensions ([Torop et al.
# 2023](https://arxiv.org/abs/2311.00858), Theorem 1), with probability $1-\gamma$
#
# $$\|\hat H_n - H\|_2 \leq \varepsilon \quad\text{for}\quad
#   n \geq \frac{4}{\varepsilon^2}\left(C\sqrt{d} + \sqrt{\tfrac{1}{c}\log\tfrac{4}{\gamma}}\right)^2$$
#
# so the error falls as $n^{-1/2}$, with constants that the theorem leaves open. They are what matters in
# practice, and they depend on the estimator. Here they are measured on functions whose smoothed Hessian is
# known in closed form.

# %%
report.show("complexity", missing="This run did not measure sample complexity (no study of kind complexity).")

# %%
report.complexity()

# %% [markdown]
# ## What theory promises, measured
#
# For a piecewise-linear classifier with class probabilities $p$ and the gradients of the logits as columns of
# $W$, the Hessian of the loss is $H = W\,(\mathrm{diag}\,p - pp^{\top})\,W^{\top}$ ([Singla et al.
# 2019](https://arxiv.org/abs/1902.00407), Proposition 1). The paper proves that it has no negative
# eigenvalue, that CASO is strongly concave for $\lambda_2 > L/2$, $L$ being the largest one, and that in the
# limit of many classes and a certain prediction $H \approx gg^{\top}/(1 - p)$, so that CASO and CAFO agree.
# It solves CASO by ten steps of FISTA, and chooses features by $\lambda_1\|\Delta\|_1$ instead of their
# number. Each promise is put to problems where the truth is known.

# %%
report.theorems()

# %%
report.show(
    "rank_one",
    "relaxation",
    "convergence",
    missing="This run put no theorems to the test (no study of kind theorems).",
)

# ## Where does a network look on a curve?
#
# A spirometer records the volume that a patient blows out against time; FEV1, the volume of the first
# second, is the common measure of lung function. A cough makes an effort worthless for reading it off.
# [Torop et al. (2023)](https://arxiv.org/abs/2311.00858) train a one-dimensional network to predict it all
# the same, and ask with SmoothGrad and SmoothHess which half seconds it draws on and which of them interact.
# Their curves are not public: **those here are simulated**, from a model of emptying lungs with coughs that
# stop the flow (the method notes have its formula), but for curves that are called recorded.

# %%
report.show(
    "spirometry_predictions",
    "spirometry",
    "spirometry_interactions",
    missing="This run did not explain exhalation curves (no study of kind spirometry).",
)

# %%
report.spirometry()

# %% [markdown]
# ## What do the explanations look like?

# %%
report.show("explanations", missing="This run stored no explanations (stage explanations).")

# %%
report.gallery()

# %%
report.shared_calls()

# %% [markdown]
# ## Which explanation does what it promises?
#
# A map that looks right may still be wrong. Four questions have answers in numbers. Does it point at the
# object, where the object's pixels are known? In a grid of images of different classes the cell of the
# explained class is known for certain ([Böhle et al. 2021](https://arxiv.org/abs/2104.00032)). Does the
# network react as the map says? Its most important pixels are deleted, or inserted into a blurred image
# ([Petsiuk et al. 2018](https://arxiv.org/abs/1806.07421)), and a map $s$ that is a slope is held against how
# the loss changes nearby:
#
# $$P_{\mathrm{MSE}}(\varepsilon) = E_{\|\delta\| \leq \varepsilon}
#   \left( a\, s^{\top}\delta - \left( L(x+\delta) - L(x) \right) \right)^2$$
#
# with the factor $a$ that suits the map best, chosen on other perturbations; “unexplained” is its ratio to
# the mean squared change of the loss. Does it stay when noise is added that nobody sees ([Yeh et al.
# 2019](https://arxiv.org/abs/1901.09392))? And does it change when the weights are randomised ([Adebayo et
# al. 2018](https://arxiv.org/abs/1810.03292))? A map that does not is not about the network.

# %%
report.show(
    "judging", "removal_curves", "grids", missing="This run did not judge explanations (stage judging)."
)

# %%
report.judgement()

# %% [markdown]
# ## Why was it taken for another class, and where does each class look?
#
# An explanation answers the question of one class. Where a network errs, its map of the predicted class and
# that of the true one can be laid side by side; on a picture that shows both, each class should rest on its
# own object. How far two maps agree is a number: their cosine, the correlation of their ranks, and the
# intersection over union of the regions $A$ and $B$ in which they are largest, $|A \cap B| / |A \cup B|$.

# %%
report.show(
    "competing_mistakes",
    "competing_scenes",
    missing="This run did not explain two classes on one image (stage competing).",
)

# %%
report.competing()

# %% [markdown]
# ## How do explanations change from one class to another?
#
# A saliency map is local; a path is not. On the straight line $x(t) = (1-t)\,x_0 + t\,x_1$ between two
# images of different classes each explanation is computed anew, of the class predicted there. With $u$ the
# line's unit direction, the score changes along it by its slope $u^{\top} g$, and the slope by the curvature
# $u^{\top} H u$: where it is large, or where the slope jumps at the border of a linear region, the map of one
# point says little about the next.

# %%
report.films(missing="This run did not film a path between two classes (stage path).")

# %% [markdown]
# ## Which networks, on which images?

# %%
report.networks()

# %%
report.show("training", missing="This run trained no network: the weights were given.")

# %% [markdown]
# A network that is sure should be right: the probability it gives its prediction should be the share of such
# predictions that come true. Explanations of a network that errs are read differently from those of one that
# does not.

# %%
report.show("evaluation", missing="This run did not test how well a network classifies (stage evaluation).")

# %%
report.evaluation()

# %%
report.data()

# %% [markdown]
# ## How was this computed?
#
# Every number above comes from a table of this run. Random numbers derive from the seed, the image and the
# purpose, never from the order of work, so the same configuration gives the same numbers whatever the number
# of cores.

# %%
report.machine()

# %% [markdown]
# ## What failed?

# %%
report.failures()
