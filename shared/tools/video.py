"""Videos: their frames, and copies of them in VP9, which browsers play, with what was found drawn on each."""

import contextlib
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from tqdm import tqdm

from shared.backends.choice import require_extra
from shared.data.images.files import open_picture
from shared.data.images.folders import picture_files
from shared.detection.plots import box_facts, draw_tracks
from shared.detection.tracking import BoxTracker
from shared.files import replacing
from shared.segmentation.plots import mask_facts, mask_over
from shared.training.predictors import Boxes, InputError

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv")

FRAMES_A_SECOND = 25
"""Of a video that is made of images, or does not say it."""

WEAKER = 0.4
"""Fraction of the confidence threshold that detections need to continue a track."""

PATIENCE_SECONDS = 0.3
"""How long the box of an object that is no longer detected stays."""


class Video(NamedTuple):
    """An opened video."""

    frames: Iterator[tuple[float, Image.Image]]
    """Time in seconds, and image in RGB, of each frame."""
    rate: Fraction
    """Frames a second, on average."""
    count: int | None
    """Number of frames, if it is known."""


def is_video(word: str) -> bool:
    """Whether a word of the command line names a video or a camera."""
    return Path(word).suffix.lower() in SUFFIXES or is_camera(word)


def is_camera(word: str) -> bool:
    """Whether a word of the command line names a camera, as Linux does."""
    return word.startswith("/dev/video")


@contextlib.contextmanager
def opened_video(name: str) -> Iterator[Video]:
    """A video file, a camera, or a folder whose images in order of their names are the frames.

    Raises:
        InputError: it cannot be read; also while its frames are.
        UsageError: PyAV is not installed.
    """
    require_extra("video", "av")
    import av
    from av import open as open_container

    if os.path.isdir(name):
        yield video_of_images(Path(name))
        return

    @contextlib.contextmanager
    def reading() -> Iterator[None]:
        try:
            yield
        except av.FFmpegError as error:
            raise InputError(f"{name} cannot be read as a video ({error.strerror})") from None

    def images(stream: Any) -> Iterator[tuple[float, Image.Image]]:
        with reading():
            for frame in stream.container.decode(stream):
                image = frame.to_image()
                yield frame.time, image.rotate(frame.rotation, expand=True) if frame.rotation else image

    with reading():
        container = open_container(name, format="v4l2" if is_camera(name) else None)
    with container:
        if not container.streams.video:
            raise InputError(f"{name} holds no video")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        rate = stream.average_rate or Fraction(FRAMES_A_SECOND)
        length = container.duration and round(container.duration / av.time_base * rate)
        yield Video(images(stream), rate, stream.frames or length or None)


def video_of_images(folder: Path) -> Video:
    """The images of a folder as frames, all of the size of the first."""
    paths = picture_files(folder)
    if not paths:
        raise InputError(f"{folder} holds no image files")

    def frames() -> Iterator[tuple[float, Image.Image]]:
        size = None
        for index, path in enumerate(paths):
            try:
                image = open_picture(path)
            except ValueError as error:
                raise InputError(f"{path} cannot be read as an image ({error})") from None
            size = size or image.size
            if image.size != size:
                raise InputError(f"{path} is of {image.width}×{image.height} pixels, not {size[0]}×{size[1]}")
            yield index / FRAMES_A_SECOND, image

    return Video(frames(), Fraction(FRAMES_A_SECOND), len(paths))


class VideoWriter:
    """Writes frames to a WebM file, in VP9.

    Args:
        path: of the file.
        rate: frames a second, on average.
    """

    def __init__(self, path: Path, rate: Fraction):
        from av import open as open_container

        self.container = open_container(str(path), "w", format="webm")
        speed = {"deadline": "realtime", "cpu-used": "5", "row-mt": "1"}
        self.stream = self.container.add_stream("libvpx-vp9", rate=rate, options={"crf": "30", **speed})
        self.stream.pix_fmt, self.stream.bit_rate = "yuv420p", 0  # constant quality
        self.stream.codec_context.time_base = Fraction(1, 1000)
        self.last = -1

    def write(self, time: float, image: Image.Image) -> None:
        """Adds a frame; all must have the size of the first."""
        import av

        if self.last < 0:
            self.stream.width, self.stream.height = (side - side % 2 for side in image.size)  # colours are of 2 by 2
        frame = av.VideoFrame.from_image(image.crop((0, 0, self.stream.width, self.stream.height)))
        self.last = frame.pts = max(self.last + 1, round(1000 * time))
        frame.time_base = Fraction(1, 1000)
        self.container.mux(self.stream.encode(frame))

    def close(self) -> None:
        """Ends the file."""
        if self.last >= 0:
            self.container.mux(self.stream.encode(None))
        self.container.close()


def boxes_on_frames(predict: Callable, options: dict[str, Any], classes: list[str], rate: Fraction) -> Callable:
    """From a frame to a copy with the tracked objects, and these as JSON.

    Args:
        predict: from an image to `Boxes`; where it has an option `confidence`, weaker detections continue a track.
        options: of the predictor.
        classes: all class names, which determine the colors.
        rate: frames a second.
    """
    confidence = options.get("confidence", 0.0)
    weaker = options | ({"confidence": WEAKER * confidence} if "confidence" in options else {})
    track = BoxTracker(confidence, round(PATIENCE_SECONDS * rate))

    def draw(image: Image.Image) -> tuple[Image.Image, dict[str, Any]]:
        boxes = {each.number: each.box() for each in track(predict(image, **weaker))}
        objects = [{"track": number} | box_facts(box) for number, box in boxes.items()]
        return draw_tracks(image, Boxes([*boxes.values()]), classes), {"objects": objects}

    return draw


def masks_on_frames(predict: Callable, options: dict[str, Any], classes: list[str]) -> Callable:
    """From a frame to a copy with its mask over it, and the fractions of classes or number of objects."""

    def draw(image: Image.Image) -> tuple[Image.Image, dict[str, Any]]:
        mask = predict(image, **options)
        return mask_over(image, mask), mask_facts(mask, classes)

    return draw


def draw_on_video(
    name: str, path: Path, gives: Any, predict: Callable, options: dict[str, Any], classes: list[str]
) -> tuple[list[dict[str, Any]], BaseException | None]:
    """Writes a copy of a video, without its sound, with what was found drawn on each frame, and shows the progress.

    Args:
        name: see `opened_video`.
        path: the .webm file to write.
        gives: output type of the predictor, Boxes or Mask.
        predict: the predictor.
        options: of the predictor.
        classes: all class names.

    Returns:
        For each frame its time in seconds and what was found, as JSON; and what ended the video early, if anything did:
        Ctrl-C, or an InputError where the file is damaged.

    Raises:
        InputError: not even a frame can be read.
    """
    found: list[dict[str, Any]] = []
    stopped = None
    with opened_video(name) as video, replacing(path) as unfinished:
        draw = masks_on_frames(predict, options, classes)
        if gives is Boxes:
            draw = boxes_on_frames(predict, options, classes, video.rate)
        bar = tqdm(total=video.count, desc=Path(name).name, unit="frame", disable=None)
        with bar, contextlib.closing(VideoWriter(unfinished, video.rate)) as writer:
            try:
                for time, image in video.frames:
                    drawn, facts = draw(image)
                    writer.write(time, drawn)
                    found.append({"time": round(time, 3)} | facts)
                    bar.update()
            except (InputError, KeyboardInterrupt) as error:
                stopped = error
        if not found:
            raise stopped or InputError(f"{name} holds no frames")
    return found, stopped
