package com.example.convmixer

import org.json.JSONException
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

private val PIXELS = intArrayOf(pixel(10, 20, 255))

private fun pixel(red: Int, green: Int, blue: Int) = red or (green shl 8) or (blue shl 16)

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
        pixels: IntArray = PIXELS,
        processor: Processor = Processor.CPU,
    ): Verdict {
        val predictions = listOf(Prediction("cat", 2, cat), Prediction("狐", 0, fox))
        val sorted = predictions.sortedByDescending { it.score }
        return golden.judge(pixels, PIXELS, Answer(sorted, processor, 0, null))
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
        assertTrue(judge(0.75f, pixels = intArrayOf(pixel(11, 20, 254))).passed)
        val verdict = judge(0.75f, pixels = intArrayOf(pixel(10, 23, 255)))
        assertFalse(verdict.passed)
        assertEquals(3, verdict.pixelDifference)
        assertEquals(255, judge(0.75f, pixels = intArrayOf(pixel(10, 20, 0))).pixelDifference)
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
        val verdict = golden.judge(PIXELS, PIXELS, Answer(swapped, Processor.CPU, 0, null))
        assertFalse(verdict.passed)
        assertEquals(1f, verdict.scoreDifference, 0f)
    }

    @Test
    fun aGpuWithTheScoresOfTheCpuDidNotRun() {
        fun answer(processor: Processor, score: Float) =
            Answer(listOf(Prediction("cat", 2, score)), processor, 0, null)
        fun sameAsCpu(answer: Answer, onCpu: Answer?) =
            golden.judge(PIXELS, PIXELS, answer, onCpu).sameAsCpu
        val onCpu = answer(Processor.CPU, 0.75f)
        assertTrue(sameAsCpu(answer(Processor.GPU, 0.75f), onCpu))
        assertFalse(sameAsCpu(answer(Processor.GPU, 0.7500001f), onCpu))
        assertFalse(sameAsCpu(onCpu, onCpu))
        assertFalse(sameAsCpu(answer(Processor.GPU, 0.75f), null))
    }

    @Test
    fun imagesOfOtherSizesAreAnError() {
        assertThrows(IllegalArgumentException::class.java) {
            judge(0.75f, pixels = IntArray(6))
        }
    }

    @Test
    fun aDescription() {
        val text = """{"image_size": 32, "crop_fraction": 1, "orientation": "stored"}"""
        val model = ModelDescription.parse(text)
        assertEquals(32, model.imageSize)
        assertEquals(1.0, model.cropFraction, 0.0)
        assertFalse(model.turn)
        assertTrue(ModelDescription.parse(text.replace("stored", "exif")).turn)
        // Files without an orientation were written for upright photos.
        assertTrue(ModelDescription.parse("""{"image_size": 8, "crop_fraction": 1}""").turn)
        assertThrows(JSONException::class.java) { ModelDescription.parse("{}") }
    }
}
