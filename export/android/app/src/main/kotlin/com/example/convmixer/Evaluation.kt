package com.example.convmixer

import kotlin.math.abs
import kotlin.math.ceil
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

/**
 * The evaluation transform: shorter side, antialiased bicubic filter, center.
 *
 * Android's own resizing differs, so the filter is implemented here. Like
 * `convmixer_tf.data`, it equals Pillow's: columns before rows, with the
 * intermediate result rounded to integers.
 *
 * @param size Side of the model's images, in pixels.
 * @param cropFraction Part of the shorter side to keep, in (0, 1].
 * @return The model's size x size input pixels, packed as in `Photo`.
 */
fun evaluationPixels(photo: Photo, size: Int, cropFraction: Double): IntArray {
    require(size > 0 && cropFraction > 0 && cropFraction <= 1) {
        "size = $size must be positive and cropFraction = $cropFraction in (0, 1]."
    }
    val shorter = floor(size / cropFraction).toLong()
    val shorterStored = min(photo.width, photo.height)
    val columns = filters(photo.width, (shorter * photo.width / shorterStored).toInt(), size)
    val rows = filters(photo.height, (shorter * photo.height / shorterStored).toInt(), size)
    val narrow = arrayOfNulls<IntArray>(photo.height)
    for (row in rows.first().first until rows.last().end) {
        narrow[row] = IntArray(size) { columns[it].mix { column -> photo[row, column] } }
    }
    return IntArray(size * size) { rows[it / size].mix { row -> narrow[row]!![it % size] } }
}

/**
 * Creates the filters of the central `size` positions along one side.
 *
 * @param stored Length of the side, in pixels.
 * @param resized Length of the whole resized side, in pixels.
 */
private fun filters(stored: Int, resized: Int, size: Int): List<Filter> {
    // Halves are rounded to even numbers, as in Python's round.
    val offset = round((resized - size) / 2.0).toInt()
    return List(size) { Filter(offset + it, stored, resized) }
}

/** The weighted pixels of the position `output` in a resized line. */
private class Filter(output: Int, stored: Int, resized: Int) {
    val first: Int
    val end: Int
    private val weights: DoubleArray

    init {
        val scale = stored.toDouble() / resized
        val stretch = max(scale, 1.0) // wider if the image shrinks
        val center = (output + 0.5) * scale
        first = max(floor(center - 2 * stretch).toInt(), 0)
        end = min(ceil(center + 2 * stretch).toInt(), stored)
        val unscaled = DoubleArray(end - first) { cubic(abs(first + it + 0.5 - center) / stretch) }
        val sum = unscaled.sum()
        weights = DoubleArray(unscaled.size) { unscaled[it] / sum }
    }

    /** Applies the filter to the pixels of one line. */
    inline fun mix(pixelAt: (Int) -> Int): Int {
        var red = 0.0
        var green = 0.0
        var blue = 0.0
        for (i in first until end) {
            val weight = weights[i - first]
            val pixel = pixelAt(i)
            red += weight * (pixel and 0xff)
            green += weight * (pixel shr 8 and 0xff)
            blue += weight * (pixel shr 16 and 0xff)
        }
        return rounded(red) or (rounded(green) shl 8) or (rounded(blue) shl 16) or (0xff shl 24)
    }

    private fun rounded(x: Double) = floor(x.coerceIn(0.0, 255.0) + 0.5).toInt()

    /** The cubic convolution kernel with a = -0.5. */
    private fun cubic(x: Double) = when {
        x < 1 -> (1.5 * x - 2.5) * x * x + 1
        x < 2 -> ((-0.5 * x + 2.5) * x - 4) * x + 2
        else -> 0.0
    }
}
