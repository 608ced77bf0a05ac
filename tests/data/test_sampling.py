"""Whether Caffe takes a sample of an image, against its own loop told naively."""

import itertools

import numpy as np
import pytest
from google.protobuf import text_format

from distcalib.caffe.caffe_pb2 import AnnotatedDatum, BatchSampler, LayerParameter
from distcalib.data.sampling import is_sampled, random_parts, sampler_faults

Box = tuple[float, float, float, float]


def record(*boxes: Box) -> AnnotatedDatum:
    made = AnnotatedDatum(type=AnnotatedDatum.BBOX)
    for box in boxes:
        one = made.annotation_group.add(group_label=1).annotation.add().bbox
        one.xmin, one.ymin, one.xmax, one.ymax = box
    return made


def samplers(*texts: str) -> list[BatchSampler]:
    return [text_format.Parse(text, BatchSampler()) for text in texts]


def layer(text: str) -> LayerParameter:
    return text_format.Parse(text, LayerParameter(name="data", type="AnnotatedData"))


QUARTER = (0.0, 0.0, 0.5, 0.5)
BEYOND = (-0.5, 0.0, 0.5, 1.0)  # half of it in the image


@pytest.mark.parametrize(
    ("given", "boxes", "expected"),
    [
        pytest.param([], [], False, id="none"),
        pytest.param([""], [], True, id="empty"),
        pytest.param(["max_sample: 1 max_trials: 1"], [], True, id="once"),
        pytest.param(["max_sample: 0"], [], False, id="no_samples"),
        pytest.param(["max_trials: 0"], [], False, id="no_trials"),
        pytest.param(["use_original_image: false"], [], False, id="not_of_the_image"),
        pytest.param(["max_trials: 0", ""], [], True, id="the_second"),
        pytest.param(["sample_constraint {}"], [], True, id="no_constraint"),
        pytest.param(["sample_constraint { min_jaccard_overlap: 0.1 }"], [], False, id="no_object"),
        pytest.param(["sample_constraint { min_jaccard_overlap: 0.25 }"], [QUARTER], True, id="just"),
        pytest.param(["sample_constraint { min_jaccard_overlap: 0.26 }"], [QUARTER], False, id="too_small"),
        pytest.param(["sample_constraint { max_jaccard_overlap: 0.24 }"], [QUARTER], False, id="too_large"),
        pytest.param(["sample_constraint { min_sample_coverage: 0.5 }"], [QUARTER, BEYOND], True, id="one_of_two"),
        pytest.param(["sample_constraint { max_object_coverage: 0.5 }"], [BEYOND], True, id="half_an_object"),
        pytest.param(["sample_constraint { min_object_coverage: 0.6 }"], [BEYOND], False, id="less"),
        pytest.param(
            ["sample_constraint { min_jaccard_overlap: 0.2 min_object_coverage: 2 }"], [QUARTER], True, id="the_first"
        ),
        pytest.param(
            ["sample_constraint { min_jaccard_overlap: 0.3 min_object_coverage: 0.1 }"], [QUARTER], False, id="not_it"
        ),
        pytest.param(["sample_constraint { min_object_coverage: 0.1 }"], [(2.0, 2.0, 3.0, 3.0)], False, id="outside"),
        pytest.param(["sample_constraint { min_object_coverage: 0.1 }"], [(0.5, 0.5, 0.2, 0.2)], False, id="inverted"),
    ],
)
def test_is_sampled(given: list[str], boxes: list[Box], expected: bool) -> None:
    assert is_sampled(record(*boxes), samplers(*given)) is expected


def stated(boxes: list[Box], constraint: dict[str, float]) -> bool:
    """SatisfySampleConstraint of the whole image."""
    if not constraint:
        return True
    found = False
    for x1, y1, x2, y2 in boxes:
        w, h = min(x2, 1.0) - max(x1, 0.0), min(y2, 1.0) - max(y1, 0.0)
        shared = w * h if w > 0 and h > 0 else 0.0
        size = (x2 - x1) * (y2 - y1)
        values = {
            "jaccard_overlap": shared / (1 + size - shared),
            "sample_coverage": shared,
            "object_coverage": shared / size,
        }
        failed = False
        for kind, value in values.items():
            if f"min_{kind}" not in constraint and f"max_{kind}" not in constraint:
                continue
            if value < constraint.get(f"min_{kind}", -1.0) or value > constraint.get(f"max_{kind}", 9.0):
                failed = True
                break
            found = True
        if not failed and found:
            return True
    return found


def test_is_sampled_is_what_caffe_states_of_all_constraints() -> None:
    random, answers = np.random.RandomState(0), set()
    kinds = ("jaccard_overlap", "sample_coverage", "object_coverage")
    names = [f"{end}_{kind}" for kind in kinds for end in ("min", "max")]
    for chosen in itertools.chain.from_iterable(itertools.combinations(names, n) for n in range(4)):
        for _ in range(8):
            low = random.uniform(-0.5, 0.8, (3, 2))
            boxes = [(x, y, x + w, y + h) for (x, y), (w, h) in zip(low, random.uniform(0.1, 0.9, (3, 2)), strict=True)]
            constraint = {name: float(random.uniform(0.0, 0.8)) for name in chosen}
            text = " ".join(f"{name}: {value}" for name, value in constraint.items())
            expected = stated(boxes, constraint)
            assert is_sampled(record(*boxes), samplers(f"sample_constraint {{ {text} }}")) is expected, (text, boxes)
            answers.add(expected)
    assert answers == {True, False}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("annotated_data_param { batch_sampler {} }", []),
        ("annotated_data_param { batch_sampler { max_sample: 1 sampler { min_aspect_ratio: 0.5 } } }", []),
        ("annotated_data_param { batch_sampler { sampler { min_scale: 0.3 } } }", ["batch_sampler"]),
        ("annotated_data_param { batch_sampler { sampler { min_scale: 0.3 max_scale: 0.3 } } }", ["batch_sampler"]),
        ("annotated_data_param { batch_sampler { use_original_image: false sampler { min_scale: 0.3 } } }", []),
        ("transform_param { distort_param {} }", []),
        ("transform_param { distort_param { hue_prob: 0.5 } }", ["distort_param"]),
        ("transform_param { expand_param { prob: 0 max_expand_ratio: 2 } }", []),
        ("transform_param { expand_param { max_expand_ratio: 2 } }", ["expand_param"]),
    ],
)
def test_random_parts(text: str, expected: list[str]) -> None:
    assert random_parts(layer(text)) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("annotated_data_param { batch_sampler { sampler { min_scale: 0.3 } } }", None),
        ("annotated_data_param { batch_sampler { sampler { min_scale: 0 } } }", "scales of 0 to 1"),
        ("annotated_data_param { batch_sampler { sampler { max_scale: 2 } } }", "scales of 1 to 2"),
        ("annotated_data_param { batch_sampler { sampler { min_aspect_ratio: 3 } } }", "aspect ratios of 3 to 1"),
        ("annotated_data_param { batch_sampler { max_trials: 0 sampler { min_scale: 0 } } }", None),
        ("transform_param { expand_param {} }", "expand_param needs a max_expand_ratio above 1"),
    ],
)
def test_sampler_faults(text: str, said: str | None) -> None:
    found = list(sampler_faults(layer(text)))
    assert len(found) == (said is not None)
    assert said is None or said in found[0]
