"""Exporting measures what it writes, and refuses what scores worse; the runtimes are real, on real actors."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2, read_net, read_weights, write_weights
from distcalib.calibration.options import CalibrationOptions
from distcalib.engine.net import open_net
from distcalib.errors import DataError, OptionError, OutputError, UnsupportedError, WeightsError
from distcalib.exporters import runtimes
from distcalib.report import exported_lines
from distcalib.session import export as exporting
from distcalib.session.export import export
from distcalib.session.export_options import ExportOptions
from distcalib.session.progress import Silent
from distcalib.session.verify import drops, verify
from tests.session.evaluated import evaluate
from tests.session.tiny import ITERATIONS, Tiny, make_tiny

pytest.importorskip("onnxruntime")
BOTH = ("openvino", "onnx")


@pytest.mark.usefixtures("actors")
@pytest.mark.slow
def test_export_writes_files_that_score_as_evaluate(tiny: Tiny, tmp_path: Path) -> None:
    options = ExportOptions(to=BOTH, out=tmp_path / "out", iterations=ITERATIONS, n_actors=2)
    found = export(tiny.prototxt, tiny.weights, options)
    assert [one.target for one in found] == list(BOTH)
    expected = evaluate(tiny.prototxt, tiny.weights, ITERATIONS, n_actors=1).scores
    for one in found:
        assert one.verified
        assert one.scores["accuracy-top1"] == expected["accuracy-top1"] == one.expected["accuracy-top1"]
        assert one.scores["loss"] == pytest.approx(expected["loss"], abs=1e-6)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.bin", "model.onnx", "model.xml"]
    model = ov.Core().read_model(tmp_path / "out" / "model.xml")
    noted = json.loads(model.get_rt_info(["distcalib", "scores"]).astype(str))
    assert noted["accuracy-top1"] == expected["accuracy-top1"]
    info = runtimes.open_model(tmp_path / "out" / "model.onnx").info
    assert info["verified"] == "yes"
    assert info["batch"] == "dynamic"
    [again] = [
        verify(tmp_path / "out" / "model.onnx", tiny.prototxt, tiny.weights, ExportOptions(iterations=ITERATIONS))
    ]
    assert again.scores == found[1].scores


def write(path: Path, model: Path, blobs: dict[str, tuple[NDArray[np.float32], ...]]) -> None:
    """A caffemodel for the layers of `model`."""
    write_weights(path, "net", read_net(model).layer, blobs)


def spoiled(tiny: Tiny, folder: Path) -> Path:
    """Weights whose classes are in another order."""
    weights = dict(read_weights(tiny.weights))
    weights["fc"] = tuple(np.roll(blob, 1, axis=0) for blob in weights["fc"])
    path = folder / "spoiled.caffemodel"
    write(path, tiny.prototxt, weights)
    return path


@pytest.mark.usefixtures("actors")
@pytest.mark.slow
def test_export_refuses_a_file_that_scores_worse(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = exporting._build(open_net(tiny.prototxt), spoiled(tiny, tmp_path), ExportOptions(), None, Silent())
    monkeypatch.setattr(exporting, "_build", lambda *_: made)
    out = tmp_path / "out"
    [one] = export(tiny.prototxt, tiny.weights, ExportOptions(out=out, iterations=ITERATIONS, n_actors=1))
    assert one.refused
    assert one.drops["accuracy-top1"] > 0.1
    assert one.earlier == ""
    assert sorted(path.name for path in out.iterdir()) == ["model.bin.unverified", "model.xml.unverified"]
    assert any(line.strip().startswith("REFUSED: loses more than 0.0005") for line in exported_lines(one))
    monkeypatch.undo()
    # The next one that is verified takes what was refused away; and it stays where a later one is refused.
    export(tiny.prototxt, tiny.weights, ExportOptions(out=out, iterations=ITERATIONS, n_actors=1))
    assert sorted(path.name for path in out.iterdir()) == ["model.bin", "model.xml"]
    verified = (out / "model.bin").read_bytes()
    monkeypatch.setattr(exporting, "_build", lambda *_: made)
    [one] = export(tiny.prototxt, tiny.weights, ExportOptions(out=out, iterations=ITERATIONS, n_actors=1))
    assert one.earlier == str(out / "model.xml")
    assert exported_lines(one)[-1] == f"    {out / 'model.xml'} is still there, but of an earlier export"
    assert (out / "model.bin").read_bytes() == verified
    with pytest.raises(OptionError, match=r"model.xml.unverified: was refused by export; export again"):
        verify(one.path, tiny.prototxt, tiny.weights, ExportOptions())


@pytest.mark.usefixtures("actors")
@pytest.mark.slow
def test_export_measures_a_file_that_takes_images_with_them(tiny: Tiny, tmp_path: Path) -> None:
    options = ExportOptions(to=BOTH, out=tmp_path, iterations=ITERATIONS, preprocess="nhwc-rgb", n_actors=2)
    expected = evaluate(tiny.prototxt, tiny.weights, ITERATIONS, n_actors=1).scores
    for one in export(tiny.prototxt, tiny.weights, options):
        assert one.verified
        assert one.scores["accuracy-top1"] == expected["accuracy-top1"]
        assert one.images_per_second is not None
        assert runtimes.open_model(Path(one.path)).inputs == {"data": (None, 8, 8, 3)}
        again = verify(one.path, tiny.prototxt, tiny.weights, ExportOptions(iterations=ITERATIONS, n_actors=1))
        assert again.scores == one.scores


def spoil(database: Path, number: int) -> None:
    """Let a record be no image any more."""
    with lmdb.open(str(database), lock=False) as environment, environment.begin(write=True) as transaction:
        key, value = list(transaction.cursor())[number]
        datum = caffe_pb2.Datum.FromString(value)
        datum.data = b"no image"
        transaction.put(key, datum.SerializeToString())


@pytest.mark.usefixtures("actors")
@pytest.mark.slow
def test_export_leaves_bad_records_out(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path, encoded=True)
    spoil(tiny.database, 9)
    options = ExportOptions(to=BOTH, out=tmp_path / "out", iterations=ITERATIONS, n_actors=1)
    with pytest.raises(DataError, match="is not an image that can be decoded"):
        export(tiny.prototxt, tiny.weights, options)
    assert not (tmp_path / "out").exists()
    skipping = replace(options, skip_bad_records=True, preprocess="nhwc-bgr")
    expected = evaluate(tiny.prototxt, tiny.weights, ITERATIONS, n_actors=1, skip_bad_records=True).scores
    for one in export(tiny.prototxt, tiny.weights, skipping):
        assert one.scores["accuracy-top1"] == expected["accuracy-top1"]
        assert one.bad_records is not None
        assert one.bad_records.count == 1


@pytest.mark.usefixtures("actors")
@pytest.mark.slow
def test_verify_says_that_the_prototxt_is_another(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(tiny.prototxt, tiny.weights, ExportOptions(out=tmp_path, iterations=1, n_actors=1))
    other = tmp_path / "net.prototxt"
    other.write_text(tiny.prototxt.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    notes: list[str] = []
    reporter = Silent()
    monkeypatch.setattr(reporter, "note", notes.append)
    verify(tmp_path / "model.xml", other, tiny.weights, ExportOptions(iterations=1, n_actors=1), reporter=reporter)
    assert [said for said in notes if "by its hash" in said] == [
        f"{tmp_path / 'model.xml'}: was exported from another net.prototxt than the one given, by its hash"
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"iterations": 0}, "-i 0"),
        ({"to": ("caffe2",)}, "--to caffe2: unknown; choose openvino or onnx"),
        ({"to": ()}, "--to: names nothing; choose openvino or onnx"),
        ({"batch": 0}, "--batch 0: must be at least 1, or dynamic"),
        ({"batch": "open"}, "--batch open: must be a whole number, or dynamic"),
        ({"batch": 2.5}, "batch=2.5: must be a whole number, or must be a text"),
        ({"isa": "z80"}, "--isa z80: unknown; choose native"),
        ({"preprocess": "nhwc"}, "--preprocess nhwc: unknown; choose nhwc-bgr"),
        ({"accept_drop": -1.0}, "--accept-drop -1: must be 0 or more"),
        ({"accept_drop": float("nan")}, "--accept-drop nan"),
    ],
)
def test_options_refuse_what_cannot_be(options: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        ExportOptions(**options)  # type: ignore[arg-type]


def test_errors_say_how_to_install_what_onnx_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    with pytest.raises(OptionError) as caught:
        ExportOptions(to=("onnx",))
    expected = "--to onnx: onnx and onnxruntime are not installed; run: pip install 'distcalib[onnx]'"
    assert str(caught.value) == expected
    with pytest.raises(OptionError, match="--export onnx: onnx and onnxruntime are not installed; run: pip install"):
        CalibrationOptions(export=("onnx",))
    (tmp_path / "model.onnx").touch()
    with pytest.raises(OptionError, match=r"model.onnx: onnx and onnxruntime are not installed; run: pip install"):
        runtimes.open_model(tmp_path / "model.onnx")
    assert ExportOptions(to=("openvino",)).to == ("openvino",)


DEPLOY = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param { num_output: 2 } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""


@pytest.fixture
def deploy(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "deploy.prototxt").write_text(DEPLOY, encoding="utf-8")
    rng = np.random.default_rng(0)
    weights = tuple(rng.normal(size=shape).astype(np.float32) for shape in ((2, 192), (2,)))
    write(tmp_path / "deploy.caffemodel", tmp_path / "deploy.prototxt", {"fc": weights})
    return tmp_path / "deploy.prototxt", tmp_path / "deploy.caffemodel"


def test_export_of_a_deploy_net_without_data_says_that_nothing_was_measured(
    deploy: tuple[Path, Path], tmp_path: Path
) -> None:
    [one] = export(*deploy, ExportOptions(out=tmp_path / "out"))
    assert not one.verified
    assert not one.refused
    assert one.reason.startswith("layer 'data' (Input) has no data; give it with --data")
    assert Path(one.path).name == "model.xml"
    assert runtimes.open_model(Path(one.path)).inputs == {"data": (None, 3, 8, 8)}


def test_export_writes_nothing_where_the_weights_do_not_fit(deploy: tuple[Path, Path], tmp_path: Path) -> None:
    write(deploy[1], deploy[0], {"fc": (np.zeros((2, 7), np.float32),)})
    with pytest.raises(WeightsError, match="blob"):
        export(*deploy, ExportOptions(out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("outputs", "said"), [(("nothing",), "--outputs: no layer that is exported makes 'nothing'"), (("data",), "'data'")]
)
def test_export_refuses_outputs_that_are_not_made(
    deploy: tuple[Path, Path], tmp_path: Path, outputs: tuple[str, ...], said: str
) -> None:
    with pytest.raises(OptionError, match=said):
        export(*deploy, ExportOptions(out=tmp_path / "out", outputs=outputs))


def test_export_refuses_a_net_without_a_known_input(tmp_path: Path) -> None:
    text = 'layer { name: "data" type: "Data" top: "data" top: "label" data_param { source: "x" batch_size: 4 } } '
    text += 'layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param { num_output: 2 } }'
    (tmp_path / "net.prototxt").write_text(text, encoding="utf-8")
    write(tmp_path / "w.caffemodel", tmp_path / "net.prototxt", {"fc": (np.zeros((2, 4), np.float32),)})
    with pytest.raises(UnsupportedError, match="the size of its input is not known"):
        export(tmp_path / "net.prototxt", tmp_path / "w.caffemodel", ExportOptions(out=tmp_path / "out"))


def test_drops_have_the_sign_of_what_is_lost(tiny: Tiny) -> None:
    net = open_net(tiny.prototxt)
    found = drops(net, {"accuracy-top1": 0.9, "loss": 0.5}, {"accuracy-top1": 0.8, "loss": 0.75})
    assert found == {"accuracy-top1": pytest.approx(0.1), "loss": pytest.approx(0.25)}
    assert drops(net, {"loss": 0.5}, {"loss": float("nan")}) == {"loss": float("inf")}


def test_export_of_a_net_whose_data_is_not_there_says_so(tiny: Tiny, tmp_path: Path) -> None:
    text = tiny.prototxt.read_text(encoding="utf-8").replace(str(tiny.database), str(tmp_path / "none"))
    text = text.replace("mean_value: 127", "mean_value: 127 mean_value: 127 mean_value: 127 crop_size: 8")
    (tmp_path / "net.prototxt").write_text(text, encoding="utf-8")
    [one] = export(tmp_path / "net.prototxt", tiny.weights, ExportOptions(out=tmp_path / "out"))
    assert not one.verified
    assert "none: does not exist" in one.reason
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.bin", "model.xml"]


def test_export_leaves_nothing_where_it_cannot_write(deploy: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file", encoding="utf-8")
    with pytest.raises(
        OutputError, match=r"out: cannot be written to \(Not a directory\); give another folder with --out"
    ):
        export(*deploy, ExportOptions(out=tmp_path / "out"))
    assert (tmp_path / "out").read_text(encoding="utf-8") == "a file"


def test_export_sees_that_it_cannot_write_before_it_measures(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "measured", None)
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(OutputError, match=r"model\.onnx: is a folder, and a file is to be written there"):
        export(tiny.prototxt, tiny.weights, ExportOptions(to=BOTH, out=tmp_path, iterations=ITERATIONS))
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_place_never_leaves_a_file_with_what_another_one_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, out = tmp_path / "made", tmp_path / "out"
    for folder, text in ((made, "new"), (out, "old")):
        folder.mkdir()
        for name in ("model.bin", "model.xml"):
            (folder / name).write_text(text, encoding="utf-8")
    written = [made / "model.bin", made / "model.xml"]
    copy = shutil.copyfile

    def full(source: Path, to: Path) -> None:
        if source.suffix == ".xml":
            raise OSError(28, "No space left on device")
        copy(source, to)

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OutputError, match=r"model\.xml: cannot be written \(No space left on device\)"):
        exporting._place(written, out, "")
    assert {path.name: path.read_text() for path in out.iterdir()} == {"model.bin": "old", "model.xml": "old"}
    monkeypatch.setattr(shutil, "copyfile", copy)
    seen, move = [], os.replace

    def moved(part: Path, to: Path) -> None:
        seen.append((out / "model.xml").exists())
        move(part, to)

    monkeypatch.setattr(os, "replace", moved)
    exporting._place(written, out, "")
    assert seen == [False, False]
    assert {path.name: path.read_text() for path in out.iterdir()} == {"model.bin": "new", "model.xml": "new"}


def test_export_refuses_data_that_are_there_and_cannot_be_read(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path, encoded=True)
    spoil(tiny.database, 0)
    with pytest.raises(DataError, match=r"is not an image that can be decoded .*, or give --skip-bad-records"):
        export(tiny.prototxt, tiny.weights, ExportOptions(out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
