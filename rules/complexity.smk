rule measure_complexity:
    output:
        errors="results/tables/{study}/complexity.parquet",
        errors_csv="results/tables/{study}/complexity.csv",
        rates="results/tables/{study}/complexity_rates.parquet",
        rates_csv="results/tables/{study}/complexity_rates.csv",
    log:
        "results/logs/measure_complexity/{study}.log",
    benchmark:
        "results/benchmarks/measure_complexity/{study}.tsv"
    wildcard_constraints:
        study=studies_of("complexity"),
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
        code=lambda wildcards: program("measure_complexity"),
    message:
        "Measure how many gradient calls a smoothed Hessian needs, {wildcards.study}"
    script:
        "../scripts/measure_complexity.py"
