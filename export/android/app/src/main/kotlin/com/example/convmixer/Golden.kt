package com.example.convmixer

import kotlin.math.abs
import org.json.JSONObject

/**
 * What `golden.json` expects of the bundled image.
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
     * @param predictions All classes, the likeliest first.
     * @param processor What ran the model.
     */
    fun judge(
        pixels: ByteArray,
        expectedPixels: ByteArray,
        predictions: List<Prediction>,
        processor: Processor,
    ): Verdict {
        val pixelDifference = largestDifference(pixels, expectedPixels)
        val found = predictions.associateBy { it.index to it.className }
        // A class that is missing is as wrong as a score can be.
        val scoreDifference = top.maxOf { expected ->
            val score = found[expected.index to expected.className]?.score
            if (score == null) 1f else abs(score - expected.score)
        }
        val best = predictions.firstOrNull()?.className
        return Verdict(
            passed = pixelDifference <= PIXEL_TOLERANCE &&
                scoreDifference <= tolerances.getValue(processor) &&
                best == top.first().className,
            pixelDifference = pixelDifference,
            scoreDifference = scoreDifference,
            best = best.orEmpty(),
            expectedBest = top.first().className,
            processor = processor,
        )
    }

    companion object {
        // Of 255: other arithmetic may round a pixel the other way.
        const val PIXEL_TOLERANCE = 1

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
 */
class Verdict(
    val passed: Boolean,
    val pixelDifference: Int,
    val scoreDifference: Float,
    val best: String,
    val expectedBest: String,
    val processor: Processor,
)

private fun largestDifference(a: ByteArray, b: ByteArray): Int {
    require(a.size == b.size) { "Images of ${a.size} and ${b.size} bytes can't be compared." }
    return a.indices.maxOf { abs((a[it].toInt() and 0xff) - (b[it].toInt() and 0xff)) }
}
