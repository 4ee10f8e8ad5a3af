rule draw_chart:
    input:
        unpack(figure_inputs),
    output:
        page="results/figures/{experiment}/{figure}.svg",
        telephone="results/figures/{experiment}/{figure}.narrow.svg",
        texts="results/figures/{experiment}/{figure}.json",
    log:
        "results/logs/draw_chart/{experiment}/{figure}.log",
    benchmark:
        "results/benchmarks/draw_chart/{experiment}/{figure}.tsv"
    wildcard_constraints:
        figure=figures_with_suffix(".svg"),
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        code=lambda wildcards: library("figures", f"figures.{wildcards.figure}"),
    message:
        "Draw {wildcards.figure} of {wildcards.experiment}"
    script:
        "../scripts/draw_figure.py"


# Pictures of pixels, which a vector format would only make larger.
use rule draw_chart as draw_picture with:
    output:
        page="results/figures/{experiment}/{figure}.png",
        telephone="results/figures/{experiment}/{figure}.narrow.png",
        texts="results/figures/{experiment}/{figure}.json",
    log:
        "results/logs/draw_picture/{experiment}/{figure}.log",
    benchmark:
        "results/benchmarks/draw_picture/{experiment}/{figure}.tsv"
    wildcard_constraints:
        figure=figures_with_suffix(".png"),
