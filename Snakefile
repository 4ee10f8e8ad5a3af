from snakemake.utils import min_version

min_version("9.20")


if not workflow.config_settings.configfiles:

    configfile: "config/config.yaml"


include: "rules/common.smk"
include: "rules/artifacts.smk"
include: "rules/data.smk"
include: "rules/models.smk"
include: "rules/explanations.smk"
include: "rules/spectra.smk"
include: "rules/distances.smk"
include: "rules/fidelity.smk"
include: "rules/attacks.smk"
include: "rules/trust.smk"
include: "rules/path.smk"
include: "rules/superpixels.smk"
include: "rules/sparsity.smk"
include: "rules/competing.smk"
include: "rules/evaluation.smk"
include: "rules/judging.smk"
include: "rules/complexity.smk"
include: "rules/interactions.smk"
include: "rules/theorems.smk"
include: "rules/spirometry.smk"
include: "rules/figures.smk"
include: "rules/report.smk"
include: "rules/manifest.smk"
include: "rules/targets.smk"


onstart:
    ready("results")


localrules:
    all,


rule all:
    default_target: True
    input:
        "results/report/index.html",
        "results/manifest.json",
        "results/tables/failures.checked",
