"""What lies between encoder and decoder: a normal posterior, or a codebook. Their losses are added to the model's."""

import keras
from keras import layers, ops

from shared.backends.initializers import RandomNormal
from shared.backends.normalization import weighted_mean
from shared.generative.autoencoder.likelihood import gaussian_divergence, split_parameters


@keras.saving.register_keras_serializable("keras_recipes")
class GaussianLatent(layers.Layer):
    """Sample of a normal posterior by the reparametrization trick: mean + deviation · noise.

    The latent layer of a variational autoencoder, VAE (Kingma and Welling 2013, arXiv:1312.6114). It adds to the loss β
    times the KL divergence from the standard normal prior, in nats, averaged over the batch (β-VAE: Higgins et al.
    2017, https://openreview.net/forum?id=Sy2fzU9gl).

    Args:
        beta: weight β of the divergence; 1 for the evidence lower bound (ELBO).

    Inputs: (batch, 2 · latent), means, then logarithms of the variances; and standard normal noise (batch, latent).
    Output: (batch, latent).
    """

    def __init__(self, beta=1.0, **kwargs):
        super().__init__(**kwargs)
        self.beta = beta

    def call(self, inputs, noise):
        mean, log_variance = split_parameters(inputs)
        divergence = ops.sum(gaussian_divergence(mean, log_variance), axis=-1)
        self.add_loss(self.beta * ops.mean(divergence))
        latent = mean + ops.exp(0.5 * log_variance) * ops.cast(noise, "float32")
        return ops.cast(latent, self.compute_dtype)

    def compute_output_shape(self, inputs_shape, noise_shape):
        return noise_shape

    def get_config(self):
        return super().get_config() | {"beta": self.beta}


@keras.saving.register_keras_serializable("keras_recipes")
class VectorQuantizer(layers.Layer):
    """Replaces each vector by the nearest of a codebook, which follows the vectors by moving averages.

    The latent layer of VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937, with the codebook of appendix A.1):
    gradients pass straight through it, and it adds to the loss the commitment of the encoder, the mean squared distance
    of its vectors from their codes. A code that fewer than one vector in a batch chooses, as at the start, is replaced
    by a vector of the batch (random restarts: Dhariwal et al. 2020, arXiv:2005.00341, section 3.1); by which, uniform
    random numbers decide that come with the batch. Codebook and averages are weights that are not trained: they move in
    the training step, and stay as they are outside of it.

    Args:
        codes: size of the codebook.
        decay: of the moving averages (EMA).
        commitment: weight of the commitment loss.

    Inputs: vectors (batch, rows, columns, channels), and uniform random numbers (batch, rows · columns), 0 to 1.
    Output: the shape of the vectors.
    """

    def __init__(self, codes=512, decay=0.99, commitment=0.25, **kwargs):
        super().__init__(**kwargs)
        self.codes = codes
        self.decay = decay
        self.commitment = commitment

    def build(self, inputs_shape, noise_shape):
        shape = self.codes, inputs_shape[-1]
        fixed = {"trainable": False, "dtype": "float32", "autocast": False}
        self.codebook = self.add_weight(shape=shape, initializer=RandomNormal(stddev=1.0), name="codebook", **fixed)
        self.counts = self.add_weight(shape=(self.codes,), initializer="zeros", name="counts", **fixed)
        self.sums = self.add_weight(shape=shape, initializer="zeros", name="sums", **fixed)

    def call(self, inputs, noise, training=None):
        vectors = ops.cast(inputs, "float32")
        quantized = self.vectors_of(self.indices(vectors))
        error = ops.mean(ops.square(vectors - ops.stop_gradient(quantized)))
        self.add_loss(self.commitment * error)
        if training:
            self.follow(ops.stop_gradient(vectors), noise)
        return ops.cast(vectors + ops.stop_gradient(quantized - vectors), self.compute_dtype)

    def indices(self, vectors):
        """Index of the nearest code of each vector: (batch, rows, columns), int32."""
        vectors = ops.cast(vectors, "float32")
        flat = ops.reshape(vectors, (-1, vectors.shape[-1]))
        # |v − c|² without |v|², which is the same for all codes.
        distances = ops.sum(ops.square(self.codebook), axis=-1) - 2 * ops.matmul(flat, ops.transpose(self.codebook))
        return ops.reshape(ops.cast(ops.argmin(distances, axis=-1), "int32"), (-1, *vectors.shape[1:-1]))

    def vectors_of(self, indices):
        """The codes (…, channels) of indices (…)."""
        return ops.take(self.codebook, indices, axis=0)

    def follow(self, vectors, noise):
        """Moves the codebook towards the vectors that chose each code."""
        flat = ops.reshape(vectors, (-1, vectors.shape[-1]))
        # Not `one_hot`: on PyTorch it asks for the value of the largest index at each step.
        nearest = ops.reshape(self.indices(vectors), (-1, 1))
        chosen = ops.cast(nearest == ops.arange(self.codes, dtype="int32"), "float32")
        counts = weighted_mean(self.counts, ops.sum(chosen, axis=0), self.decay)
        sums = weighted_mean(self.sums, ops.matmul(ops.transpose(chosen), flat), self.decay)
        drawn = ops.argsort(ops.reshape(ops.cast(noise, "float32"), (-1,)))
        places = ops.arange(self.codes, dtype="int32") % ops.shape(flat)[0]  # a batch may hold fewer vectors than codes
        fresh = ops.take(flat, ops.take(drawn, places, axis=0), axis=0)
        unused = counts < 1
        counts = ops.where(unused, 1.0, counts)
        sums = ops.where(unused[:, None], fresh, sums)
        self.counts.assign(counts)
        self.sums.assign(sums)
        self.codebook.assign(sums / counts[:, None])

    def compute_output_shape(self, inputs_shape, noise_shape):
        return inputs_shape

    def get_config(self):
        return super().get_config() | {"codes": self.codes, "decay": self.decay, "commitment": self.commitment}
