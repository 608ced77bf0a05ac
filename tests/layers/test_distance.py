"""InnerDistance, against its definition."""

import numpy as np
import pytest

from distcalib.caffe.forks import lower
from tests.layers.harness import Array, make_layer, random, refused, run

X = random(3, 2, 4, 1)
POINTS = random(5, 8, seed=1)


def naive(x: Array, points: Array, kind: str) -> Array:
    made = np.zeros((len(x), len(points)), np.float32)
    for i, one in enumerate(x.reshape(len(x), -1)):
        for j, point in enumerate(points.reshape(len(points), -1)):
            gaps = one.astype(np.float64) - point
            made[i, j] = np.abs(gaps).sum() if kind == "L1" else (gaps * gaps).sum()
    return made


@pytest.mark.parametrize("kind", ["L1", "L2"])
@pytest.mark.parametrize("normalize", [False, True])
def test_inner_distance_of_a_blob(kind: str, normalize: bool) -> None:
    param = f'num_output: 5 distance_type: "{kind}" normalize: {str(normalize).lower()} bias_term: true'
    [found] = run(f'type: "InnerDistance" inner_distance_param {{ {param} }}', X, blobs=[POINTS])
    length = np.sqrt((POINTS.astype(np.float64) ** 2).sum(axis=1, keepdims=True) + 1e-6) if normalize else 1.0
    np.testing.assert_allclose(found, naive(X, (POINTS / length).astype(np.float32), kind), rtol=1e-5)


def test_inner_distance_of_many_points_is_worked_out_by_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distcalib.layers.distance._MOST_GAPS", 10)
    [found] = run('type: "InnerDistance" inner_distance_param { num_output: 5 }', X, blobs=[POINTS])
    np.testing.assert_allclose(found, naive(X, POINTS, "L2"), rtol=1e-4)
    [near] = run('type: "InnerDistance" inner_distance_param { num_output: 5 }', POINTS, blobs=[POINTS])
    assert np.all(near >= 0.0)
    text = 'type: "InnerDistance" inner_distance_param { distance_type: "L1" bias_term: false }'
    assert "up to 10 are converted for L1" in refused(text, X.shape, POINTS.shape)


def test_inner_distance_of_a_second_bottom() -> None:
    [found] = run('type: "InnerDistance" inner_distance_param { bias_term: false }', X, POINTS)
    np.testing.assert_allclose(found, naive(X, POINTS, "L2"), rtol=1e-5)


def test_inner_distance_keeps_the_axes_before_its_own() -> None:
    [found] = run('type: "InnerDistance" inner_distance_param { axis: 2 num_output: 3 }', X, blobs=[POINTS[:3, :4]])
    assert found.shape == (3, 2, 3)
    np.testing.assert_allclose(found.reshape(6, 3), naive(X.reshape(6, 4), POINTS[:3, :4], "L2"), rtol=1e-5)


@pytest.mark.parametrize(
    ("param", "said"),
    [
        ("transpose: true", "transpose: true is not converted"),
        ('distance_type: "L3"', "distance_type is 'L3'; L2 and L1 are converted"),
    ],
)
def test_inner_distance_refuses_what_its_source_does_not_do(param: str, said: str) -> None:
    assert said in refused(f'type: "InnerDistance" inner_distance_param {{ {param} }}', X.shape, POINTS.shape)


def test_inner_distance_refuses_points_of_another_size() -> None:
    assert "its points have shape (5, 7)" in refused('type: "InnerDistance"', X.shape, (5, 7))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("bias_term", [False, True])
def test_normface_inner_product_of_blobs(normalize: bool, bias_term: bool) -> None:
    param = f"num_output: 5 normalize: {str(normalize).lower()} bias_term: {str(bias_term).lower()}"
    bias = random(5, seed=2)
    blobs = [POINTS, bias] if bias_term else [POINTS]
    [found] = run(f'type: "NormFaceInnerProduct" inner_product_param {{ {param} }}', X, blobs=blobs)
    length = np.sqrt((POINTS.astype(np.float64) ** 2).sum(axis=1, keepdims=True) + 1e-6) if normalize else 1.0
    wanted = X.reshape(3, 8) @ (POINTS / length).T + (bias if bias_term else 0.0)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_normface_inner_product_of_bottoms() -> None:
    text = 'type: "NormFaceInnerProduct" inner_product_param {{ bias_term: {} normalize: true }}'
    wanted = X.reshape(3, 8) @ POINTS.T
    np.testing.assert_allclose(run(text.format("false"), X, POINTS)[0], wanted, rtol=1e-4, atol=1e-5)
    bias = random(5, seed=2)
    np.testing.assert_allclose(run(text.format("true"), X, POINTS, bias)[0], wanted + bias, rtol=1e-4, atol=1e-5)
    assert "write bias_term: false" in refused(text.format("true"), X.shape, POINTS.shape)


def test_an_inner_product_of_normface_is_told_by_its_parameters() -> None:
    for text, kind in {
        'bottom: "x"': "InnerProduct",
        'bottom: "x" inner_product_param { normalize: true }': "NormFaceInnerProduct",
        'bottom: "x" bottom: "w"': "NormFaceInnerProduct",
    }.items():
        proto = make_layer(f'type: "InnerProduct" {text}').proto
        lower(proto)
        assert proto.type == kind
