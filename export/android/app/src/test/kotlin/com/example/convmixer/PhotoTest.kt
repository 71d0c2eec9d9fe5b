package com.example.convmixer

import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test

class PhotoTest {
    // Two rows of three pixels, a b c and d e f, with a byte of padding each.
    private val bytes = "a000b000c000-d000e000f000-".encodeToByteArray()

    private fun rows(orientation: Int): List<String> {
        val photo = Photo(3, 2, bytes, 13, orientation)
        return List(photo.height) { row ->
            String(
                CharArray(photo.width) { column ->
                    val at = photo.start + row * photo.rowStep + column * photo.columnStep
                    bytes[at].toInt().toChar()
                },
            )
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
        for ((width, height, rowBytes) in listOf(
            Triple(0, 2, 13),
            Triple(3, 3, 13),
            Triple(3, 2, 11),
        )) {
            assertThrows(IllegalArgumentException::class.java) {
                Photo(width, height, bytes, rowBytes)
            }
        }
    }

    @Test
    fun whatIsTransparentBecomesWhite() {
        // Colours are multiplied by alpha already: opaque, half, nothing.
        val pixels = byteArrayOf(10, 20, 30, -1, 5, 10, 15, 127, 0, 0, 0, 0)
        putOnWhite(pixels)
        val white = 255.toByte()
        assertArrayEquals(byteArrayOf(10, 20, 30, -1), pixels.copyOfRange(0, 4))
        assertArrayEquals(
            byteArrayOf(133.toByte(), 138.toByte(), 143.toByte()),
            pixels.copyOfRange(4, 7),
        )
        assertArrayEquals(byteArrayOf(white, white, white), pixels.copyOfRange(8, 11))
    }

    @Test
    fun coloursAreOpaqueRedGreenBlue() {
        val packed = packedColours(byteArrayOf(1, 2, 3, -1, 0, -128))
        assertArrayEquals(intArrayOf(0xff010203.toInt(), 0xffff0080.toInt()), packed)
    }
}
