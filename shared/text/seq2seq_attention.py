"""Global attention of a recurrent decoder over the encoder outputs (Luong, Bahdanau)."""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable("keras_recipes")
class GlobalAttention(layers.Layer):
    """Global attention: for each decoder output, a weighted mean of the encoder outputs.

    The weights are the softmax of a score of query q and encoder output h:

        "dot"        q · h / √size               Luong et al. 2015, arXiv:1508.04025, section 3.1
        "general"    q · W h / √size             the same
        "additive"   v · tanh(W q + U h + b)     Bahdanau et al. 2014, arXiv:1409.0473, appendix A.1.2

    Luong's scores are scaled by 1 / √size, as in Vaswani et al. 2017, arXiv:1706.03762: otherwise the softmax saturates
    on a single position and stops learning.

    Bahdanau's decoder queries with its previous state and receives the context as input, which needs a loop over the
    targets. Here all three scores query with the decoder output, as Luong's do, for all targets at once.

    Args:
        score: "dot", "general" or "additive".
        units: hidden size of the additive score.

    Input: queries (rows, targets, size), memory (batch, sources, size) and memory_mask (batch, sources), False for
    padding; for "general" and "additive" the sizes may differ. Each item of the memory serves as many rows, such as the
    beams of a search, and needs at least one position without padding.
    Output: contexts (rows, targets, size of memory) and weights (rows, targets, sources).
    """

    def __init__(self, score="general", units=64, **kwargs):
        super().__init__(**kwargs)
        if score not in ("dot", "general", "additive"):
            raise ValueError(f"score must be dot, general or additive, not {score}")
        self.score = score
        self.units = units

    def build(self, queries_shape, memory_shape):
        query_size, memory_size = queries_shape[-1], memory_shape[-1]
        if self.score == "dot" and query_size != memory_size:
            raise ValueError(f"the dot score needs queries and memory of one size, not {query_size} and {memory_size}")
        if self.score == "general":
            self.query_kernel = self.add_weight(shape=(query_size, memory_size), name="query_kernel")
        if self.score == "additive":
            self.query_kernel = self.add_weight(shape=(query_size, self.units), name="query_kernel")
            self.memory_kernel = self.add_weight(shape=(memory_size, self.units), name="memory_kernel")
            self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")
            self.direction = self.add_weight(shape=(self.units, 1), name="direction")

    def call(self, queries, memory, memory_mask):
        # Rows that share a memory are as many queries of it, so that it is read once.
        together = ops.reshape(queries, (ops.shape(memory)[0], -1, queries.shape[2]))
        scores = ops.where(memory_mask[:, None, :], ops.cast(self.scores(together, memory), "float32"), -1e9)
        weights = ops.cast(ops.softmax(scores), self.compute_dtype)
        rows = ops.shape(queries)[:2]
        contexts = ops.reshape(ops.matmul(weights, memory), (*rows, memory.shape[-1]))
        return contexts, ops.reshape(weights, (*rows, -1))

    def scores(self, queries, memory):
        """(batch, targets, sources)."""
        if self.score == "additive":
            hidden = (
                ops.matmul(queries, self.query_kernel)[:, :, None] + ops.matmul(memory, self.memory_kernel)[:, None]
            )
            return ops.matmul(ops.tanh(hidden + self.bias), self.direction)[..., 0]
        if self.score == "general":
            queries = ops.matmul(queries, self.query_kernel)
        return ops.matmul(queries * memory.shape[-1] ** -0.5, ops.swapaxes(memory, 1, 2))

    def compute_output_shape(self, queries_shape, memory_shape):
        batch, targets, _ = queries_shape
        return (batch, targets, memory_shape[-1]), (batch, targets, memory_shape[1])

    def get_config(self):
        return super().get_config() | {"score": self.score, "units": self.units}
