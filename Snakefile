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
include: "rules/path.smk"
include: "rules/figures.smk"
include: "rules/report.smk"


localrules:
    all,
    data,
    models,
    explanations,
    spectra,
    distances,
    fidelity,
    attacks,
    path,
    figures,
    report,


rule all:
    default_target: True
    input:
        "results/report/index.html",
        "results/tables/failures.checked",


rule data:
    input:
        expand("results/data/{dataset}/dataset.json", dataset=settings.datasets),


rule models:
    input:
        expand("results/models/{model}/model.json", model=settings.models),


rule explanations:
    input:
        tables("explanations"),


rule spectra:
    input:
        tables("spectra"),


rule distances:
    input:
        tables("distances"),


rule fidelity:
    input:
        tables("fidelity"),


rule attacks:
    input:
        tables("attacks"),


rule path:
    input:
        [film_files(experiment) for experiment in settings.experiments],


rule figures:
    input:
        all_figures(),


rule report:
    input:
        "results/report/index.html",
