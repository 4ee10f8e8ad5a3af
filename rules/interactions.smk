rule train_interactions:
    output:
        weights="results/networks/{study}/weights.safetensors",
        info="results/networks/{study}/model.json",
        history="results/networks/{study}/history.parquet",
    log:
        "results/logs/train_interactions/{study}.log",
    benchmark:
        "results/benchmarks/train_interactions/{study}.tsv"
    wildcard_constraints:
        study=studies_of("interactions"),
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
        gpu=gpu,
    params:
        settings=study_keys("target", "spacing", "hidden", "training"),
        seed=settings.seed,
        device=settings.device,
        # Not an output: Snakemake deletes the outputs of an interrupted job, and training resumes from this file.
        checkpoint=subpath(output.weights, strip_suffix="weights.safetensors", with_suffix="checkpoint.pt"),
        code=lambda wildcards: program("train_interactions", "models.regression_mlp"),
    message:
        "Train the network of {wildcards.study} on a target whose interactions are known"
    script:
        "../scripts/train_interactions.py"


rule measure_interactions:
    input:
        weights="results/networks/{study}/weights.safetensors",
        info="results/networks/{study}/model.json",
    output:
        table="results/tables/{study}/interactions.parquet",
        csv="results/tables/{study}/interactions.csv",
        summary="results/tables/{study}/interactions_summary.parquet",
        summary_csv="results/tables/{study}/interactions_summary.csv",
        network="results/tables/{study}/interactions_network.parquet",
        network_csv="results/tables/{study}/interactions_network.csv",
        surface="results/tables/{study}/interactions_surface.parquet",
        surface_csv="results/tables/{study}/interactions_surface.csv",
    log:
        "results/logs/measure_interactions/{study}.log",
    benchmark:
        "results/benchmarks/measure_interactions/{study}.tsv"
    wildcard_constraints:
        study=studies_of("interactions"),
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
        gpu=gpu,
    params:
        settings=study_keys("sigma_squared", "betas", "levels", "calls", "repeats", "estimator"),
        target=study_keys("target"),
        summary=study_keys("tolerance"),
        surface=study_keys("surface_sigma_squared", "surface_points"),
        seed=settings.seed,
        device=settings.device,
        code=lambda wildcards: program("measure_interactions", "models.regression_mlp"),
    message:
        "Measure the interactions of {wildcards.study} at every level of smoothing"
    script:
        "../scripts/measure_interactions.py"
