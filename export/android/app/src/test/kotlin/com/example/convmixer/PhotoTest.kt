package com.example.convmixer

import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test

class PhotoTest {
    // Two rows of three pixels, a b c and d e f.
    private val pixels = "abcdef".map(Char::code).toIntArray()

    private fun rows(orientation: Int): List<String> {
        val photo = Photo(pixels, 3, 2, orientation)
        return List(photo.height) { row ->
            String(CharArray(photo.width) { column -> photo[row, column].toChar() })
        }
    }

    @Test
    fun everyOrientationOfExif() {
        assertEquals(listOf("abc", "def"), rows(1))
        assertEquals(listOf("cba", "fed"), rows(2))
        assertEquals(listOf("fed", "cba"), rows(3))
        assertEquals(listOf("def", "abc"), rows(4))
        assertEquals(listOf("ad", "be", "cf"), rows(5))
        assertEquals(listOf("da", "eb", "fc"), rows(6))
        assertEquals(listOf("fc", "eb", "da"), rows(7))
        assertEquals(listOf("cf", "be", "ad"), rows(8))
        assertEquals(rows(1), rows(0)) // not set
        assertEquals(rows(1), rows(9)) // no such thing
    }

    @Test
    fun pixelsThatAreNotThere() {
        for ((width, height) in listOf(0 to 2, 3 to 3, 7 to 1)) {
            assertThrows(IllegalArgumentException::class.java) { Photo(pixels, width, height) }
        }
    }
}
