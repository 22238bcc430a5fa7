"""Figures and animations of generated images."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from skimage.util import montage

from shared.data.images.datasets import LabelledImages
from shared.files import replacing


def image_grid(images: np.ndarray, columns: int, margin: int = 2) -> np.ndarray:
    """Image grid on white, row by row.

    Args:
        images: (examples, height, width, channels), uint8.
        columns: images per row.
        margin: between images, in pixels.

    Returns:
        (rows · (height + margin) + margin, columns · (width + margin) + margin, channels), uint8.
    """
    grid, white = (-(-len(images) // columns), columns), [255] * images.shape[-1]
    return montage(images, fill=white, grid_shape=grid, padding_width=margin, channel_axis=-1)


def plot_sheet(sheet: np.ndarray, rows: list[str], row_height: int, title: str = "") -> Figure:
    """Figure of an image grid with a label for each row.

    Args:
        sheet: see `image_grid`.
        rows: the labels, from the top.
        row_height: height of a row, in pixels of the sheet.
        title: of the figure.
    """
    height, width = sheet.shape[:2]
    scale = 10 / max(height, width)
    figure = Figure(figsize=(scale * width + 1, scale * height), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet.squeeze(), cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[(index + 0.5) * row_height for index in range(len(rows))], yticklabels=rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if title:
        axes.set_title(title)
    return figure


def plot_samples(samples: LabelledImages, classes: list[str], columns: int = 12) -> Figure:
    """The first samples of each class, one row per class.

    Args:
        samples: generated images with the labels that they were conditioned on.
        classes: class names; at most twenty are shown.
        columns: images per row.
    """
    height, width, channels = samples.images.shape[1:]
    shown = range(min(len(classes), 20))
    rows = np.full((len(shown), columns, height, width, channels), 255, np.uint8)
    for label in shown:
        images = samples.images[samples.labels == label][:columns]
        rows[label, : len(images)] = images
    sheet = image_grid(rows.reshape(-1, height, width, channels), columns)
    return plot_sheet(sheet, [classes[label] for label in shown], height + 2)


def plot_neighbours(images: np.ndarray, references: np.ndarray, indices: np.ndarray) -> Figure:
    """Generated images, each with its nearest neighbours among the training images on its right.

    Args:
        images: (examples, height, width, channels), uint8.
        references: (training images, height, width, channels), uint8.
        indices: (examples, count), of the nearest training images, nearest first.
    """
    rows = np.concatenate([images[:, None], references[indices]], axis=1)
    sheet = image_grid(rows.reshape(-1, *images.shape[1:]), rows.shape[1])
    title = "generated image and its nearest training images"
    return plot_sheet(sheet, ["generated" for _ in images], images.shape[1] + 2, title)


def plot_denoising(chain: np.ndarray) -> Figure:
    """Denoising from left to right, one image per row.

    Args:
        chain: (stages, examples, height, width, channels), uint8.
    """
    return plot_rows(np.swapaxes(chain, 0, 1), "denoising, from noise to image")


def plot_rows(rows: np.ndarray, title: str) -> Figure:
    """Figure of rows of images.

    Args:
        rows: (rows, columns, height, width, channels), uint8.
        title: of the figure.
    """
    sheet = image_grid(rows.reshape(-1, *rows.shape[2:]), rows.shape[1])
    return plot_sheet(sheet, [""] * len(rows), rows.shape[2] + 2, title)


def save_sheet(path: Path, sheet: np.ndarray) -> None:
    """Writes an `image_grid` as a PNG file, pixel for pixel, and makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        Image.fromarray(sheet.squeeze()).save(unfinished)


def animate_sheets(path: Path, sheets: list[Path], most: int = 60) -> None:
    """Writes an animation of sheets written by `save_sheet`; see `save_animation`.

    Args:
        path: ends in .gif or .webp.
        sheets: the files, in order, at least one.
        most: maximum number of frames, evenly spaced, first and last included.
    """
    indices = np.unique(np.linspace(0, len(sheets) - 1, most).round().astype(int))
    save_animation(path, [np.asarray(Image.open(sheets[index])) for index in indices])


def save_animation(path: Path, frames: Iterable[np.ndarray], seconds: float = 0.2, enlarge: int = 2) -> None:
    """Writes a looping animation, GIF or WebP by the suffix of its path.

    Args:
        path: ends in .gif or .webp.
        frames: (height, width, 1 or 3) or (height, width), uint8, all of one shape.
        seconds: duration of a frame; the last is shown five times as long.
        enlarge: integer zoom factor.
    """
    pictures = [Image.fromarray(frame.repeat(enlarge, 0).repeat(enlarge, 1).squeeze()) for frame in frames]
    durations = [round(1000 * seconds)] * (len(pictures) - 1) + [round(5000 * seconds)]
    with replacing(path) as unfinished:
        pictures[0].save(unfinished, save_all=True, append_images=pictures[1:], duration=durations, loop=0)
