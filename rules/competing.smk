rule explain_competing:
    input:
        network=network,
        images=images("test"),
        info=lambda wildcards: described_set(wildcards)[1],
        scenes=lambda wildcards: described_set(wildcards, "scene_dataset")[0],
        scenes_info=lambda wildcards: described_set(wildcards, "scene_dataset")[1],
    output:
        table="results/tables/{experiment}/competing.parquet",
        csv="results/tables/{experiment}/competing.csv",
        arrays="results/competing/{experiment}/maps.npz",
    log:
        "results/logs/explain_competing/{experiment}.log",
    benchmark:
        "results/benchmarks/explain_competing/{experiment}.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(6000),
        runtime=growing(120),
        gpu=gpu,
    params:
        settings=section("competing"),
        seed=settings.seed,
        device=settings.device,
        code=lambda wildcards: program(
            "explain_competing",
            *(
                registered(methods.REGISTRY, method)
                for method in settings.experiments[wildcards.experiment].competing.methods
            ),
            model_code(model_of(wildcards)),
        ),
    message:
        "Explain competing classes of {wildcards.experiment}"
    script:
        "../scripts/explain_competing.py"
