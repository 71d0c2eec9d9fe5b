package com.example.convmixer

import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

private const val OPAQUE = 0xff shl 24

class EvaluationTest {
    @Test
    fun whereTheSquareLies() {
        // A square of 2 from 4 x 3 pixels without resizing: because halves are
        // rounded to even numbers, it starts in column 1 and row 0.
        val photo = Photo(IntArray(12) { OPAQUE or it }, 4, 3)
        val pixels = evaluationPixels(photo, 2, 2 / 3.0)
        assertArrayEquals(intArrayOf(1, 2, 5, 6), pixels.map { it and 0xff }.toIntArray())
    }

    @Test
    fun badSizes() {
        val photo = Photo(IntArray(100), 10, 10)
        for ((size, crop) in listOf(0 to 1.0, 8 to 0.0, 8 to 1.1, 8 to Double.NaN)) {
            assertThrows(IllegalArgumentException::class.java) {
                evaluationPixels(photo, size, crop)
            }
        }
    }

    @Test
    fun anImageOfTheModelsSizeStaysAsItIs() {
        val pixels = IntArray(25) { OPAQUE or (it * 12345) }
        assertArrayEquals(pixels, evaluationPixels(Photo(pixels, 5, 5), 5, 1.0))
    }

    @Test
    fun oneColorStaysOneColor() {
        val color = OPAQUE or (200 shl 16) or (201 shl 8) or 202
        val photo = Photo(IntArray(31 * 47) { color }, 31, 47)
        for (size in listOf(3, 16, 90)) {
            val pixels = evaluationPixels(photo, size, 0.9)
            assertEquals(size * size, pixels.size)
            assertTrue(pixels.all { it == color })
        }
    }
}
