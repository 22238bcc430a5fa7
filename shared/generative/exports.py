"""The exported networks of generative models, and what sampling from them needs."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from shared.backends.exporting import Graph, Tensor, by_keras
from shared.generative.autoencoder.coding import AutoencoderKind, ImageCoder, LatentSampler
from shared.generative.diffusion.samplers import SamplerName, SamplerSteps, sampler_steps
from shared.generative.diffusion.sampling import ImageSampler
from shared.generative.diffusion.schedule import Prediction, Rates, predicted_image
from shared.generative.gan_sampling import NoiseSampler
from shared.generative.pixels import shown_image
from shared.generative.prediction import pictures_of_class
from shared.text.sampling import draw_tokens
from shared.training.exports import (
    Exported,
    GraphCall,
    arrays,
    exported_model,
    model_graph,
    stacked_caches,
    with_room,
)
from shared.training.predictors import ClassName, Pictures, Watcher

EXPORTED_PIXELS = "-1 to 1: round((x + 1) · 127.5), clipped, is 0 to 255"


def exported_generator(model: keras.Model, classes: list[str] | None) -> Exported:
    """The generator of a GAN; see `NoiseSampler`.

    Args:
        model: see there.
        classes: class names; None for an unconditional generator.
    """
    raw = model_graph(model, outputs="images", below=len(classes or [""]))

    def predictor_by(call: GraphCall) -> Callable:
        def generate_pictures(name: ClassName, count: int, seed: int) -> Pictures:
            sampler = NoiseSampler(model, raw.inputs["noise"].shape[1], classes is not None, count, seed)
            sampler.generate = lambda inputs: call("model", inputs)["images"]
            return pictures_of_class(lambda labels: [sampler(labels)], name, classes, count)

        return generate_pictures

    about = {
        "noise": "normal numbers of mean 0 and deviation 1",
        "label": "index of the class" if classes else "0",
        "images": EXPORTED_PIXELS,
    }
    usage = {"classes": classes}
    return Exported(model, "images from noise", raw, about=about, usage=usage, predictor_by=predictor_by)


def exported_autoencoder(kind: AutoencoderKind, model: keras.Model, classes: list[str] | None) -> Exported:
    """The decoder of a variational autoencoder, or prior and decoder of a vector-quantized one; see `LatentSampler`. An
    autoencoder of another kind as it is.

    Args:
        kind: of the autoencoder.
        model: see `ImageCoder`.
        classes: class names; None for a model without classes, as they are.
    """
    if kind == "vector_quantized":
        return exported_codes(model, classes)
    if kind != "variational":
        return exported_model(model)
    channels, decoder = model.get_layer("encoder").input_shape[-1], model.get_layer("decoder")
    means = keras.Model(decoder.input, decoder.output[..., :channels])  # without the scales
    raw = model_graph(means, inputs="noise", outputs="images")

    def predictor_by(call: GraphCall) -> Callable:
        def generate_pictures(name: ClassName, count: int, seed: int) -> Pictures:
            coder = ImageCoder(kind, model, count)
            coder.images = lambda latents: shown_image(call("model", {"noise": latents})["images"])
            draw = LatentSampler(coder, seed)
            return pictures_of_class(lambda labels: [draw(len(labels))], name, classes, count)

        return generate_pictures

    about = {"noise": "normal numbers of mean 0 and deviation 1", "images": EXPORTED_PIXELS}
    usage = {"classes": classes}
    return Exported(means, "images from noise", raw, about=about, usage=usage, predictor_by=predictor_by)


class ExportedCodes(Exported):
    """A prior over code indices, which is called for each of them, and a decoder of all."""

    def expected(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The logits of all code indices at once, and the images."""
        (decode,) = (graph.function for graph in self.graphs if graph.name == "decode")
        prior, (_, rows, columns) = self.model.get_layer("prior"), self.graphs[1].inputs["codes"].shape

        def whole(codes: Any) -> dict[str, Any]:
            return {"logits": prior(codes)} | decode(ops.reshape(codes, (-1, rows, columns)))

        return arrays(by_keras(whole, [self.model])(inputs["codes"]))

    def computed(self, call: GraphCall, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The logits of one code index after the other, and the images."""
        codes, logits = inputs["codes"], []
        tensor = self.graphs[0].inputs["state"]
        state = np.zeros(tensor.sized({"batch": len(codes), "codes": 1}), tensor.dtype)
        for before in np.insert(codes[:, :-1], 0, self.usage["start"], axis=1).T:
            outputs = call("step", {"before": before, "state": state})
            logits.append(outputs["logits"])
            state = outputs["next_state"]
        grid = codes.reshape(-1, *self.graphs[1].inputs["codes"].shape[1:])
        return {"logits": np.stack(logits, axis=1)} | call("decode", {"codes": grid})


def exported_codes(model: keras.Model, classes: list[str] | None) -> Exported:
    """What generates images of a vector-quantized autoencoder.

    The graph "step" is the prior, whose state is the key-value cache, empty at first; "decode" is the decoder of a grid
    of code indices.

    Args:
        model: see `ImageCoder`.
        classes: see `exported_autoencoder`.
    """
    quantizer, decoder, prior = (model.get_layer(name) for name in ("latent", "decoder", "prior"))
    options, (rows, columns) = prior.options, decoder.input_shape[1:3]
    blocks, heads = 2 * options["depth"], options["heads"]
    depth = options["channels"] // heads

    def step(before: Any, state: Any) -> dict[str, Any]:
        index, caches = with_room(state)
        logits, caches = prior.step(before, caches, index)
        return {"logits": logits, "next_state": stacked_caches(caches)}

    def decode(codes: Any) -> dict[str, Any]:
        return {"images": decoder(quantizer.vectors_of(codes), training=False)}

    def predictor_by(call: GraphCall) -> Callable:
        def advance(before: Any, state: np.ndarray, index: Any, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            outputs = call("step", {"before": before, "state": state})
            return ops.convert_to_numpy(draw_tokens(ops.softmax(outputs["logits"]), uniform)), outputs["next_state"]

        def generate_pictures(name: ClassName, count: int, seed: int) -> Pictures:
            coder = ImageCoder("vector_quantized", model, count)
            coder.quantized = lambda codes: codes  # which the graph looks up
            coder.images = lambda codes: shown_image(call("decode", {"codes": codes})["images"])
            draw = LatentSampler(coder, seed)
            draw.draw_codes.advance = advance
            draw.draw_codes.start = np.zeros((count, blocks, heads, 0, depth), np.float32)
            return pictures_of_class(lambda labels: [draw(len(labels))], name, classes, count)

        return generate_pictures

    graphs = [
        Graph(
            "step",
            step,
            {
                "before": Tensor(("batch",), "int32", options["codes"]),
                "state": Tensor(("batch", blocks, heads, "codes - 1", depth)),
            },
            {
                "logits": Tensor(("batch", options["codes"])),
                "next_state": Tensor(("batch", blocks, heads, "codes", depth)),
            },
        ),
        Graph(
            "decode",
            decode,
            {"codes": Tensor(("batch", rows, columns), "int32", options["codes"])},
            {"images": Tensor(("batch", *decoder.output_shape[1:]))},
        ),
    ]
    about = {
        "before": "the code index drawn last; at first start",
        "state": "empty at first, then next_state of the step before",
        "next_state": "for the next step",
        "logits": "of the next code index, row by row",
        "codes": "code indices that were drawn",
        "images": EXPORTED_PIXELS,
    }
    usage = {"classes": classes, "start": options["codes"]}
    raw = model_graph(model, below=options["codes"])
    return ExportedCodes(model, "images from codes", raw, graphs, about, usage, predictor_by=predictor_by)


def denoising_by(call: GraphCall, prediction: Prediction, no_label: int) -> Callable:
    """What the compiled program of `ImageSampler` does, by the exported network."""

    def denoise(
        first: int, last: int, images: tuple[np.ndarray, np.ndarray], table: np.ndarray, start: int,
        labels: np.ndarray, fresh: np.ndarray | None, guidance: Any,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        noisy, before = images
        for index in range(first, last):
            time, signal, noise, guided, keep, image_weight, before_weight, fresh_weight = table[index]
            inputs = {"image": noisy, "time": np.full(len(noisy), time), "label": labels}
            output = call("model", inputs)["outputs"]
            if guidance is not None:
                without_label = call("model", inputs | {"label": np.full_like(labels, no_label)})["outputs"]
                output = without_label + (1 + guided * (guidance - 1)) * (output - without_label)
            image = np.clip(predicted_image(prediction, noisy, output, Rates(signal, noise)), -1, 1)
            noisy = keep * noisy + image_weight * image + before_weight * before
            if fresh is not None:
                noisy = noisy + fresh_weight * fresh[index - start]
            before = image
        return noisy, before

    return denoise


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

    def predictor_by(call: GraphCall) -> Callable:
        sampling = ImageSampler(model, steps, prediction, guidance, len(classes), batch_size=1, seed=0)
        sampling.program = denoising_by(call, prediction, len(classes))

        def generate_pictures(
            name: ClassName, count: int, seed: int, sampler: SamplerName, steps: int, guidance: float,
            watch: Watcher | None = None,
        ) -> Pictures:  # fmt: skip
            chosen = sampling.with_options(sampler_steps(sampler, steps), guidance, count, seed)
            stops = chosen.stops(11)
            return pictures_of_class(lambda labels: chosen.stages(labels, 0, stops), name, classes, count, watch)

        return generate_pictures

    about = {
        "image": f"noisy images; the result is {EXPORTED_PIXELS}",
        "time": "0 to 1, from the image to noise",
        "label": "index of the class; the null label for prediction without one",
        "outputs": {"v": "the velocity, signal · noise - noise rate · image", "noise": "the noise"}[prediction],
    }
    step = {
        "predicted": "signal · noisy - noise · output" if prediction == "v" else "(noisy - noise · output) / signal",
        "output": "without + (1 + guided · (guidance - 1)) · (with - without), with the label and with the null label",
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
    return Exported(model, "images from noise by diffusion", raw, about=about, usage=usage, predictor_by=predictor_by)
