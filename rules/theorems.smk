rule measure_theorems:
    output:
        facts="results/tables/{study}/hessian_facts.parquet",
        facts_csv="results/tables/{study}/hessian_facts.csv",
        concavity="results/tables/{study}/concavity.parquet",
        concavity_csv="results/tables/{study}/concavity.csv",
        rank_one="results/tables/{study}/rank_one.parquet",
        rank_one_csv="results/tables/{study}/rank_one.csv",
        relaxation="results/tables/{study}/relaxation.parquet",
        relaxation_csv="results/tables/{study}/relaxation.csv",
        convergence="results/tables/{study}/convergence.parquet",
        convergence_csv="results/tables/{study}/convergence.csv",
    log:
        "results/logs/measure_theorems/{study}.log",
    benchmark:
        "results/benchmarks/measure_theorems/{study}.tsv"
    wildcard_constraints:
        study=studies_of("theorems"),
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
        gpu=gpu,
    params:
        settings=study,
        seed=settings.seed,
        device=settings.device,
        code=lambda wildcards: program("measure_theorems"),
    message:
        "Measure what theorems promise of Hessian, CASO and its solvers, {wildcards.study}"
    script:
        "../scripts/measure_theorems.py"
