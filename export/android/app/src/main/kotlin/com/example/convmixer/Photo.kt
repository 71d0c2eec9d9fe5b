package com.example.convmixer

/**
 * An image in memory, turned as its EXIF orientation says.
 *
 * Nothing is moved for that: a step along a row, or down a column, of the
 * turned image is a step in the stored pixels.
 *
 * @param pixels As Android copies them from a bitmap: red in the lowest byte,
 *     green, blue, alpha.
 * @param storedWidth In pixels, as stored.
 * @param storedHeight In pixels, as stored.
 * @param orientation EXIF's tag 0x0112, 1 to 8. Any other number is taken as 1.
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
            "${pixels.size} pixels are no image of $storedWidth x $storedHeight."
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

    /** Gives a pixel of the turned image. */
    operator fun get(row: Int, column: Int) = pixels[start + row * rowStep + column * columnStep]
}
