"""The command `recipes predict` on videos, with predictors in place of those of trained models."""

import base64
import json
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import refused_in_one_line
from PIL import Image
from test_predict import Config

from shared.tools import predict, video
from shared.tools.predict import predict_from
from shared.tools.video import VideoWriter
from shared.training.predictors import Box, Boxes, Mask, Picture, Probabilities

pytestmark = pytest.mark.once
av = pytest.importorskip("av")


def frame(index, size=(64, 48)):
    """A red square that moves, on grey."""
    image = Image.new("RGB", size, "grey")
    image.paste("red", (2 * index, 20, 2 * index + 12, 32))
    return image


def detector(scores):
    """Finds the square, with these scores one after another."""
    coming = iter(scores)

    def detect(image: Picture, confidence: float = 0.5) -> Boxes:
        pixels, score = np.asarray(image).astype(int), next(coming)
        rows, columns = np.nonzero(pixels[..., 0] - pixels[..., 1] > 90)
        box = Box("cat", score, columns.min(), rows.min(), columns.max() + 1.0, rows.max() + 1.0)
        return Boxes([box] if score >= confidence else [])

    return detect


def segment(image: Picture) -> Mask:
    pixels = np.asarray(image).astype(int)
    mask = Image.fromarray((pixels[..., 0] - pixels[..., 1] > 90).astype(np.uint8)).convert("P")
    return Mask(mask)


def classify(image: Picture) -> Probabilities:
    return Probabilities({"cat": 1.0})


@pytest.fixture
def ask(monkeypatch, tmp_path, capsys):
    """Gives a predictor words of the command line; returns what it printed."""
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)

    def ask(predictor, *words):
        run = SimpleNamespace(directory=tmp_path / "run", config=Config(), result={"classes": ["cat", "dog"]})
        monkeypatch.setattr(predict, "open_predictor", lambda directory: (run, predictor))
        assert predict_from(run.directory, list(words)) == 0
        return capsys.readouterr().out

    return ask


def film(path, frames=12, rate=10, size=(64, 48)):
    """A video of the square, in MP4."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.bit_rate = 2_000_000
        for index in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_image(frame(index, size))))
        container.mux(stream.encode(None))
    return path


def seen(path):
    """The codec, times and images of a video."""
    with av.open(str(path)) as container:
        frames = [(each.time, np.asarray(each.to_image()).astype(int)) for each in container.decode(video=0)]
        return container.streams.video[0].codec_context.name, *zip(*frames, strict=True)


def test_boxes_on_a_video(ask, tmp_path, capsys):
    film(tmp_path / "square.mp4")
    scores = [0.9, 0.8, 0.3, 0.25, 0.1, 0.9, 0.3, 0.3, 0.1, 0.1, 0.9, 0.9]
    printed = ask(detector(scores), "square.mp4", "--confidence", "0.5")
    path = tmp_path / "run/predictions/000-square.webm"
    assert printed == f"square.mp4: 12 frames, drawn in {path}\n"
    codec, times, images = seen(path)
    assert codec == "vp9"
    np.testing.assert_allclose(times, np.arange(12) / 10, atol=2e-3)
    for index, image in enumerate(images):
        assert np.sum(image[..., 2] - image[..., 0] > 40) > 20, f"no box is drawn on frame {index}"
    (entry,) = json.loads((tmp_path / "run/predictions.json").read_text())
    assert [[each["track"] for each in every["objects"]] for every in entry["frames"]] == [[1]] * 12
    for index, every in enumerate(entry["frames"]):
        assert every["time"] == pytest.approx(index / 10)
        assert every["objects"][0]["box"] == pytest.approx([2 * index, 20, 2 * index + 12, 32], abs=3)


def test_masks_and_the_images_of_a_folder(ask, tmp_path):
    film(tmp_path / "square.avi", size=(64, 48))
    facts = json.loads(ask(segment, "square.avi", "--json"))
    assert facts == {"input": "square.avi", "drawn": str(tmp_path / "run/predictions/000-square.webm"), "frames": 12}
    (tmp_path / "frames").mkdir()
    for index in range(3):
        frame(index, (33, 48)).save(tmp_path / f"frames/{index}.png")
    printed = ask(segment, "frames", "--video")
    assert printed == f"frames: 3 frames, drawn in {tmp_path / 'run/predictions/000-frames.webm'}\n"
    _, times, images = seen(tmp_path / "run/predictions/000-frames.webm")
    assert images[0].shape == (48, 32, 3), "VP9 has even sides"
    np.testing.assert_allclose(times, [0, 0.04, 0.08], atol=2e-3)
    frame(0, (20, 20)).save(tmp_path / "frames/9.png")
    with refused_in_one_line("frames/9.png is of 20×20 pixels, not 33×48, after 3 frames"):
        ask(segment, "frames", "--video")
    (tmp_path / "none").mkdir()
    with refused_in_one_line("none holds no image files"):
        ask(segment, "none", "--video")


def test_what_cannot_be_read_or_is_stopped(ask, tmp_path, monkeypatch, hiding):
    (tmp_path / "torn.mp4").write_bytes(b"torn")
    with refused_in_one_line("torn.mp4 cannot be read as a video ("):
        ask(segment, "torn.mp4")
    with refused_in_one_line("gone.mkv cannot be read as a video (No such file or directory)"):
        ask(segment, "gone.mkv")
    assert not list((tmp_path / "run/predictions").iterdir())
    film(tmp_path / "square.mp4")
    with refused_in_one_line("square.mp4 is a video, which only recipes that find boxes or masks take"):
        ask(classify, "square.mp4")

    def stopped(image: Picture) -> Mask:
        if (np.asarray(image)[25, 15] > 200).any():
            raise KeyboardInterrupt
        return segment(image)

    with pytest.raises(KeyboardInterrupt):
        ask(stopped, "square.mp4")
    _, times, _ = seen(tmp_path / "run/predictions/000-square.webm")
    assert 0 < len(times) < 12
    monkeypatch.setattr(video, "is_camera", lambda word: word == "/dev/video7")
    monkeypatch.setattr(predict, "is_camera", lambda word: word == "square.mp4")
    assert ask(stopped, "square.mp4").startswith(f"square.mp4: {len(times)} frames, drawn in ")


@pytest.mark.slow
def test_a_browser_plays_it(browser, tmp_path):
    writer = VideoWriter(tmp_path / "square.webm", Fraction(10))
    for index in range(12):
        writer.write(index / 10, frame(index))
    writer.close()
    page = browser.new_page()
    content = base64.b64encode((tmp_path / "square.webm").read_bytes()).decode()
    page.set_content(f'<video muted src="data:video/webm;base64,{content}"></video>')
    page.evaluate("document.querySelector('video').play()")
    page.wait_for_function("document.querySelector('video').ended", timeout=20_000)
    facts = page.evaluate(
        "[...['videoWidth', 'videoHeight', 'duration']].map((name) => document.querySelector('video')[name])"
    )
    assert facts[:2] == [64, 48]
    assert facts[2] == pytest.approx(1.2, abs=0.15)
