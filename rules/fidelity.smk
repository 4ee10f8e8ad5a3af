rule choose_neuron:
    input:
        network=network,
        train=images("train"),
        info=lambda wildcards: images("train")(wildcards).replace("train.npz", "dataset.json"),
    output:
        "results/fidelity/{experiment}/neuron.json",
    log:
        "results/logs/choose_neuron/{experiment}.log",
    benchmark:
        "results/benchmarks/choose_neuron/{experiment}.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
        gpu=gpu,
    params:
        neuron_class=lambda wildcards: settings.experiments[wildcards.experiment].fidelity.neuron_class,
        device=settings.device,
        code=lambda wildcards: program("choose_neuron", model_code(model_of(wildcards))),
    message:
        "Choose the inner neuron of {wildcards.experiment}"
    script:
        "../scripts/choose_neuron.py"


rule compute_covariance:
    input:
        train="results/data/{dataset}/train.npz",
    output:
        "results/data/{dataset}/covariance/{covariance}.npz",
    log:
        "results/logs/compute_covariance/{dataset}/{covariance}.log",
    benchmark:
        "results/benchmarks/compute_covariance/{dataset}/{covariance}.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        code=lambda wildcards: program("compute_covariance"),
    message:
        "Compute the {wildcards.covariance} covariance of the training images of {wildcards.dataset}"
    script:
        "../scripts/compute_covariance.py"


rule measure_fidelity:
    input:
        network=network,
        images=images(None),
        neuron=inner_neuron,
        shapes=noise_shapes,
        # Parameters are chosen on validation images; test images are only reported on.
        choices=lambda wildcards: (
            f"results/fidelity/{wildcards.experiment}/choices.parquet" if wildcards.split == "test" else []
        ),
    output:
        "results/fidelity/{experiment}/{split}/{shard}.parquet",
    log:
        "results/logs/measure_fidelity/{experiment}/{split}/{shard}.log",
    benchmark:
        "results/benchmarks/measure_fidelity/{experiment}/{split}/{shard}.tsv"
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
        gpu=gpu,
    params:
        # Without what the other split alone needs: more test images leave the validation images' results alone.
        settings=lambda wildcards: settings.experiments[wildcards.experiment].fidelity.of_split(
            wildcards.split
        ),
        shards=shard_count("fidelity"),
        seed=settings.seed,
        device=settings.device,
        code=lambda wildcards: program("measure_fidelity", model_code(model_of(wildcards))),
    message:
        "Measure P_MSE on {wildcards.split} images of {wildcards.experiment}, shard {wildcards.shard}"
    script:
        "../scripts/measure_fidelity.py"


rule choose_fidelity:
    input:
        shards=shard_files("results/fidelity/{experiment}/validation/{shard}.parquet", "fidelity"),
    output:
        table="results/fidelity/{experiment}/choices.parquet",
        csv="results/fidelity/{experiment}/choices.csv",
    log:
        "results/logs/choose_fidelity/{experiment}.log",
    benchmark:
        "results/benchmarks/choose_fidelity/{experiment}.tsv"
    localrule: True
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        code=lambda wildcards: program("choose_fidelity"),
    message:
        "Choose the parameters of P_MSE on validation images of {wildcards.experiment}"
    script:
        "../scripts/choose_fidelity.py"


rule gather_fidelity:
    input:
        shards=shard_files("results/fidelity/{experiment}/test/{shard}.parquet", "fidelity"),
        choices="results/fidelity/{experiment}/choices.parquet",
    output:
        summary="results/tables/{experiment}/fidelity.parquet",
        summary_csv="results/tables/{experiment}/fidelity.csv",
        images="results/tables/{experiment}/fidelity_images.parquet",
        images_csv="results/tables/{experiment}/fidelity_images.csv",
    log:
        "results/logs/gather_fidelity/{experiment}.log",
    benchmark:
        "results/benchmarks/gather_fidelity/{experiment}.tsv"
    localrule: True
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        source=dataset_source,
        architecture=architecture,
        code=lambda wildcards: program("gather_fidelity"),
    message:
        "Gather the P_MSE table of {wildcards.experiment}"
    script:
        "../scripts/gather_fidelity.py"
