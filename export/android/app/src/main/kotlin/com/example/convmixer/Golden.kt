package com.example.convmixer

import kotlin.math.abs
import org.json.JSONObject

/**
 * The expected results for the self-test's image in `golden.json`.
 *
 * @param top The top classes and their scores, computed by LiteRT.
 * @param tolerances The tolerance of a score, by processor.
 */
class Golden(val top: List<Prediction>, private val tolerances: Map<Processor, Float>) {
    /**
     * Checks the app's results.
     *
     * @param pixels The model's input.
     * @param expectedPixels The expected input, of the same size.
     * @param onCpu The CPU's answer, if `answer` is from another processor.
     */
    fun judge(
        pixels: IntArray,
        expectedPixels: IntArray,
        answer: Answer,
        onCpu: Answer? = null,
    ): Verdict {
        val pixelDifference = largestDifference(pixels, expectedPixels)
        val found = answer.predictions.associateBy { it.index to it.className }
        // A missing class has the largest possible difference.
        val scoreDifference = top.maxOf { expected ->
            val score = found[expected.index to expected.className]?.score
            if (score == null) 1f else abs(score - expected.score)
        }
        val best = answer.predictions.first().className
        val expectedBest = top.first().className
        val passed = pixelDifference <= PIXEL_TOLERANCE &&
            scoreDifference <= tolerances.getValue(answer.processor) &&
            best == expectedBest
        return Verdict(
            passed,
            pixelDifference,
            scoreDifference,
            best,
            expectedBest,
            answer.processor,
            sameAsCpu = answer.processor != Processor.CPU &&
                answer.predictions == onCpu?.predictions,
        )
    }

    companion object {
        // Of 255: different arithmetic may round a pixel differently.
        private const val PIXEL_TOLERANCE = 1

        /** Parses the text of `golden.json`. */
        fun parse(text: String): Golden {
            val json = JSONObject(text)
            val top = json.getJSONArray("top")
            val tolerances = json.getJSONObject("tolerances")
            return Golden(
                List(top.length()) {
                    val entry = top.getJSONObject(it)
                    Prediction(
                        entry.getString("class"),
                        entry.getInt("index"),
                        entry.getDouble("score").toFloat(),
                    )
                },
                Processor.entries.associateWith {
                    tolerances.getDouble(it.name.lowercase()).toFloat()
                },
            )
        }
    }
}

/**
 * The result of the self-test.
 *
 * @param pixelDifference The maximum difference, of 255.
 * @param scoreDifference The maximum difference over the expected classes.
 * @param processor The processor that was requested and did not fail.
 * @param sameAsCpu Whether the scores are identical to the CPU's. A GPU rounds
 *     differently, so in this case the CPU ran the model.
 */
class Verdict(
    val passed: Boolean,
    val pixelDifference: Int,
    val scoreDifference: Float,
    val best: String,
    val expectedBest: String,
    val processor: Processor,
    val sameAsCpu: Boolean,
)

private fun largestDifference(a: IntArray, b: IntArray): Int {
    require(a.size == b.size) { "Images of ${a.size} and ${b.size} pixels can't be compared." }
    return a.indices.maxOf { at ->
        (0..16 step 8).maxOf { abs((a[at] shr it and 0xff) - (b[at] shr it and 0xff)) }
    }
}
