package com.example.convmixer

import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test

class EvaluationTest {
    @Test
    fun whereTheSquareLies() {
        // Shorter side floor(224 / 0.96) = 233; halves go to the even number.
        val square = CentralSquare(4000, 3000, 224, 0.96)
        assertEquals(310, square.fullWidth)
        assertEquals(233, square.fullHeight)
        assertEquals(43, square.left)
        assertEquals(4, square.top) // 4.5
        assertEquals(0, CentralSquare(32, 32, 32, 1.0).left)
    }

    @Test
    fun badSizes() {
        for ((size, crop) in listOf(0 to 1.0, 8 to 0.0, 8 to 1.1, 8 to Double.NaN)) {
            assertThrows(IllegalArgumentException::class.java) {
                CentralSquare(10, 10, size, crop)
            }
        }
    }

    @Test
    fun anImageOfTheModelsSizeStaysAsItIs() {
        val bytes = ByteArray(4 * 5 * 5) { (it * 37).toByte() }
        val expected = bytes.filterIndexed { at, _ -> at % 4 != 3 }.toByteArray()
        assertArrayEquals(expected, evaluationPixels(Photo(5, 5, bytes), 5, 1.0))
    }

    @Test
    fun oneColourStaysOneColour() {
        val photo = Photo(31, 47, ByteArray(4 * 31 * 47) { (200 + it % 4).toByte() })
        for (size in listOf(3, 16, 90)) {
            val pixels = evaluationPixels(photo, size, 0.9)
            assertEquals(3 * size * size, pixels.size)
            pixels.forEachIndexed { at, value ->
                assertEquals((200 + at % 3).toByte(), value)
            }
        }
    }
}
