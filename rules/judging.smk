rule judge:
    input:
        network=network,
        images=images("test"),
        dataset=lambda wildcards: images("test")(wildcards).replace("test.npz", "dataset.json"),
        maps=lambda wildcards: explanation_files(wildcards.experiment, "npz"),
        index=lambda wildcards: explanation_files(wildcards.experiment, "parquet"),
    output:
        table="results/judging/{experiment}/{shard}.parquet",
        curves="results/judging/{experiment}/{shard}.curves.parquet",
        grids="results/judging/{experiment}/{shard}.npz",
    log:
        "results/logs/judge/{experiment}/{shard}.log",
    benchmark:
        "results/benchmarks/judge/{experiment}/{shard}.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(6000),
        runtime=growing(240),
        gpu=gpu,
    params:
        settings=section("judging"),
        explanations=lambda wildcards: explanation_settings(wildcards.experiment),
        shards=shard_count("judging"),
        seed=settings.seed,
        device=settings.device,
        code=lambda wildcards: program(
            "judge",
            *(registered(methods.REGISTRY, name) for name in explained_methods(wildcards.experiment)),
            model_code(model_of(wildcards)),
        ),
    message:
        "Judge the explanations of {wildcards.experiment}, shard {wildcards.shard}"
    script:
        "../scripts/judge.py"


rule gather_judgement:
    input:
        shards=shard_files("results/judging/{experiment}/{shard}.parquet", "judging"),
        curves=shard_files("results/judging/{experiment}/{shard}.curves.parquet", "judging"),
    output:
        images="results/tables/{experiment}/judgement_images.parquet",
        images_csv="results/tables/{experiment}/judgement_images.csv",
        summary="results/tables/{experiment}/judgement.parquet",
        summary_csv="results/tables/{experiment}/judgement.csv",
        curves="results/tables/{experiment}/judgement_curves.parquet",
        curves_csv="results/tables/{experiment}/judgement_curves.csv",
    log:
        "results/logs/gather_judgement/{experiment}.log",
    benchmark:
        "results/benchmarks/gather_judgement/{experiment}.tsv"
    localrule: True
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        seed=settings.seed,
        code=lambda wildcards: program("gather_judgement"),
    message:
        "Gather how the explanations of {wildcards.experiment} do"
    script:
        "../scripts/gather_judgement.py"
