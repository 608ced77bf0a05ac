"""What is the same in all runs. (The actors: test_calibration, test_evaluation.)"""

from distcalib.run.session import versions


def test_versions_name_what_a_score_depends_on() -> None:
    assert versions().keys() == {"distcalib", "openvino", "ray", "numpy", "python"}
