"""Tracking of objects: boxes that neither flicker nor tremble."""

import numpy as np
import pytest

from shared.detection.tracking import BoxTracker
from shared.training.predictors import Box, Boxes

pytestmark = pytest.mark.once


def box(left, score=0.9, label="cat", top=10.0, size=20.0):
    return Box(label, score, left, top, left + size, top + size)


def shown(tracker, *frames):
    """The numbers of the tracks in each frame."""
    return [[track.number for track in tracker(Boxes(list(frame)))] for frame in frames]


def test_a_box_does_not_flicker_for_want_of_a_threshold():
    """Hysteresis: what began with a sure detection goes on with weak ones, and over short gaps."""
    scores = [0.6, 0.45, 0.3, None, None, 0.55, 0.2, 0.2]
    frames = [[] if score is None else [box(3.0 * index, score)] for index, score in enumerate(scores)]
    assert shown(BoxTracker(0.5, patience=2), *frames) == [[1]] * len(scores)


def test_weak_detections_begin_nothing_and_a_sure_one_that_comes_once_is_not_shown():
    tracker = BoxTracker(0.5, patience=1)
    assert shown(tracker, [box(0)], [box(0), box(60, 0.4)], [box(0), box(60, 0.4)]) == [[1]] * 3
    assert shown(tracker, [box(0), box(90)], [box(0)], [box(0)]) == [[1]] * 3
    assert shown(tracker, [box(0), box(90)], [box(0), box(90)]) == [[1], [1, 3]]


def test_a_track_ends_after_its_patience():
    assert shown(BoxTracker(0.5, patience=1), [box(0)], [box(0)], [], [], [box(0)], [box(0)]) == [
        [1], [1], [1], [], [], [2],
    ]  # fmt: skip


def test_tracks_keep_their_objects_and_classes():
    tracker = BoxTracker(0.5, patience=3)
    for step in range(12):  # two that pass each other on lines 24 pixels apart, and one of another class in place
        tracks = tracker(Boxes([box(5.0 * step), box(60 - 5.0 * step, top=34.0), box(5.0 * step, label="dog")]))
        assert [track.label for track in tracks] == ["cat", "cat", "dog"]
        assert [track.number for track in tracks] == [1, 2, 3]
    assert tracks[0].sides[0] == pytest.approx(55, abs=4)
    assert tracks[1].sides[0] == pytest.approx(5, abs=4)


def test_boxes_tremble_less_than_their_detections_and_stay_with_them():
    rng, tracker = np.random.default_rng(0), BoxTracker(0.5, patience=3)
    places = [4.0 * step + rng.normal(0, 2) for step in range(60)]
    found = np.array([tracker(Boxes([box(place)]))[0].sides[0] for place in places])
    tremble, before = (np.abs(np.diff(each, 2)).mean() for each in (found[10:], np.array(places[10:])))
    assert tremble < 0.7 * before
    assert np.abs(found[20:] - 4.0 * np.arange(60)[20:]).mean() < 3


def test_nothing_found():
    assert shown(BoxTracker(0.5, patience=3), [], []) == [[], []]
