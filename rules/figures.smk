rule draw_chart:
    input:
        unpack(figure_inputs),
    output:
        page="results/figures/{subject}/{figure}.svg",
        telephone="results/figures/{subject}/{figure}.narrow.svg",
        texts="results/figures/{subject}/{figure}.json",
    log:
        "results/logs/draw_chart/{subject}/{figure}.log",
    benchmark:
        "results/benchmarks/draw_chart/{subject}/{figure}.tsv"
    wildcard_constraints:
        figure=figures_with_suffix(".svg"),
    localrule: True
    conda:
        "../envs/curvelens.yaml"
    threads: 1
    params:
        code=lambda wildcards: program("draw_figure", f"figures.{wildcards.figure}"),
    message:
        "Draw {wildcards.figure} of {wildcards.subject}"
    script:
        "../scripts/draw_figure.py"


# Pictures of pixels, which a vector format would only make larger.
use rule draw_chart as draw_picture with:
    output:
        page="results/figures/{subject}/{figure}.png",
        telephone="results/figures/{subject}/{figure}.narrow.png",
        texts="results/figures/{subject}/{figure}.json",
    log:
        "results/logs/draw_picture/{subject}/{figure}.log",
    benchmark:
        "results/benchmarks/draw_picture/{subject}/{figure}.tsv"
    wildcard_constraints:
        figure=figures_with_suffix(".png"),
    localrule: True
