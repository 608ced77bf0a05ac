"""CompilationRuleSparse: two 1x1 convolutions with a stride read a residual sum, so the sum is made sparse itself.

The stride moves up to the last larger convolution before the sum, and a pooling thins the residual out. What the two
convolutions make is the same; it is not where other layers read the sum as well, or where its inputs come in the other
order, which the rule does not check. Here the values keep the shapes of the prototxt, and the trouble is reported.
"""

from collections.abc import Iterator, Mapping, Sequence

from distcalib.caffe.steps import Layer, Step, Trouble

_SPELLING = "write stride_h and stride_w in place of stride in the 1x1 convolutions, which the rule does not look for"


def move_strides(steps: list[Step]) -> tuple[list[Step], list[Trouble]]:
    """The steps with a pooling where the rule puts one, and what it breaks."""
    pooled: dict[int, str] = {}
    troubles: list[Trouble] = []
    makers = {top: step for step in steps for top in step.tops}
    last_reader = {bottom: step for step in steps for bottom in step.bottoms}
    place = {step.name: i for i, step in enumerate(steps)}
    triggers_of = _triggers_of(steps)
    for name in sorted(triggers_of):
        triggers = triggers_of[name]
        if len(triggers) < 2:
            break
        begin, end = place[name], place[triggers[0].name]
        strides = {step.layer.convolution_param.stride[0] for step in triggers[:2]}
        sums = sorted((step.name, i) for i, step in enumerate(steps) if step.type == "Eltwise" and begin < i < end)
        where = f"layer '{triggers[0].name}' (Convolution): reads what '{triggers[1].name}' reads, both with a stride"
        if len(strides) > 1 or not sums:
            fault = "of another size, and Intel Caffe hangs" if len(strides) > 1 else "and no residual sum makes that"
            at = triggers[0].parts["layer"]
            troubles.append(Trouble(at, f"{where}, {fault} (CompilationRuleSparse); {_SPELLING}"))
            break
        eltwise = steps[sums[0][1]]
        for bottom in eltwise.bottoms[:-1]:
            if bottom in makers and place[makers[bottom].name] != begin:
                pooled[place[makers[bottom].name]] = bottom
        troubles += _broken(steps, steps[begin], eltwise, triggers[:2])
    kept = []
    for i, step in enumerate(steps):
        kept.append(step)
        if i in pooled:
            name = f"{pooled[i]}_p"
            kept.append(Step("Pooling", name, [pooled[i]], [name], Layer(type="Pooling", name=name)))
            reader = last_reader.get(pooled[i])
            if reader is not None:
                reader.bottoms[reader.bottoms.index(pooled[i])] = name
    return kept, troubles


def _triggers_of(steps: Sequence[Step]) -> Mapping[str, list[Step]]:
    """By the convolution whose stride grows: the 1x1 convolutions with one producer that it is taken from."""
    maker: dict[str, str] = {}
    larger: Step | None = None
    triggers: list[Step] = []
    triggers_of: dict[str, list[Step]] = {}
    for step in steps:
        maker.update((top, step.name) for top in step.tops)
        param = step.layer.convolution_param
        if step.type != "Convolution" or not param.kernel_size or not param.stride:
            continue
        if param.kernel_size[0] > 1:
            larger = step
        elif param.stride[0] > 1 and not (param.pad and param.pad[0]) and larger is not None:
            source = maker.get(step.bottoms[0])
            if triggers:
                if any(maker.get(other.bottoms[0]) != source for other in triggers):
                    triggers = []
                triggers.append(step)
                triggers_of[larger.name] = list(triggers)
            else:
                triggers.append(step)
    return triggers_of


def _broken(steps: Sequence[Step], sparse: Step, eltwise: Step, triggers: Sequence[Step]) -> Iterator[Trouble]:
    """Layers that find less than the prototxt promises them."""
    inner = set(sparse.tops)
    behind = set(eltwise.tops)
    index = next(i for i, step in enumerate(steps) if step is sparse)
    at = eltwise.parts["layer"]
    if not set(eltwise.bottoms[:-1]).isdisjoint(_leads_to(steps[index:], inner, eltwise)):
        said = (
            f"layer '{eltwise.name}' (Eltwise): Intel Caffe thins out the first of its inputs, which is the wrong one"
        )
        yield Trouble(at, f"{said} (CompilationRuleSparse); swap them")
        return
    names = ", ".join(f"'{step.name}'" for step in triggers)
    for step in steps[index + 1 :]:
        if behind.isdisjoint(step.bottoms) or step in triggers:
            continue
        if step.type in ("Split", "ReLU"):
            behind |= set(step.tops)
        elif "layer" in step.parts:
            yield Trouble(
                step.parts["layer"],
                f"layer '{step.name}' ({step.type}): reads '{eltwise.tops[0]}', of which Intel Caffe computes no more "
                f"than {names} read with their stride (CompilationRuleSparse); {_SPELLING}",
                False,
            )


def _leads_to(steps: Sequence[Step], begin: set[str], end: Step) -> set[str]:
    """The blobs that follow from `begin`, up to the layer `end`."""
    following = set(begin)
    for step in steps[1:]:
        if step is end:
            break
        if not following.isdisjoint(step.bottoms):
            following |= set(step.tops)
    return following
