package com.example.convmixer

import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

private val PIXELS = IntArray(3)

class ClassifierTest {
    private val log = mutableListOf<String>()

    /** Logs its calls and runs the given functions. */
    private inner class FakeEngine(
        private val name: String,
        private val answer: () -> Float,
        private val onClose: () -> Unit = {},
    ) : Engine {
        init {
            log += "create $name"
        }

        override fun classify(pixels: IntArray): List<Prediction> {
            log += "run $name"
            return listOf(Prediction(name, 0, answer()))
        }

        override fun close() {
            log += "close $name"
            onClose()
        }
    }

    private fun classifier(gpu: () -> Engine) = FallbackClassifier { processor ->
        if (processor == Processor.GPU) gpu() else FakeEngine("cpu", { 1f })
    }

    private fun workingGpu() = FakeEngine("gpu", { 1f })

    @Test
    fun theCpuIsTheDefaultAndIsMadeOnce() {
        val classifier = classifier(::workingGpu)
        repeat(2) {
            val answer = classifier.classify(PIXELS)
            assertEquals(Processor.CPU, answer.processor)
            assertNull(answer.gpuFailure)
        }
        assertEquals(listOf("create cpu", "run cpu", "run cpu"), log)
    }

    @Test
    fun aGpuThatWorksIsUsedAndOnlyOneEngineIsOpen() {
        val classifier = classifier(::workingGpu)
        classifier.classify(PIXELS)
        val answer = classifier.classify(PIXELS, Processor.GPU)
        assertEquals(Processor.GPU, answer.processor)
        assertEquals("gpu", answer.predictions.single().className)
        assertNull(answer.gpuFailure)
        classifier.close()
        assertEquals(
            listOf("create cpu", "run cpu", "close cpu", "create gpu", "run gpu", "close gpu"),
            log,
        )
    }

    @Test
    fun aGpuThatCanNotBeMadeReady() {
        val classifier = classifier { throw IllegalStateException("no OpenCL") }
        repeat(2) {
            val answer = classifier.classify(PIXELS, Processor.GPU)
            assertEquals(Processor.CPU, answer.processor)
            assertEquals("no OpenCL", answer.gpuFailure)
        }
        assertEquals(listOf("create cpu", "run cpu", "run cpu"), log)
    }

    @Test
    fun aGpuThatFailsInItsFirstRun() {
        val failing = { FakeEngine("gpu", { throw IllegalStateException("lost") }) }
        val answer = classifier(failing).classify(PIXELS, Processor.GPU)
        assertEquals(Processor.CPU, answer.processor)
        assertEquals("lost", answer.gpuFailure)
        assertEquals(
            listOf("create gpu", "run gpu", "close gpu", "create cpu", "run cpu"),
            log,
        )
    }

    @Test
    fun aGpuThatFailsLater() {
        var runs = 0
        val failing = FakeEngine("gpu", { if (runs++ == 0) 1f else error("lost") })
        val classifier = classifier { failing }
        assertEquals(Processor.GPU, classifier.classify(PIXELS, Processor.GPU).processor)
        assertEquals(Processor.CPU, classifier.classify(PIXELS, Processor.GPU).processor)
    }

    @Test
    fun aGpuThatGivesNoNumbers() {
        val failing = { FakeEngine("gpu", { Float.NaN }) }
        val answer = classifier(failing).classify(PIXELS, Processor.GPU)
        assertEquals(Processor.CPU, answer.processor)
        assertTrue(answer.gpuFailure!!.contains("not numbers"))
    }

    @Test
    fun aMissingLibraryAndAnEngineThatWillNotClose() {
        val failing = {
            FakeEngine("gpu", { throw UnsatisfiedLinkError("libGpu.so") }, { error("stuck") })
        }
        val answer = classifier(failing).classify(PIXELS, Processor.GPU)
        assertEquals(Processor.CPU, answer.processor)
        assertEquals("libGpu.so", answer.gpuFailure)
    }

    @Test
    fun aGpuIsTriedAgainOnlyWhenAskedTo() {
        var tries = 0
        val classifier = classifier { if (tries++ == 0) error("busy") else workingGpu() }
        assertEquals(Processor.CPU, classifier.classify(PIXELS, Processor.GPU).processor)
        assertEquals(Processor.CPU, classifier.classify(PIXELS, Processor.GPU).processor)
        classifier.retryGpu()
        assertEquals(Processor.GPU, classifier.classify(PIXELS, Processor.GPU).processor)
        assertEquals(2, tries)
    }

    @Test
    fun aSingleOutputIsAClassAndItsOpposite() {
        val (best, other) = withOpposite(listOf(Prediction("cat", 0, 0.25f)))
        assertEquals(Prediction("not cat", 0, 0.75f), best)
        assertEquals(Prediction("cat", 1, 0.25f), other)
        val two = listOf(best, other)
        assertEquals(two, withOpposite(two))
    }

    @Test
    fun whatTheCpuThrowsIsNotHidden() {
        val broken = FallbackClassifier { throw IllegalStateException("no model") }
        for (wanted in Processor.entries) {
            val error = assertThrows(IllegalStateException::class.java) {
                broken.classify(PIXELS, wanted)
            }
            assertEquals("no model", error.message)
        }
    }
}
