"""The exported networks of generative models, and what sampling from them needs."""

import keras

from shared.generative.diffusion.samplers import SamplerSteps
from shared.generative.diffusion.schedule import Prediction
from shared.training.exports import Exported, model_graph

EXPORTED_PIXELS = "-1 to 1: round((x + 1) · 127.5), clipped, is 0 to 255"


def exported_generator(model: keras.Model, classes: list[str] | None) -> Exported:
    """The generator of a GAN; see `NoiseSampler`.

    Args:
        model: see there.
        classes: class names; None for an unconditional generator.
    """
    about = {
        "noise": "normal numbers of mean 0 and deviation 1",
        "label": "index of the class" if classes else "0",
        "images": EXPORTED_PIXELS,
    }
    raw = model_graph(model, outputs="images", below=len(classes or [""]))
    return Exported(model, "images from noise", raw, about=about, usage={"classes": classes})


def exported_denoiser(
    model: keras.Model, steps: SamplerSteps, prediction: Prediction, guidance: float, classes: list[str]
) -> Exported:
    """The network of a diffusion model, with the coefficients of a sampler; see `ImageSampler`.

    Args:
        model: see there.
        steps: coefficients of the sampler.
        prediction: prediction target of the model.
        guidance: default of the guidance scale.
        classes: class names.
    """
    about = {
        "image": f"noisy images; the result is {EXPORTED_PIXELS}",
        "time": "0 to 1, from the image to noise",
        "label": "index of the class; the null label for prediction without one",
        "outputs": {"v": "the velocity, signal · noise - noise rate · image", "noise": "the noise"}[prediction],
    }
    step = {
        "predicted": "signal · noisy - noise · output" if prediction == "v" else "(noisy - noise · output) / signal",
        "output": "without + guidance · (with - without), with the label and with the null label",
        "next": "keep · noisy + image · clip(predicted, -1, 1) + before · (predicted before) + fresh · new noise",
    }
    usage = {
        "classes": classes,
        "null_label": len(classes),
        "guidance": guidance,
        "prediction": prediction,
        "step": step,
        "steps": [dict(zip(steps._fields, map(float, row), strict=True)) for row in zip(*steps, strict=True)],
    }
    raw = model_graph(model, below=len(classes) + 1)
    return Exported(model, "images from noise by diffusion", raw, about=about, usage=usage)
