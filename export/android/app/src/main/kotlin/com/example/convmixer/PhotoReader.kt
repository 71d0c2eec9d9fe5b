package com.example.convmixer

import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.PorterDuff
import androidx.exifinterface.media.ExifInterface
import java.io.IOException
import java.io.InputStream
import java.nio.IntBuffer

// 16 million pixels take 64 MiB. Larger photos are halved during decoding. They
// are still much larger than any model's images.
private const val MAX_PIXELS = 1L shl 24

/**
 * Decodes an image file.
 *
 * Pixels are used as stored, regardless of the color profile, as in training.
 * Transparent pixels become white.
 *
 * @param turn Whether to rotate the image as the EXIF of a JPEG, PNG, WebP or
 *     HEIF file says. Android's decoder rotates none of them.
 * @param open Opens the file. It is called three times.
 * @throws IOException If the file is not an image or is damaged.
 */
fun readPhoto(turn: Boolean, open: () -> InputStream): Photo {
    val options = BitmapFactory.Options()
    options.inJustDecodeBounds = true
    open().use { BitmapFactory.decodeStream(it, null, options) }
    if (options.outWidth <= 0 || options.outHeight <= 0) {
        throw IOException("this phone does not support the format, or it is not an image")
    }
    options.inJustDecodeBounds = false
    options.inMutable = true
    options.inSampleSize = samplingFor(options.outWidth.toLong() * options.outHeight)
    val decoded = open().use { BitmapFactory.decodeStream(it, null, options) }
    // Converts images with 16 bits per color to 8 bits.
    val bitmap = if (decoded?.config == Bitmap.Config.ARGB_8888) {
        decoded
    } else {
        decoded?.copy(Bitmap.Config.ARGB_8888, true)
    }
    if (bitmap == null) throw IOException("it is damaged")
    if (bitmap.hasAlpha()) Canvas(bitmap).drawColor(Color.WHITE, PorterDuff.Mode.DST_OVER)
    val pixels = IntArray(bitmap.width * bitmap.height)
    bitmap.copyPixelsToBuffer(IntBuffer.wrap(pixels))
    val orientation = if (turn) open().use(::orientationOf) else 1
    val photo = Photo(pixels, bitmap.width, bitmap.height, orientation)
    bitmap.recycle()
    return photo
}

private fun orientationOf(stream: InputStream) =
    ExifInterface(stream).getAttributeInt(ExifInterface.TAG_ORIENTATION, 1)

private fun samplingFor(pixels: Long): Int {
    var sampling = 1
    while (pixels / (sampling.toLong() * sampling) > MAX_PIXELS) sampling *= 2
    return sampling
}

/** Creates an opaque square bitmap. */
fun bitmapOf(pixels: IntArray, size: Int): Bitmap {
    val bitmap = Bitmap.createBitmap(size, size, Bitmap.Config.ARGB_8888)
    bitmap.copyPixelsFromBuffer(IntBuffer.wrap(pixels))
    return bitmap
}
