"""Tracking of detected objects from frame to frame of a video."""

import numpy as np

from shared.training.predictors import Box, Boxes

OVERLAP = 0.3
"""IoU from which a detection continues a track."""

POSITION_GAIN = 0.6
"""Gain of the alpha–beta filter of a track's box; with the next one and that of its mean score."""

VELOCITY_GAIN = 0.1

SCORE_GAIN = 0.2


class ObjectTrack:
    """An object that is followed: its number, box, velocity in pixels a frame, and mean score."""

    def __init__(self, number: int, box: Box):
        self.number = number
        self.label = box.label
        self.score = box.score
        self.sides = np.array(box[2:])
        self.velocity = np.zeros(4)
        self.found = 1
        self.missed = 0

    def expect(self) -> None:
        """Moves to where the object is expected in the next frame."""
        self.sides = self.sides + self.velocity
        self.missed += 1

    def follow(self, box: Box) -> None:
        """Corrects the expected box by a detection."""
        error = np.array(box[2:]) - self.sides
        self.sides = self.sides + POSITION_GAIN * error
        # Both sides move alike: a change of size, mostly noise, would go on while the object is hidden.
        self.velocity = self.velocity + VELOCITY_GAIN * np.tile((error[:2] + error[2:]) / 2, 2)
        self.score += SCORE_GAIN * (box.score - self.score)
        self.found, self.missed = self.found + 1, 0

    def box(self) -> Box:
        """Class, mean score and smoothed sides."""
        return Box(self.label, self.score, *self.sides.tolist())


class BoxTracker:
    """Follows detections from frame to frame, so that boxes neither flicker nor tremble.

    Detections and tracks of a class are associated by IoU, weak detections too (ByteTrack, Zhang et al. 2022,
    arXiv:2110.06864). Hysteresis thresholding: only a detection of at least the confidence begins a track, weaker ones
    continue it. A track is shown once it was found in two frames, and for some frames after it was last found. Boxes
    are smoothed by an alpha–beta filter.

    Args:
        confidence: score from which a detection begins a track.
        patience: number of frames without a detection after which a track ends.
    """

    def __init__(self, confidence: float, patience: int):
        self.confidence = confidence
        self.patience = patience
        self.tracks: list[ObjectTrack] = []
        self.count = 0
        """Number of tracks so far."""

    def __call__(self, found: Boxes) -> list[ObjectTrack]:
        """The tracks to show with the detections of the next frame."""
        at_first = self.count == 0
        for track in self.tracks:
            track.expect()
        free_tracks, free_boxes = set(range(len(self.tracks))), set(range(len(found)))
        overlaps = track_overlaps(self.tracks, found)
        for index in np.argsort(-overlaps, axis=None, kind="stable"):
            row, column = divmod(int(index), len(found))
            if overlaps[row, column] < OVERLAP:
                break
            if row in free_tracks and column in free_boxes:
                self.tracks[row].follow(found[column])
                free_tracks.remove(row)
                free_boxes.remove(column)
        for column in sorted(free_boxes):
            if found[column].score >= self.confidence:
                self.count += 1
                self.tracks.append(ObjectTrack(self.count, found[column]))
        self.tracks = [track for track in self.tracks if track.missed <= self.patience]
        return [track for track in self.tracks if track.found > 1 or at_first]


def track_overlaps(tracks: list[ObjectTrack], found: Boxes) -> np.ndarray:
    """IoU (tracks, boxes) of tracks and detections; 0 for those of different classes."""
    first = np.array([track.sides for track in tracks]).reshape(-1, 1, 4)
    second = np.array([box[2:] for box in found]).reshape(1, -1, 4)
    size = np.maximum(0, np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2]))
    shared_area = size.prod(axis=-1)
    areas = [(each[..., 2:] - each[..., :2]).prod(axis=-1) for each in (first, second)]
    overlaps = shared_area / np.maximum(areas[0] + areas[1] - shared_area, 1e-9)
    same = np.array([[track.label == box.label for box in found] for track in tracks], bool).reshape(overlaps.shape)
    return np.where(same, overlaps, 0.0)
