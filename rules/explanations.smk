# Methods share gradient calls, so one job computes them all. Which there are, and so its files, is a matter of the
# experiment: each has a rule of its own.
for experiment in experiments_with("explanations"):
    model = settings.experiments[experiment].model
    explanations = settings.experiments[experiment].explanations
    stored = expand(
        "results/explanations/{experiment}/{method}/{{shard}}",
        experiment=experiment,
        method=explained_methods(experiment),
    )

    rule:
        name:
            f"explain_{experiment}"
        input:
            network=expand(
                "results/models/{model}/{file}", model=model, file=["model.json", "weights.safetensors"]
            ),
            images=f"results/data/{settings.models[model].dataset}/test.npz",
        output:
            arrays=[f"{name}.npz" for name in stored],
            index=[f"{name}.parquet" for name in stored],
        log:
            f"results/logs/explain/{experiment}/{{shard}}.log",
        benchmark:
            f"results/benchmarks/explain/{experiment}/{{shard}}.tsv"
        conda:
            "../envs/curvelens.yaml"
        threads: 1
        resources:
            mem_mb=growing(4000),
            runtime=growing(60),
            gpu=gpu,
        params:
            settings=explanation_settings(experiment),
            shards=explanations.shards,
            seed=settings.seed,
            device=settings.device,
            # Named, because the loop goes on before this is called.
            code=lambda wildcards, experiment=experiment, model=model: program(
                "explain",
                *(registered(methods.REGISTRY, method) for method in explained_methods(experiment)),
                model_code(model),
            ),
        message:
            f"Explain {experiment}, shard {{wildcards.shard}}"
        script:
            "../scripts/explain.py"


rule gather_explanations:
    input:
        index=lambda wildcards: shard_files(
            "results/explanations/{experiment}/{method}/{shard}.parquet",
            "explanations",
            method=explained_methods(wildcards.experiment),
        )(wildcards),
    output:
        table="results/tables/{experiment}/explanations.parquet",
        csv="results/tables/{experiment}/explanations.csv",
        shared="results/tables/{experiment}/shared_calls.parquet",
        shared_csv="results/tables/{experiment}/shared_calls.csv",
    log:
        "results/logs/gather_explanations/{experiment}.log",
    benchmark:
        "results/benchmarks/gather_explanations/{experiment}.tsv"
    localrule: True
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        code=lambda wildcards: program("gather_explanations"),
    message:
        "Gather the index of explanations of {wildcards.experiment}"
    script:
        "../scripts/gather_explanations.py"


rule compare_maps:
    input:
        index="results/tables/{experiment}/explanations.parquet",
        maps=lambda wildcards: explanation_files(wildcards.experiment, "npz"),
    output:
        context_aware="results/tables/{experiment}/context_aware.parquet",
        context_aware_csv="results/tables/{experiment}/context_aware.csv",
        map_agreement="results/tables/{experiment}/map_agreement.parquet",
        map_agreement_csv="results/tables/{experiment}/map_agreement.csv",
    log:
        "results/logs/compare_maps/{experiment}.log",
    benchmark:
        "results/benchmarks/compare_maps/{experiment}.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        code=lambda wildcards: program("compare_maps"),
    message:
        "Compare the maps of all methods of {wildcards.experiment}"
    script:
        "../scripts/compare_maps.py"
