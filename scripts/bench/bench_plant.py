"""What planted layers cost, and whether the cure is the cure: drops against FP32 over all images, a row a planting.

    python -m scripts.bench.bench_plant [-m net.prototxt -w net.caffemodel] -i 100 [--strength 6] [-c multiple] [-1st]

`not planted` is the drop of the given net with the same layers in FP32: the cure can do no better.  A planting is clean
if there is a tolerance between `cure` and `one missing`, the least drop with a planted layer in INT8 again.
"""

import argparse
from pathlib import Path

from distcalib.caffe import read_weights
from distcalib.calibration.trial import Trial
from distcalib.engine.net import open_net
from distcalib.errors import OptionError
from distcalib.quantize.options import Options
from scripts.bench.bench_evaluate import default_model
from scripts.bench.plant import STRENGTH, choose, plant

ROW = "{:>2} {:>4}  {:>8} {:>9} {:>11} {:>9} {:>11}  {}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("-m", "--model", type=Path, default=default_model())
    add("-w", "--weights", type=Path)
    add("-i", "--iterations", type=int, default=100)
    add("-c", "--weights_channel", choices=("single", "multiple"), default="multiple")
    add("-1st", "--enable_1st_conv", action="store_true")
    add("-n", type=int, nargs="+", default=[1, 3, 5], help="how many layers are planted")
    add("--seeds", type=int, default=3)
    add("--strength", type=float, default=STRENGTH)
    args = parser.parse_args()
    net = open_net(args.model)
    weights = read_weights(args.weights or args.model.with_suffix(".caffemodel"))
    options = Options(weights_channel=args.weights_channel, enable_1st_conv=args.enable_1st_conv)
    given = Trial(net, weights, options, args.iterations)
    flags = f"-c {args.weights_channel}{' -1st' if args.enable_1st_conv else ''} --strength {args.strength:g}"
    print(f"{net.name} {flags}: FP32 {given.fp32_score:.4f}, all INT8 loses {given.drop():.4f}")
    print(ROW.format("n", "seed", "FP32", "all INT8", "not planted", "cure", "one missing", "layers"))
    for n in args.n:
        for seed in range(args.seeds):
            try:
                layers = choose(net.graph, given.quantizer.space, n, seed)
            except OptionError as error:
                print(f"{n:>2} {seed:>4}  {error}")
                break
            planted = Trial(
                net, plant(net.graph, weights, layers, seed, args.strength).weights, options, args.iterations
            )
            cure, missing = planted.cure_and_gap(layers)
            drops = (given.fp32_score - planted.fp32_score, planted.drop(), given.drop(*layers), cure, missing)
            verdict = "" if cure < missing else "NOT CLEAN "
            print(ROW.format(n, seed, *(f"{drop:.4f}" for drop in drops), verdict + ", ".join(layers)), flush=True)


if __name__ == "__main__":
    main()
