"""Why Intel Caffe aborts when it makes a net or loads its weights, read off the compiled layers."""

from collections.abc import Iterator, Sequence

from distcalib.caffe.steps import UNFUSED, Layer, Step, Trouble


def loading_troubles(steps: Sequence[Step], layers: Sequence[Layer]) -> Iterator[Trouble]:
    """All of them; `layers` are those of the prototxt."""
    yield from _unavailable(steps)
    yield from _left_out(steps, layers)
    yield from _without_blobs(steps, layers)


def _unavailable(steps: Sequence[Step]) -> Iterator[Trouble]:
    """What makes Net::Init abort: a bottom that no layer in front makes, or that an earlier one has taken."""
    available: set[str] = set()
    made: set[str] = set()
    astray = next((step for step in steps if step.astray), None)
    for step in steps:
        where = f"layer '{step.name}' ({step.type})"
        at = step.parts.get("layer", -1)
        for name in step.bottoms:
            if name not in available and at >= 0:
                if astray is not None:
                    said = (
                        f"{where}: finds no blob '{name}', for Intel Caffe takes convolution '{astray.astray}', which "
                        f"waits for a later Eltwise, for what '{astray.name}' is to be added to"
                    )
                    yield Trouble(at, said, True, astray.astray, UNFUSED)
                else:
                    yield Trouble(at, f"{where}: finds no blob '{name}' once layers are fused")
            available.discard(name)
        for name in step.tops:
            if name in made and name not in step.bottoms and at >= 0:
                yield Trouble(at, f"{where}: makes blob '{name}' a second time once layers are fused")
            available.add(name)
            made.add(name)


def _left_out(steps: Sequence[Step], layers: Sequence[Layer]) -> Iterator[Trouble]:
    """Layers that stand between a fused sum and its ReLU: as many are skipped as the ReLU would be."""
    inside = {index: step for step in steps for index in step.parts.values()}
    for index, layer in enumerate(layers):
        if index not in inside:
            before = max((i for i in inside if i < index), default=-1)
            sums = [step for step in steps if step.summed and step.parts["layer"] <= before]
            name = sums[-1].name if sums else ""
            said = f"layer '{layer.name}' ({layer.type}): is left out, for it stands between a fused sum and its ReLU"
            yield Trouble(index, said, True, name, UNFUSED if name else "")


def _without_blobs(steps: Sequence[Step], layers: Sequence[Layer]) -> Iterator[Trouble]:
    """Scales that are folded into what stands in front, and have not the two blobs that the folding takes."""
    for step in steps:
        if "scale" not in step.parts:
            continue
        layer = layers[step.parts["scale"]]
        param = layer.scale_param
        where = f"layer '{layer.name}' (Scale)"
        into = f"is folded into '{step.name}' ({step.type}), and"
        if len(layer.bottom) != 1:
            yield Trouble(step.parts["scale"], f"{where}: {into} has a second bottom in place of its factors")
        elif not param.bias_term:
            advice = "write bias_term: true, and zeros for it into the caffemodel"
            yield Trouble(step.parts["scale"], f"{where}: {into} has no bias, which that takes for granted; {advice}")
        elif param.axis not in (1, -3) or param.num_axes != 1:
            yield Trouble(step.parts["scale"], f"{where}: {into} does not scale channels")
