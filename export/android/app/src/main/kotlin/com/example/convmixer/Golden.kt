package com.example.convmixer

import kotlin.math.abs
import org.json.JSONObject

/**
 * What `golden.json` expects of the self-test's image.
 *
 * @param top The likeliest classes and their scores, computed by LiteRT.
 * @param tolerances How far a score may be off, by processor.
 */
class Golden(val top: List<Prediction>, private val tolerances: Map<Processor, Float>) {
    /**
     * Judges what the app computed.
     *
     * @param pixels What the model got.
     * @param expectedPixels What it should have got, of the same size.
     * @param onCpu What the CPU answered, if `answer` is another processor's.
     */
    fun judge(
        pixels: IntArray,
        expectedPixels: IntArray,
        answer: Answer,
        onCpu: Answer? = null,
    ): Verdict {
        val pixelDifference = largestDifference(pixels, expectedPixels)
        val found = answer.predictions.associateBy { it.index to it.className }
        // A class that is missing is as wrong as a score can be.
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
        // Of 255: other arithmetic may round a pixel the other way.
        private const val PIXEL_TOLERANCE = 1

        /** Reads the text of `golden.json`. */
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
 * What the self-test found.
 *
 * @param pixelDifference The largest, of 255.
 * @param scoreDifference The largest, of the expected classes.
 * @param processor What was asked to run the model, and did not fail.
 * @param sameAsCpu Whether its scores are the CPU's to the bit. A GPU rounds
 *     otherwise, so that it was the CPU that ran the model.
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
