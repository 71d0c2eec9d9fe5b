package com.example.convmixer

/**
 * Puts transparent pixels on white, in place.
 *
 * @param bytes Red, green, blue and alpha of each pixel. As Android keeps them,
 *     the colours are multiplied by alpha already.
 */
fun putOnWhite(bytes: ByteArray) {
    for (at in bytes.indices step Photo.PIXEL_BYTES) {
        val white = 255 - (bytes[at + 3].toInt() and 0xff)
        for (channel in at until at + CHANNELS) {
            val value = (bytes[channel].toInt() and 0xff) + white
            bytes[channel] = value.coerceAtMost(255).toByte()
        }
    }
}

/**
 * Packs pixels into the numbers that bitmaps are made of: opaque, red, green,
 * blue, from the highest byte to the lowest.
 *
 * @param pixels Red, green and blue of each pixel.
 */
fun packedColours(pixels: ByteArray) = IntArray(pixels.size / CHANNELS) {
    (0 until CHANNELS).fold(0xff) { packed, channel ->
        (packed shl 8) or (pixels[CHANNELS * it + channel].toInt() and 0xff)
    }
}
