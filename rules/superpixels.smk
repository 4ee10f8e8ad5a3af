rule compute_superpixels:
    input:
        network=network,
        images=images("test"),
    output:
        table="results/superpixels/{experiment}/{shard}.parquet",
        arrays="results/superpixels/{experiment}/{shard}.npz",
    log:
        "results/logs/compute_superpixels/{experiment}/{shard}.log",
    benchmark:
        "results/benchmarks/compute_superpixels/{experiment}/{shard}.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(6000),
        runtime=growing(120),
        gpu=gpu,
    params:
        settings=section("superpixels"),
        shards=shard_count("superpixels"),
        seed=settings.seed,
        device=settings.device,
        code=lambda wildcards: program("compute_superpixels", model_code(model_of(wildcards))),
    message:
        "Sum interactions over super-pixels of {wildcards.experiment}, shard {wildcards.shard}"
    script:
        "../scripts/compute_superpixels.py"


rule gather_superpixels:
    input:
        shards=shard_files("results/superpixels/{experiment}/{shard}.parquet", "superpixels"),
    output:
        table="results/tables/{experiment}/superpixels.parquet",
        csv="results/tables/{experiment}/superpixels.csv",
    log:
        "results/logs/gather_superpixels/{experiment}.log",
    benchmark:
        "results/benchmarks/gather_superpixels/{experiment}.tsv"
    localrule: True
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        code=lambda wildcards: program("gather_superpixels"),
    message:
        "Gather the super-pixel interactions of {wildcards.experiment}"
    script:
        "../scripts/gather_superpixels.py"
