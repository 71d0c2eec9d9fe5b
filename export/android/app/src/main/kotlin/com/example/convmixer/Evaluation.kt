package com.example.convmixer

import kotlin.math.abs
import kotlin.math.ceil
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

/*
 * The evaluation transform: shorter side, antialiased bicubic filter, centre.
 *
 * Android's own resizing is another one, so the filter is written out here. It
 * equals Pillow's, as `convmixer_tf.data` does: columns before rows, with the
 * result of the former rounded to whole pixels.
 */

const val CHANNELS = 3

/**
 * Where the square that the model gets lies in the whole resized image.
 *
 * @param width Of the photo, in pixels.
 * @param height Of the photo, in pixels.
 * @param size Side of the model's images, in pixels.
 * @param cropFraction Part of the shorter side to keep, in (0, 1].
 */
class CentralSquare(width: Int, height: Int, val size: Int, cropFraction: Double) {
    val fullWidth: Int
    val fullHeight: Int
    val left: Int
    val top: Int

    init {
        require(size > 0 && cropFraction > 0 && cropFraction <= 1) {
            "size = $size must be positive and cropFraction = $cropFraction in (0, 1]."
        }
        val shorter = floor(size / cropFraction).toLong()
        val least = min(width, height)
        fullWidth = (shorter * width / least).toInt()
        fullHeight = (shorter * height / least).toInt()
        // Halves go to the even number, as in Python's round.
        left = round((fullWidth - size) / 2.0).toInt()
        top = round((fullHeight - size) / 2.0).toInt()
    }
}

/**
 * Reads the pixels that the model gets.
 *
 * @return Red, green and blue of size x size pixels.
 */
fun evaluationPixels(photo: Photo, size: Int, cropFraction: Double): ByteArray {
    val square = CentralSquare(photo.width, photo.height, size, cropFraction)
    val columns = Filters(photo.width, square.fullWidth, square.left, size)
    val rows = Filters(photo.height, square.fullHeight, square.top, size)
    val rowBytes = size * CHANNELS
    val narrow = ByteArray(photo.height * rowBytes)
    for (row in rows.firstInput until rows.endOfInputs) {
        val from = photo.start + row * photo.rowStep
        columns.apply(photo.bytes, from, photo.columnStep, narrow, row * rowBytes, CHANNELS)
    }
    val pixels = ByteArray(size * rowBytes)
    for (column in 0 until rowBytes step CHANNELS) {
        rows.apply(narrow, column, rowBytes, pixels, column, rowBytes)
    }
    return pixels
}

/** For each of `size` output positions, which inputs it is a mean of. */
private class Filters(length: Int, fullLength: Int, offset: Int, size: Int) {
    private val firsts = IntArray(size)
    private val weights: Array<DoubleArray>

    init {
        val scale = length.toDouble() / fullLength
        val stretch = max(scale, 1.0) // wider where the image shrinks
        weights = Array(size) { output ->
            val centre = (offset + output + 0.5) * scale
            val first = max(floor(centre - 2 * stretch).toInt(), 0)
            val end = min(ceil(centre + 2 * stretch).toInt(), length)
            firsts[output] = first
            val unscaled = DoubleArray(end - first) {
                cubic(abs(first + it + 0.5 - centre) / stretch)
            }
            val sum = unscaled.sum()
            DoubleArray(unscaled.size) { unscaled[it] / sum }
        }
    }

    val firstInput get() = firsts.first()
    val endOfInputs get() = firsts.last() + weights.last().size

    /** Resamples one line of pixels; the steps are bytes from pixel to pixel. */
    fun apply(from: ByteArray, start: Int, step: Int, to: ByteArray, toStart: Int, toStep: Int) {
        for (output in weights.indices) {
            var red = 0.0
            var green = 0.0
            var blue = 0.0
            var at = start + firsts[output] * step
            for (weight in weights[output]) {
                red += weight * (from[at].toInt() and 0xff)
                green += weight * (from[at + 1].toInt() and 0xff)
                blue += weight * (from[at + 2].toInt() and 0xff)
                at += step
            }
            val target = toStart + output * toStep
            to[target] = rounded(red)
            to[target + 1] = rounded(green)
            to[target + 2] = rounded(blue)
        }
    }

    private fun rounded(x: Double) = floor(x.coerceIn(0.0, 255.0) + 0.5).toInt().toByte()

    /** The cubic convolution kernel with a = -0.5. */
    private fun cubic(x: Double) = when {
        x < 1 -> (1.5 * x - 2.5) * x * x + 1
        x < 2 -> ((-0.5 * x + 2.5) * x - 4) * x + 2
        else -> 0.0
    }
}
