"""Where records cannot be left out."""

from pathlib import Path

import pytest

from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.errors import DataError, OptionError, UnsupportedError
from tests.calibration.test_skipping import corrupt
from tests.session.evaluated import evaluate
from tests.session.tiny import ITERATIONS, Tiny, make_tiny
from tests.standin import make_standin

pytestmark = pytest.mark.usefixtures("actors")


def test_the_flag_is_refused_with_a_build_of_caffe(tiny: Tiny, tmp_path: Path) -> None:
    said = "--skip-bad-records: `caffe test` ends at a bad record, so -r cannot go with it"
    with pytest.raises(OptionError, match=said):
        CalibrationOptions(skip_bad_records=True, root=tmp_path)
    with pytest.raises(OptionError, match=said):
        evaluate(tiny.prototxt, tiny.weights, 1, root=tmp_path, skip_bad_records=True)


@pytest.mark.parametrize("number", [0, 9], ids=["by_the_driver", "by_an_actor"])
def test_a_build_of_caffe_is_not_told_of_the_flag(tiny: Tiny, tmp_path: Path, number: int) -> None:
    bad_net = corrupt(tiny, tmp_path / "bad", {number: b"\xff\xff"})
    root = make_standin(tmp_path / "build").root
    options = CalibrationOptions(iterations=ITERATIONS, sampling_iterations=ITERATIONS, root=root, out=tmp_path / "out")
    with pytest.raises(DataError, match="write it again or leave it out") as told:
        calibrate(bad_net.prototxt, bad_net.weights, options)
    assert "skip-bad-records" not in str(told.value)


def test_a_score_without_a_row_a_record_is_refused(tmp_path: Path) -> None:
    def edit(text: str) -> str:
        return text + (
            'layer { name: "one" type: "Reshape" bottom: "fc" top: "one" reshape_param { shape { dim: 1 dim: -1 } } }'
        )

    net = make_tiny(tmp_path, edit=edit)
    with pytest.raises(UnsupportedError, match=r"blob 'one' \(1 x 40\) has no row for each of the 8 records"):
        evaluate(net.prototxt, net.weights, 1, skip_bad_records=True)


@pytest.mark.parametrize(
    ("named", "params"),
    [
        ("BatchNorm", "batch_norm_param { use_global_stats: false use_weight_bias: false }"),
        ("Softmax", "softmax_param { axis: 0 }"),
        ("Softmax", "softmax_param { axis: -2 }"),
        ("ArgMax", "argmax_param { axis: 0 top_k: 8 }"),
        ("Reshape", "reshape_param { shape { dim: 1 dim: -1 } }"),
        ("Permute", "permute_param { order: 1 order: 0 }"),
        ("Slice", "slice_param { slice_dim: 0 }"),
        ("Reduction", "reduction_param { axis: 0 }"),
    ],
)
def test_a_layer_that_mixes_records_is_refused(tmp_path: Path, named: str, params: str) -> None:
    """Though no score is made of what it makes."""
    text = (
        f'layer {{ name: "m" type: "{named}" bottom: "fc" top: "m" {params} }} '
        'layer { name: "hush" type: "Silence" bottom: "m" }'
    )
    net = make_tiny(tmp_path, edit=lambda before: before + text)
    with pytest.raises(UnsupportedError, match=rf"layer 'm' \({named}\) makes something of several records together"):
        evaluate(net.prototxt, net.weights, 1, skip_bad_records=True)


def test_data_layers_of_different_batch_sizes_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    text = tiny.prototxt.read_text() + (
        'layer { name: "more" type: "Data" top: "more" include { phase: TEST } '
        f'data_param {{ source: "{tiny.database}" batch_size: 4 backend: LMDB }} }}'
    )
    (tmp_path / "net.prototxt").write_text(text)
    with pytest.raises(OptionError, match=r"different batch sizes: 8, and of 'more' \(4\)"):
        evaluate(tmp_path / "net.prototxt", tiny.weights, 1, skip_bad_records=True)
