package com.example.convmixer

/**
 * An image in memory, turned as its EXIF orientation says.
 *
 * Nothing is moved for that: a step along a row, or down a column, of the
 * turned image is a step in the bytes of the stored one.
 *
 * @param storedWidth In pixels, as stored.
 * @param storedHeight In pixels, as stored.
 * @param bytes Red, green, blue and one more byte of each pixel, row by row.
 * @param rowBytes Bytes from row to row.
 * @param orientation EXIF's tag 0x0112, 1 to 8. Any other number is taken as 1.
 */
class Photo(
    storedWidth: Int,
    storedHeight: Int,
    val bytes: ByteArray,
    rowBytes: Int = PIXEL_BYTES * storedWidth,
    orientation: Int = UPRIGHT,
) {
    private val transposed = orientation in 5..8

    /** In pixels, turned. */
    val width = if (transposed) storedHeight else storedWidth

    /** In pixels, turned. */
    val height = if (transposed) storedWidth else storedHeight

    /** Index of the byte of the turned image's top left pixel. */
    val start: Int

    /** Bytes from a pixel to the next one in a row of the turned image. */
    val columnStep: Int

    /** Bytes from a pixel to the next one in a column of the turned image. */
    val rowStep: Int

    init {
        require(storedWidth > 0 && storedHeight > 0) {
            "An image of $storedWidth x $storedHeight pixels is empty."
        }
        val needed = rowBytes.toLong() * (storedHeight - 1) + PIXEL_BYTES * storedWidth
        require(rowBytes >= PIXEL_BYTES * storedWidth && bytes.size >= needed) {
            "$storedWidth x $storedHeight pixels are not in ${bytes.size} bytes " +
                "of rows of $rowBytes."
        }
        val leftIsLast = orientation in listOf(2, 3, 7, 8)
        val topIsLast = orientation in listOf(3, 4, 6, 7)
        val right = if (leftIsLast) -PIXEL_BYTES else PIXEL_BYTES
        val down = if (topIsLast) -rowBytes else rowBytes
        columnStep = if (transposed) down else right
        rowStep = if (transposed) right else down
        start = (if (leftIsLast) PIXEL_BYTES * (storedWidth - 1) else 0) +
            (if (topIsLast) rowBytes * (storedHeight - 1) else 0)
    }

    companion object {
        const val PIXEL_BYTES = 4
        const val UPRIGHT = 1
    }
}
