package com.example.convmixer

/** What runs the model. */
enum class Processor { CPU, GPU }

/** A class and its score, a probability in [0, 1]. */
data class Prediction(val className: String, val index: Int, val score: Float)

/** Makes two classes of a single output: 0, the opposite, and 1, the class. */
fun withOpposite(predictions: List<Prediction>): List<Prediction> {
    val (className, _, score) = predictions.singleOrNull() ?: return predictions
    val opposite = Prediction("not $className", 0, 1 - score)
    return listOf(opposite, Prediction(className, 1, score)).sortedByDescending { it.score }
}

/** A model on one processor. */
interface Engine : AutoCloseable {
    /** Gives all classes, the likeliest first, of pixels of the model's size. */
    fun classify(pixels: IntArray): List<Prediction>
}

/**
 * What a classifier answers.
 *
 * @param predictions All classes, the likeliest first.
 * @param processor What ran the model.
 * @param milliseconds How long the model took.
 * @param gpuFailure Why the GPU did not run it though it was asked for.
 */
class Answer(
    val predictions: List<Prediction>,
    val processor: Processor,
    val milliseconds: Long,
    val gpuFailure: String?,
)

/**
 * A classifier that goes on with the CPU where the GPU fails.
 *
 * A GPU can fail when the model is made ready, when it first runs, or give
 * scores that are no numbers. After a failure it is left alone until `retryGpu`.
 * All calls must come from one thread: a GPU's context belongs to one.
 *
 * @param create Makes the model ready on a processor. It may throw.
 */
class FallbackClassifier(private val create: (Processor) -> Engine) : AutoCloseable {
    private var engine: Engine? = null
    private var processor: Processor? = null
    private var gpuFailure: String? = null

    /**
     * Classifies an image.
     *
     * @param pixels Of the model's size.
     * @param wanted What is to run the model, if it can.
     * @throws Exception What the CPU throws.
     */
    fun classify(pixels: IntArray, wanted: Processor = Processor.CPU): Answer {
        if (wanted == Processor.CPU) return run(pixels, Processor.CPU, null)
        if (gpuFailure == null) {
            try {
                return run(pixels, Processor.GPU, null)
            } catch (failure: Throwable) { // Also a driver's library that is missing.
                leaveGpu(failure)
            }
        }
        return run(pixels, Processor.CPU, gpuFailure)
    }

    /** Lets the GPU be tried again after it failed. */
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
            "The model gave no scores, or some that are no numbers."
        }
        return Answer(predictions, on, milliseconds, failure)
    }

    private fun engineOn(wanted: Processor): Engine {
        engine?.let { if (processor == wanted) return it }
        close() // Two of them would take twice the memory.
        processor = wanted
        return create(wanted).also { engine = it }
    }

    private fun leaveGpu(failure: Throwable) {
        gpuFailure = failure.message ?: failure.javaClass.simpleName
        try {
            close()
        } catch (_: Exception) {
            // What failed may fail to close, too; the CPU is not harmed by it.
        }
    }
}
