"""From the graph of an exported program to a recipe: plain operations, one after the other, on named values.

A recipe is JSON and is stored beside the weights, so that nothing of the original file is needed later:

    {"input": "x", "output": "linear", "batch": null, "shape": [1, 8, 8],
     "tensors": {"p_fc_weight": "fc.weight", ...}, "parameters": ["p_fc_weight", ...], "ranks": {"x": 4, ...},
     "steps": [{"op": "aten.linear.default", "args": [{"$": "x"}, {"$": "p_fc_weight"}], "out": ["linear"]}]}

Operations that write into their argument become those that return a new value. ``batch`` is the number of
images that the program was made for, null where that is left open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from curvelens.errors import ModelError
from curvelens.models._archive import dtype_name

_FUNCTIONAL = "export it as torch.export.export(model.eval(), (images,)).run_decompositions({})"
_NOTHING = {  # checks of what is known, and effects on memory alone
    *("aten._assert_tensor_metadata.default", "aten._assert_scalar.default"),
    *("aten.sym_constrain_range_for_size.default", "aten.sym_constrain_range.default"),
    *("aten._assert_async.msg", "_operator.le", "_operator.ge", "_operator.eq", "_operator.lt"),
}
_RETURNS_ITS_INPUT = {"aten.dropout.default", "aten.feature_dropout.default", "aten.alpha_dropout.default"}
_SIZED = {"view", "reshape", "_unsafe_view", "expand"}
_LITERALS = (
    *("as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_string", "as_int_lists"),
    *("as_strings", "as_float_lists"),
)


def recipe(graph_module: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe of a program.

    Args:
        graph_module: ``GraphModule`` in torch's schema.

    Raises:
        ModelError: The program takes or gives something else than one batch of images and its logits, was
            exported while training, or writes into values that it still needs.
    """
    graph, signature = graph_module["graph"], graph_module["signature"]
    tensors, parameters, images = _inputs(signature["input_specs"])
    output = _output(signature["output_specs"])
    sizes = graph["tensor_values"][images]["sizes"]
    if len(sizes) != 4:
        raise ModelError(
            f"the program takes an input of {len(sizes)} axes; export a network that takes images "
            "[batch, channels, height, width]"
        )
    batch, *shape = [size.get("as_int") for size in sizes]  # None where any size will do
    steps = list(_steps(graph["nodes"]))
    steps, renamed = _without_writing(steps, set(tensors))
    ranks = {name: len(meta["sizes"]) for name, meta in graph["tensor_values"].items()}
    return {
        "input": images,
        "output": renamed.get(output, output),
        "batch": batch,
        "shape": shape,
        "tensors": tensors,
        "parameters": [name for name in tensors if name in parameters],
        "ranks": ranks,
        "steps": steps,
    }


def with_open_batch(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe for a fixed number of images as one for any number.

    Where that number is the first size that values are brought to, it becomes the number of images at hand.
    Whether the result is the same has to be tried.
    """
    count = {"$": "number of images"}

    def opened(step: Mapping[str, Any]) -> dict[str, Any]:
        op, args = step["op"].split(".")[1], step["args"]
        if op not in _SIZED or len(args) < 2 or not args[1] or args[1][0] != recipe["batch"]:
            return dict(step)
        return {**step, "args": [args[0], [count, *args[1][1:]], *args[2:]]}

    steps = [opened(step) for step in recipe["steps"]]
    if any(count["$"] in references(step["args"]) for step in steps):
        size = {"op": "aten.sym_size.int", "args": [{"$": recipe["input"]}, 0], "kwargs": {}}
        steps.insert(0, {**size, "out": [count["$"]]})
    return {**recipe, "batch": None, "steps": steps}


def _inputs(specs: list[dict[str, Any]]) -> tuple[dict[str, str], set[str], str]:
    """Return the tensors that a graph starts from, by the names they have there, and its other input's name.

    The second result says which of the tensors are parameters.
    """
    tensors: dict[str, str] = {}
    parameters: set[str] = set()
    images: list[str] = []
    keys = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}
    for spec in specs:
        ((kind, content),) = spec.items()
        if kind in keys:
            tensors[content["arg"]["name"]] = content[keys[kind]]
            parameters |= {content["arg"]["name"]} if kind == "parameter" else set()
        elif kind == "user_input" and "as_tensor" in content["arg"]:
            images.append(content["arg"]["as_tensor"]["name"])
        elif kind != "constant_input" or "as_none" not in content["value"]:
            raise ModelError(
                f"the program takes an input of the kind {kind}; export a network that takes images only"
            )
    if len(images) != 1:
        raise ModelError(
            f"the program takes {len(images)} tensors; export a network that takes one batch of images"
        )
    return tensors, parameters, images[0]


def _output(specs: list[dict[str, Any]]) -> str:
    kinds = [next(iter(spec)) for spec in specs]
    if any(kind.endswith("_mutation") for kind in kinds):
        raise ModelError(
            "the program changes its own buffers, as a network in training does; call model.eval() before "
            "torch.export.export"
        )
    arguments = [spec["user_output"]["arg"] for spec in specs if "user_output" in spec]
    if len(arguments) != 1 or "as_tensor" not in arguments[0]:
        raise ModelError(
            f"the program gives {len(arguments)} results; export a network that gives one tensor of logits"
        )
    return str(arguments[0]["as_tensor"]["name"])


def _steps(nodes: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for node in nodes:
        op = str(node["target"]).removeprefix("torch.ops.")
        if op in _NOTHING:
            continue
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for given in node["inputs"]:
            value = _argument(op, given["arg"])
            if given.get("kind") == 2:
                kwargs[given["name"]] = value
            else:
                args.append(value)
        yield {"op": op, "args": args, "kwargs": kwargs, "out": _names(op, node["outputs"])}


def _argument(op: str, argument: Mapping[str, Any]) -> Any:
    """Return an argument as plain JSON; values are references ``{"$": name}``."""
    ((kind, value),) = argument.items()
    if kind in ("as_none", "as_memory_format", "as_layout", "as_device"):
        return None  # where and how numbers lie in memory follows the images
    if kind in _LITERALS:
        return value
    if kind in ("as_tensor", "as_sym_int", "as_sym_float", "as_sym_bool", "as_optional_tensor"):
        return _reference(value)
    if kind in ("as_tensors", "as_sym_ints", "as_sym_floats", "as_sym_bools", "as_optional_tensors"):
        return [_reference(one) for one in value]
    if kind == "as_scalar_type":
        return {"dtype": dtype_name(value)}
    raise ModelError(
        f"operation {op} takes {kind.removeprefix('as_')}, which is not supported; leave control flow, "
        "nested graphs and custom objects out of the network"
    )


def _reference(value: Mapping[str, Any]) -> Any:
    if "as_none" in value:
        return None
    if "as_tensor" in value:
        value = value["as_tensor"]
    for literal in ("as_int", "as_float", "as_bool"):
        if literal in value:
            return value[literal]
    return {"$": str(value.get("as_name", value.get("name")))}


def _names(op: str, outputs: list[dict[str, Any]]) -> list[str | None]:
    """Return the names of an operation's results."""
    names: list[str | None] = []
    for output in outputs:
        ((kind, value),) = output.items()
        if kind == "as_none":
            names.append(None)
        elif kind == "as_tensors":
            names.extend(str(one["name"]) for one in value)
        elif isinstance(value, dict) and ("name" in value or "as_name" in value):
            names.append(str(value.get("as_name", value.get("name"))))
        else:
            raise ModelError(f"operation {op} gives {kind.removeprefix('as_')}, which is not supported")
    return names


def references(value: Any) -> Iterator[str]:
    """Yield the names that an argument, or several, refer to."""
    if isinstance(value, dict):
        if "$" in value:
            yield value["$"]
        else:
            for one in value.values():
                yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def _replaced(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: names.get(one, one) if key == "$" else _replaced(one, names) for key, one in value.items()
        }
    return [_replaced(one, names) for one in value] if isinstance(value, list) else value


def _without_writing(
    steps: list[dict[str, Any]], constants: set[str]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Turn operations that write into their first argument into those that return a new value.

    Raises:
        ModelError: Another value shares memory with the one written to and is used afterwards, or it is a
            parameter or buffer.
    """
    last_use = {
        name: i for i, step in enumerate(steps) for name in references([step["args"], step["kwargs"]])
    }
    home: dict[str, str] = {}  # the value in whose memory another one lies
    renamed: dict[str, str] = {}
    made: list[dict[str, Any]] = []
    for index, step in enumerate(steps):
        op = step["op"]
        first = next(iter(references(step["args"][:1])), None)
        writes = op.partition(".")[2].partition(".")[0].endswith("_") and op.startswith("aten.")
        if first is not None and (writes or _may_share(op)):
            for name in step["out"]:
                home[name] = home.get(first, first)
        new = {**step, **_replaced({"args": step["args"], "kwargs": step["kwargs"]}, renamed)}
        if writes and first is None:
            raise ModelError(f"operation {op} writes into nothing; export the network again")
        if writes and first is not None:
            now = renamed.get(first, first)
            same = {first, now, *(old for old, one in renamed.items() if one == now)}
            place = home.get(first, first)
            others = {name for name in (place, *home) if home.get(name, name) == place}
            needed = [name for name in others - same - {*step["out"]} if last_use.get(name, -1) > index]
            if place in constants:
                raise ModelError(
                    f"the program changes its own {place}, as a network in training does; call model.eval() "
                    "before torch.export.export"
                )
            if needed:
                raise ModelError(
                    f"operation {op} writes into {first}, which the program still needs under another name; "
                    f"{_FUNCTIONAL}"
                )
            namespace, name, overload = op.split(".")
            new["op"] = f"{namespace}.{name[:-1]}.{overload}"
            renamed |= dict.fromkeys(same, step["out"][0])
        made.append(new)
    return made, renamed


def _may_share(op: str) -> bool:
    """Whether an operation's result may lie in the memory of its first argument."""
    import torch

    if op in _RETURNS_ITS_INPUT or not op.startswith("aten."):
        return True
    _, name, overload = [*op.split("."), "default"][:3]
    found = getattr(getattr(torch.ops.aten, name, None), overload, None)
    returns = found._schema.returns if found is not None else []
    return found is None or any(result.alias_info is not None for result in returns)
