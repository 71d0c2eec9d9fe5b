package com.example.convmixer

import org.json.JSONException
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

private val PIXELS = byteArrayOf(10, 20, -1)

class GoldenTest {
    private val golden = Golden.parse(
        """
        {"top": [{"class": "cat", "index": 2, "score": 0.75},
                 {"class": "狐", "index": 0, "score": 0.125}],
         "tolerances": {"cpu": 0.01, "gpu": 0.1}}
        """,
    )

    private fun judge(
        cat: Float,
        fox: Float = 0.125f,
        pixels: ByteArray = PIXELS,
        processor: Processor = Processor.CPU,
    ): Verdict {
        val predictions = listOf(Prediction("cat", 2, cat), Prediction("狐", 0, fox))
        val sorted = predictions.sortedByDescending { it.score }
        return golden.judge(pixels, PIXELS, sorted, processor)
    }

    @Test
    fun theSamePasses() {
        val verdict = judge(0.75f)
        assertTrue(verdict.passed)
        assertEquals(0f, verdict.scoreDifference, 0f)
        assertEquals(0, verdict.pixelDifference)
        assertEquals("cat", verdict.best)
    }

    @Test
    fun tolerancesAreThoseOfTheProcessor() {
        assertTrue(judge(0.755f).passed)
        assertFalse(judge(0.72f).passed)
        assertTrue(judge(0.72f, processor = Processor.GPU).passed)
        assertFalse(judge(0.6f, processor = Processor.GPU).passed)
    }

    @Test
    fun aPixelMayBeRoundedTheOtherWay() {
        assertTrue(judge(0.75f, pixels = byteArrayOf(11, 20, -2)).passed)
        val verdict = judge(0.75f, pixels = byteArrayOf(10, 23, -1))
        assertFalse(verdict.passed)
        assertEquals(3, verdict.pixelDifference)
        // As bytes they are neighbours, as pixels black and white.
        assertEquals(255, judge(0.75f, pixels = byteArrayOf(10, 20, 0)).pixelDifference)
    }

    @Test
    fun anotherLikeliestClassFails() {
        val verdict = judge(0.1f, 0.9f)
        assertFalse(verdict.passed)
        assertEquals("狐", verdict.best)
        assertEquals("cat", verdict.expectedBest)
    }

    @Test
    fun labelsInAnotherOrderFail() {
        val swapped = listOf(Prediction("cat", 0, 0.75f), Prediction("狐", 2, 0.125f))
        val verdict = golden.judge(PIXELS, PIXELS, swapped, Processor.CPU)
        assertFalse(verdict.passed)
        assertEquals(1f, verdict.scoreDifference, 0f)
    }

    @Test
    fun noPredictionsFail() {
        assertFalse(golden.judge(PIXELS, PIXELS, emptyList(), Processor.CPU).passed)
    }

    @Test
    fun imagesOfOtherSizesAreAnError() {
        assertThrows(IllegalArgumentException::class.java) {
            judge(0.75f, pixels = ByteArray(6))
        }
    }

    @Test
    fun aDescription() {
        val model = ModelDescription.parse(
            """{"name": "toy", "description": "", "image_size": 32, "crop_fraction": 1}""",
        )
        assertEquals("toy", model.name)
        assertEquals(32, model.imageSize)
        assertEquals(1.0, model.cropFraction, 0.0)
        assertThrows(JSONException::class.java) { ModelDescription.parse("{}") }
    }
}
