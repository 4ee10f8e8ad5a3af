rule compute_sparsity:
    input:
        network=network,
        images=images("test"),
    output:
        table="results/sparsity/{experiment}/{shard}.parquet",
        arrays="results/sparsity/{experiment}/{shard}.npz",
    log:
        "results/logs/compute_sparsity/{experiment}/{shard}.log",
    benchmark:
        "results/benchmarks/compute_sparsity/{experiment}/{shard}.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(6000),
        runtime=growing(120),
        gpu=gpu,
    params:
        settings=section("sparsity"),
        shards=shard_count("sparsity"),
        seed=settings.seed,
        device=settings.device,
        code=lambda wildcards: program("compute_sparsity", model_code(model_of(wildcards))),
    message:
        "Follow CAFO and CASO along lambda_1 on {wildcards.experiment}, shard {wildcards.shard}"
    script:
        "../scripts/compute_sparsity.py"


rule gather_sparsity:
    input:
        shards=shard_files("results/sparsity/{experiment}/{shard}.parquet", "sparsity"),
    output:
        table="results/tables/{experiment}/sparsity.parquet",
        csv="results/tables/{experiment}/sparsity.csv",
        summary="results/tables/{experiment}/sparsity_summary.parquet",
        summary_csv="results/tables/{experiment}/sparsity_summary.csv",
    log:
        "results/logs/gather_sparsity/{experiment}.log",
    benchmark:
        "results/benchmarks/gather_sparsity/{experiment}.tsv"
    localrule: True
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        code=lambda wildcards: program("gather_sparsity"),
    message:
        "Gather sparsity along lambda_1 of {wildcards.experiment}"
    script:
        "../scripts/gather_sparsity.py"
