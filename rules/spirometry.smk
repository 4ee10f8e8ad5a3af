rule make_curves:
    input:
        recorded=recorded_curves,
    output:
        curves="results/studies/{study}/curves.npz",
        table="results/tables/{study}/spirometry_curves.parquet",
        csv="results/tables/{study}/spirometry_curves.csv",
    log:
        "results/logs/make_curves/{study}.log",
    benchmark:
        "results/benchmarks/make_curves/{study}.tsv"
    wildcard_constraints:
        study=studies_of("spirometry"),
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        settings=study,
        own_curves=lambda wildcards: contents(recorded_curves(wildcards)),
        seed=settings.seed,
        code=lambda wildcards: program("make_curves"),
    message:
        "Simulate exhalation curves, {wildcards.study}"
    script:
        "../scripts/make_curves.py"


rule train_on_curves:
    input:
        curves="results/studies/{study}/curves.npz",
    output:
        weights="results/studies/{study}/{kernels}/weights.safetensors",
        info="results/studies/{study}/{kernels}/model.json",
        history="results/studies/{study}/{kernels}/history.parquet",
    log:
        "results/logs/train_on_curves/{study}/{kernels}.log",
    benchmark:
        "results/benchmarks/train_on_curves/{study}/{kernels}.tsv"
    wildcard_constraints:
        study=studies_of("spirometry"),
        kernels="wide|narrow",
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(600),
        gpu=gpu,
    params:
        settings=study,
        seed=settings.seed,
        device=settings.device,
        # Not an output: Snakemake deletes the outputs of an interrupted job, and training resumes from this file.
        checkpoint=subpath(output.weights, strip_suffix="weights.safetensors", with_suffix="checkpoint.pt"),
        code=lambda wildcards: program("train_on_curves", "models.residual_cnn_1d"),
    message:
        "Train the network with {wildcards.kernels} kernels, {wildcards.study}"
    script:
        "../scripts/train_on_curves.py"


rule explain_curves:
    input:
        curves="results/studies/{study}/curves.npz",
        weights="results/studies/{study}/{kernels}/weights.safetensors",
        info="results/studies/{study}/{kernels}/model.json",
    output:
        predictions="results/studies/{study}/{kernels}/predictions.parquet",
        explanations="results/studies/{study}/{kernels}/explanations.parquet",
        intervals="results/studies/{study}/{kernels}/intervals.parquet",
        interactions="results/studies/{study}/{kernels}/interactions.parquet",
        samples="results/studies/{study}/{kernels}/samples.parquet",
    log:
        "results/logs/explain_curves/{study}/{kernels}.log",
    benchmark:
        "results/benchmarks/explain_curves/{study}/{kernels}.tsv"
    wildcard_constraints:
        study=studies_of("spirometry"),
        kernels="wide|narrow",
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
        gpu=gpu,
    params:
        settings=study,
        seed=settings.seed,
        device=settings.device,
        code=lambda wildcards: program("explain_curves", "models.residual_cnn_1d"),
    message:
        "Explain FEV1 by the network with {wildcards.kernels} kernels, {wildcards.study}"
    script:
        "../scripts/explain_curves.py"


rule gather_curves:
    input:
        curves="results/tables/{study}/spirometry_curves.parquet",
        info=expand("results/studies/{{study}}/{kernels}/model.json", kernels=["wide", "narrow"]),
        parts=expand(
            "results/studies/{{study}}/{kernels}/{part}.parquet",
            kernels=["wide", "narrow"],
            part=["predictions", "explanations", "intervals", "interactions", "samples"],
        ),
    output:
        networks="results/tables/{study}/spirometry_networks.parquet",
        networks_csv="results/tables/{study}/spirometry_networks.csv",
        predictions="results/tables/{study}/spirometry_predictions.parquet",
        predictions_csv="results/tables/{study}/spirometry_predictions.csv",
        explanations="results/tables/{study}/spirometry_explanations.parquet",
        explanations_csv="results/tables/{study}/spirometry_explanations.csv",
        intervals="results/tables/{study}/spirometry_intervals.parquet",
        intervals_csv="results/tables/{study}/spirometry_intervals.csv",
        interactions="results/tables/{study}/spirometry_interactions.parquet",
        interactions_csv="results/tables/{study}/spirometry_interactions.csv",
        samples="results/tables/{study}/spirometry_samples.parquet",
        samples_csv="results/tables/{study}/spirometry_samples.csv",
    log:
        "results/logs/gather_curves/{study}.log",
    benchmark:
        "results/benchmarks/gather_curves/{study}.tsv"
    wildcard_constraints:
        study=studies_of("spirometry"),
    localrule: True
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        code=lambda wildcards: program("gather_curves"),
    message:
        "Gather the tables of {wildcards.study}"
    script:
        "../scripts/gather_curves.py"
