rule explain:
    input:
        network=network,
        images=images("test"),
    output:
        arrays="results/explanations/{experiment}/{method}/{shard}.npz",
        index="results/explanations/{experiment}/{method}/{shard}.parquet",
    log:
        "results/logs/explain/{experiment}/{method}/{shard}.log",
    benchmark:
        "results/benchmarks/explain/{experiment}/{method}/{shard}.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        images=lambda wildcards: settings.experiments[wildcards.experiment].explanations.images,
        scalar=lambda wildcards: settings.experiments[wildcards.experiment].explanations.scalar,
        parameters=lambda wildcards: settings.experiments[wildcards.experiment].explanations.methods[
            wildcards.method
        ],
        shards=shard_count("explanations"),
        seed=settings.seed,
        device=settings.device,
        code=lambda wildcards: library(
            "experiments.explanations",
            "models",
            registered(methods.REGISTRY, wildcards.method),
            model_code(model_of(wildcards)),
        ),
    message:
        "Explain {wildcards.experiment} by {wildcards.method}, shard {wildcards.shard}"
    script:
        "../scripts/explain.py"


rule gather_explanations:
    input:
        index=lambda wildcards: shard_files(
            "results/explanations/{experiment}/{method}/{shard}.parquet",
            "explanations",
            method=list(settings.experiments[wildcards.experiment].explanations.methods),
        )(wildcards),
    output:
        table="results/tables/{experiment}/explanations.parquet",
        csv="results/tables/{experiment}/explanations.csv",
    log:
        "results/logs/gather_explanations/{experiment}.log",
    benchmark:
        "results/benchmarks/gather_explanations/{experiment}.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        code=library("summaries.explanations"),
    message:
        "Gather the index of explanations of {wildcards.experiment}"
    script:
        "../scripts/gather_explanations.py"
