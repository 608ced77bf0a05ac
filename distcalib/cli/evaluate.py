"""`distcalib evaluate`."""

import argparse
from collections.abc import Mapping

from distcalib.caffe.belonging import belonging_named
from distcalib.cli.arguments import (
    WEIGHTS_HELP,
    add_detection,
    add_iterations,
    add_model,
    add_output,
    add_reading,
    add_root,
    add_telling,
    console_of,
    detection_of,
    example,
    iterations_of,
    memory_line,
    model_of,
    weights_of,
)
from distcalib.cli.config import add_config
from distcalib.cli.console import reporting, say
from distcalib.cli.exit_codes import OK
from distcalib.report import Evaluation
from distcalib.session.evaluate import evaluate
from distcalib.session.options import EvaluationOptions

EXAMPLE = "distcalib evaluate examples/digits/digits.prototxt -w examples/digits/digits.caffemodel"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "evaluate",
        help="the scores of a prototxt, quantized or not, as `caffe test` prints them",
        epilog=example(EXAMPLE),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_model(parser, weights_required=False, weights_help=WEIGHTS_HELP)
    add_iterations(parser, like_intel=True)
    add_detection(parser)
    add_reading(parser)
    add_root(parser)
    add_config(parser)
    add_telling(parser)
    add_output(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print the mean of every output blob."""
    args.iterations, detection, console = iterations_of(args), detection_of(args), console_of(args)
    model = model_of(args)
    weights = weights_of(args, model)
    with belonging_named(model, weights), reporting(args, console) as reporter:
        result = evaluate(
            model,
            weights,
            EvaluationOptions.of(args, n_actors=args.actors, detection=detection),
            reporter=reporter,
        )
    if args.json:
        print(result.to_json(), end="")
    else:
        for line in lines(result):
            say(console, line)
    return OK


def lines(result: Evaluation) -> list[str]:
    """What the terminal shows: the loss and a line an output blob in the form of `caffe test`, then the rate."""
    shown = [f"Loss: {result.loss:.6g}"]
    for name, score in result.scores.items():
        line = f"{name} = {score:.6g}"
        if name in result.loss_weights:
            weight = result.loss_weights[name]
            line += f" (* {weight:.6g} = {weight * score:.6g} loss)"
        if name in result.segmentations:
            told = result.segmentations[name]
            line += f" (mean IoU; pixel accuracy {told['pixel_accuracy']:.6g}, mean recall {told['mean_recall']:.6g})"
        shown.append(line)
        aps = {label: f"{ap:.6g}" for label, ap in result.average_precisions.get(name, {}).items()}
        absent = result.classes_without_objects.get(name, ())
        aps |= dict.fromkeys(absent, "no object in the data, counts as 0")
        shown += _by_class(result, aps)
    for name, accuracies in result.class_accuracies.items():
        shown.append(f"{name}, the accuracy of each class:")
        told_of = {label: f"{accuracy:.6g}" for label, accuracy in accuracies.items()}
        shown += _by_class(result, told_of | dict.fromkeys(result.classes_without_labels[name], "no label in the data"))
    if result.without_int8_kernel:
        shown.append(f"without an INT8 kernel here: {', '.join(result.without_int8_kernel)}")
    if result.bad_records is not None and result.bad_records.count:
        shown.append(result.bad_records.line)
    shown += [f"warning: {warning}" for warning in result.warnings]
    if result.n_retired:
        shown.append(memory_line(result.n_retired))
    actors = "actor" if result.n_actors == 1 else "actors"
    shown.append(
        f"{result.n_iterations} iterations of {result.batch} images, {len(result.int8_layers)} INT8 layers, "
        f"{result.images_per_second:,.0f} images/s on {result.n_actors} {actors} ({result.isa}, {result.way})"
    )
    return shown


def _by_class(result: Evaluation, told: Mapping[int, str]) -> list[str]:
    """A line a class, with its name where that is known."""
    names = {label: f" ({result.class_names[label]})" for label in told if label in result.class_names}
    return [f"    class {label}{names.get(label, '')}: {told[label]}" for label in sorted(told)]
