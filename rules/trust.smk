rule measure_trust:
    input:
        network=network,
        # Parameters are chosen on validation images; both splits go through one job, which is short.
        validation=images("validation"),
        test=images("test"),
    output:
        "results/trust/{experiment}/{shard}.parquet",
    log:
        "results/logs/measure_trust/{experiment}/{shard}.log",
    benchmark:
        "results/benchmarks/measure_trust/{experiment}/{shard}.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
        gpu=gpu,
    params:
        settings=section("trust"),
        shards=shard_count("trust"),
        seed=settings.seed,
        device=settings.device,
        code=lambda wildcards: library("experiments.trust", "models", model_code(model_of(wildcards))),
    message:
        "Measure how far local models of {wildcards.experiment} may be believed, shard {wildcards.shard}"
    script:
        "../scripts/measure_trust.py"


rule gather_trust:
    input:
        shards=shard_files("results/trust/{experiment}/{shard}.parquet", "trust"),
    output:
        summary="results/tables/{experiment}/trust.parquet",
        summary_csv="results/tables/{experiment}/trust.csv",
        images="results/tables/{experiment}/trust_images.parquet",
        images_csv="results/tables/{experiment}/trust_images.csv",
    log:
        "results/logs/gather_trust/{experiment}.log",
    benchmark:
        "results/benchmarks/gather_trust/{experiment}.tsv"
    localrule: True
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        code=lambda wildcards: library("summaries.trust"),
    message:
        "Gather the trust radii of {wildcards.experiment}"
    script:
        "../scripts/gather_trust.py"
