"""Single stages by name: `snakemake --cores all spectra`."""


localrules:
    data,
    models,
    explanations,
    spectra,
    distances,
    fidelity,
    attacks,
    trust,
    path,
    superpixels,
    sparsity,
    competing,
    evaluation,
    judging,
    studies,
    figures,
    report,


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
        tables("spectra", "spectra", "spectra_sweep"),


rule distances:
    input:
        tables("distances"),


rule fidelity:
    input:
        tables("fidelity"),


rule attacks:
    input:
        tables("attacks"),


rule trust:
    input:
        tables("trust"),


rule path:
    input:
        [film_files(experiment) for experiment in settings.experiments],


rule superpixels:
    input:
        tables("superpixels"),


rule sparsity:
    input:
        tables("sparsity"),


rule competing:
    input:
        tables("competing"),


rule evaluation:
    input:
        tables("evaluation"),


rule judging:
    input:
        expand(
            "results/tables/{experiment}/judgement.parquet",
            experiment=experiments_with("judging"),
        ),


rule studies:
    input:
        all_study_tables(),


rule figures:
    input:
        all_figures(),


rule report:
    input:
        "results/report/index.html",
