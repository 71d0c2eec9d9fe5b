package com.example.convmixer

/** The processor that runs the model. */
enum class Processor { CPU, GPU }

/** A class and its score, a probability in [0, 1]. */
data class Prediction(val className: String, val index: Int, val score: Float)

/** Converts a single output to two classes: 0, negative, and 1, positive. */
fun withOpposite(predictions: List<Prediction>): List<Prediction> {
    val (className, _, score) = predictions.singleOrNull() ?: return predictions
    val opposite = Prediction("not $className", 0, 1 - score)
    return listOf(opposite, Prediction(className, 1, score)).sortedByDescending { it.score }
}

/** A model on one processor. */
interface Engine : AutoCloseable {
    /** Returns all classes, the most probable first, for pixels of the model's size. */
    fun classify(pixels: IntArray): List<Prediction>
}

/**
 * The result of a classifier.
 *
 * @param predictions All classes, the most probable first.
 * @param processor The processor that ran the model.
 * @param milliseconds The time of the model.
 * @param gpuFailure The reason why the requested GPU was not used.
 */
class Answer(
    val predictions: List<Prediction>,
    val processor: Processor,
    val milliseconds: Long,
    val gpuFailure: String?,
)

/**
 * A classifier that uses the CPU if the GPU fails.
 *
 * A GPU can fail when the model is loaded or first runs, or it can return NaNs.
 * After a failure, it is not used until `retryGpu`. All calls must come from
 * one
 * thread, because a GPU's context belongs to one thread.
 *
 * @param create Loads the model on a processor. It may throw.
 */
class FallbackClassifier(private val create: (Processor) -> Engine) : AutoCloseable {
    private var engine: Engine? = null
    private var processor: Processor? = null
    private var gpuFailure: String? = null

    /**
     * Classifies an image.
     *
     * @param pixels Pixels of the model's size.
     * @param wanted The preferred processor.
     * @throws Exception The CPU's exception.
     */
    fun classify(pixels: IntArray, wanted: Processor = Processor.CPU): Answer {
        if (wanted == Processor.CPU) return run(pixels, Processor.CPU, null)
        if (gpuFailure == null) {
            try {
                return run(pixels, Processor.GPU, null)
            } catch (failure: Throwable) { // Includes missing driver libraries.
                leaveGpu(failure)
            }
        }
        return run(pixels, Processor.CPU, gpuFailure)
    }

    /** Allows another attempt with the GPU after a failure. */
    fun retryGpu() {
        gpuFailure = null
    }

    override fun close() {
        val former = engine
        engine = null
        former?.close()
    }

    private fun run(pixels: IntArray, on: Processor, failure: String?): Answer {
        val ready = engineOn(on)
        val start = System.nanoTime()
        val predictions = ready.classify(pixels)
        val milliseconds = (System.nanoTime() - start) / 1_000_000
        check(predictions.isNotEmpty() && predictions.all { it.score.isFinite() }) {
            "The model returned no scores, or some that are not numbers."
        }
        return Answer(predictions, on, milliseconds, failure)
    }

    private fun engineOn(wanted: Processor): Engine {
        engine?.let { if (processor == wanted) return it }
        close() // Two engines would take twice the memory.
        processor = wanted
        return create(wanted).also { engine = it }
    }

    private fun leaveGpu(failure: Throwable) {
        gpuFailure = failure.message ?: failure.javaClass.simpleName
        try {
            close()
        } catch (_: Exception) {
            // A failed engine may also fail to close, which does not affect the
            // CPU.
        }
    }
}
