package com.example.convmixer

/**
 * An image in memory, rotated as its EXIF orientation says.
 *
 * No pixels are moved: a step along a row or a column of the rotated image is a
 * step in the stored pixels.
 *
 * @param pixels As Android copies them from a bitmap: red in the lowest byte,
 *     green, blue, alpha.
 * @param storedWidth Width as stored, in pixels.
 * @param storedHeight Height as stored, in pixels.
 * @param orientation EXIF tag 0x0112, 1 to 8. Any other number is treated as 1.
 */
class Photo(
    private val pixels: IntArray,
    storedWidth: Int,
    storedHeight: Int,
    orientation: Int = 1,
) {
    private val transposed = orientation in 5..8
    private val columnStep: Int
    private val rowStep: Int
    private val start: Int

    /** In pixels, turned. */
    val width = if (transposed) storedHeight else storedWidth

    /** In pixels, turned. */
    val height = if (transposed) storedWidth else storedHeight

    init {
        require(storedWidth > 0 && storedHeight > 0 && pixels.size == storedWidth * storedHeight) {
            "${pixels.size} pixels are not an image of $storedWidth x $storedHeight."
        }
        val leftIsLast = orientation in listOf(2, 3, 7, 8)
        val topIsLast = orientation in listOf(3, 4, 6, 7)
        val right = if (leftIsLast) -1 else 1
        val down = if (topIsLast) -storedWidth else storedWidth
        columnStep = if (transposed) down else right
        rowStep = if (transposed) right else down
        start = (if (leftIsLast) storedWidth - 1 else 0) +
            (if (topIsLast) storedWidth * (storedHeight - 1) else 0)
    }

    /** Returns a pixel of the rotated image. */
    operator fun get(row: Int, column: Int) = pixels[start + row * rowStep + column * columnStep]
}
